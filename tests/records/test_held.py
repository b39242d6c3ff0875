"""Two runs never write one record: who writes it holds it, and a process that is gone holds nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

import alignguard
from alignguard.errors import RunError
from alignguard.records.store import Store

OTHER = """
import sys
from alignguard.records.store import Store
store = Store.of_run(sys.argv[1])
store.prepare()
store.hold()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process, which writes the record."""
    path = str(Path(alignguard.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": path},
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_refused_until_the_first_is_gone(tmp_path, other):
    store = Store.of_run(tmp_path)
    (store.root / "audits.jsonl").write_text("")
    for tried in (store.hold, store.set_aside):
        with pytest.raises(
            RunError, match=f"is being written by another run .process {other.pid} on .*output_dir of its own"
        ):
            tried()
    assert (store.root / "audits.jsonl").exists()
    other.kill()
    other.wait()
    store.hold()
    store.let_go()


def test_one_process_may_try_again(tmp_path):
    store, again = Store.of_run(tmp_path), Store.of_run(tmp_path)
    store.prepare()
    store.hold()
    again.hold()
    again.let_go()
    again.let_go()


def test_a_record_that_is_set_aside_is_not_held_any_more(tmp_path, other):
    other.kill()
    other.wait()
    store = Store.of_run(tmp_path)
    (store.root / "audits.jsonl").write_text("")
    assert store.set_aside() == store.root.with_name("alignguard.1")
    store.prepare()
    store.hold()
    assert (store.private / ".lock").stat().st_mode & 0o777 == 0o600
    store.let_go()
    assert not (store.private / ".lock").exists()


def test_a_file_system_without_locks_is_one_without_this_protection(tmp_path, monkeypatch):
    import fcntl

    def cannot(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", cannot)
    store = Store.of_run(tmp_path)
    store.prepare()
    store.hold()
    store.let_go()
