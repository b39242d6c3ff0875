"""The table of figures: every figure that is logged stands in it, and what does not stand in it cannot be logged."""

import re

import pytest
from places import ROOT

from alignguard.auditing.figures import FIGURES, PREFIX, logged, named, table


def test_a_key_gives_the_name_that_is_logged():
    assert logged("kl/answer") == "alignguard/kl/answer"
    assert named({"safety/drop": 0.5, "status/empty": 0.0, "bbq/accuracy_ambig": 1.0}) == {
        "alignguard/safety/drop": 0.5,
        "alignguard/status/empty": 0.0,
        "alignguard/bbq/accuracy_ambig": 1.0,
    }


@pytest.mark.parametrize("key", ["kl/anser", "safty/drop", "status/fine", "kl/answer/x", "alignguard/kl/answer", ""])
def test_a_key_that_stands_in_no_row_is_an_error(key):
    with pytest.raises(KeyError, match="no figure"):
        logged(key)


def test_no_name_is_the_beginning_of_another_and_a_slash():
    """MLflow's file store makes folders of names."""
    keys = [key for figure in FIGURES for key in figure.keys]
    assert len(keys) == len(set(keys))
    assert not [(a, b) for a in keys for b in keys if b.startswith(f"{a}/")]


def test_names_are_written_in_the_table_alone():
    """Elsewhere a figure is asked for by its key, which the table knows."""
    names = "|".join(
        ["kl", "budget", "cost", "status", "safety", "toxicity", "last_aligned_step", "degenerate", "forced"]
    )
    for path in (ROOT / "alignguard").rglob("*.py"):
        code = re.sub(r'"""[\s\S]*?"""', "", path.read_text(encoding="utf-8"))
        assert not re.search(rf"alignguard/(?:{names})\b", code), path


def test_the_table_as_markdown():
    lines = table().splitlines()
    assert len(lines) == 2 + len(FIGURES) and all(line.count("|") == 4 for line in lines)
    assert f"| `{PREFIX}kl/answer_low`, `{PREFIX}kl/answer_high` | nats per token |" in table()
