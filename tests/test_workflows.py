"""What runs in CI is what was looked at: actions by commit, with no more than they need, and dependencies are audited."""

import re

import pytest
from places import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_may_read_alone(path):
    text = path.read_text()
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, rest in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r"\s+# v\d+\.\d+\.\d+", rest), f"{action} does not say which version it is"
    assert "permissions:\n  contents: read\n" in text and "pull_request_target" not in text


def test_dependencies_are_audited():
    assert "run: make audit" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "pip_audit" in (ROOT / "Makefile").read_text()
