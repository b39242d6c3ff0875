"""Servers of trackers, killed in the middle of a run and started again; each is one case of `make reliability SECTION=servers`."""

import pytest
from reliability_servers import ALONE, CASES, SERVERS, NotThere, served, trained, tried
from reliability_servers_run import LAST

pytestmark = pytest.mark.slow
(BACK,) = (case for case in CASES if case.name == "killed, back after two audits")


@pytest.mark.parametrize("tracker", SERVERS)
def test_a_server_that_was_killed_and_is_back_has_every_audit_once(tracker):
    pytest.importorskip(tracker)
    try:
        with served(tracker) as server:
            plain = trained(server, tracker, ALONE, watched=False)
            assert tried(server, tracker, BACK, plain) == (LAST + 1, 0, [])
    except NotThere as error:  # mlflow-skinny, which the tests install, has none
        pytest.skip(f"no server of {tracker} is installed ({str(error)[:80]})")
