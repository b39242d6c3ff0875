"""What others' code may take: what hangs is interrupted, and nothing else is."""

import signal
import threading
import time
from math import inf

import pytest

from alignguard.timed import LateError, Patience


@pytest.mark.parametrize("hangs", [lambda: time.sleep(60), lambda: threading.Event().wait(60), lambda: _stubborn()])
def test_what_hangs_is_interrupted(hangs):
    before, left = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    with pytest.raises(LateError, match=r"longer than 0\.2 s"):
        Patience().call("it", 0.2, hangs)
    assert signal.getsignal(signal.SIGALRM) is before
    assert left - 10 < signal.getitimer(signal.ITIMER_REAL)[0] <= left  # of the test's own time limit


def _stubborn():
    """A library that tries again, whatever happens."""
    while True:
        try:
            time.sleep(60)
        except Exception:
            continue


def test_what_is_late_gets_little_time_until_it_is_back(monkeypatch):
    monkeypatch.setattr("alignguard.timed._AGAIN", 0.1)
    patience, allowed = Patience(), []

    def slow():
        time.sleep(60)

    for seconds in (0.3, 30.0):
        begun = time.monotonic()
        with pytest.raises(LateError) as told:
            patience.call("it", seconds, slow)
        allowed.append(str(told.value).split()[4])
        assert time.monotonic() - begun < 20
    assert allowed == ["0.3", "0.1"]
    assert patience.call("another", 30.0, lambda: 1) == 1
    assert patience.call("it", 30.0, lambda: 2) == 2
    with pytest.raises(LateError, match=r"longer than 0\.2 s"):  # in time, and so trusted again
        patience.call("it", 0.2, slow)


def test_what_it_gives_and_raises_comes_through():
    assert Patience().call("it", 5, lambda: "said") == "said"
    with pytest.raises(KeyError, match="theirs"):
        Patience().call("it", 5, lambda: {}["theirs"])
    assert Patience().call("ours", inf, lambda: 3) == 3


def test_an_alarm_of_the_users_own_goes_off_when_it_would_have():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(time.monotonic()))
    try:
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        assert Patience().call("it", 60, lambda: time.sleep(0.1)) is None
        assert Patience().call("it", 0.3, lambda: 1) == 1  # which ends before theirs is due
        while not rung and time.monotonic() < begun + 10:
            time.sleep(0.01)
        assert len(rung) == 1 and rung[0] - begun >= 0.39
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_in_another_thread_there_is_no_limit_and_no_alarm():
    found = []
    thread = threading.Thread(target=lambda: found.append(Patience().call("it", 0.05, lambda: time.sleep(0.2) or 1)))
    thread.start()
    thread.join()
    assert found == [1]


def test_an_alarm_that_comes_as_the_call_ends_leaves_nothing_behind():
    before = signal.getsignal(signal.SIGALRM)
    late = 0
    for more in range(300):
        seconds = 0.002
        ends = time.monotonic() + seconds - 2e-4 + more * 1e-6

        def busy(ends=ends):
            while time.monotonic() < ends:
                pass

        try:
            Patience().call("it", seconds, busy)
        except LateError:
            late += 1
        assert signal.getsignal(signal.SIGALRM) is before
    assert 0 <= late <= 300
