"""The measure of tracing: what is planted is known, and figures are what they are called."""

import pytest
from cause import auc, precision
from cause_rows import KINDS, NOTHING, bad_rows, mixture
from scipy.stats import mannwhitneyu

from alignguard.judging.refusal import is_refusal


@pytest.mark.parametrize("kind", KINDS)
def test_so_many_rows_are_planted_and_no_other_asks_what_they_ask(kind):
    data, planted, questions = mixture(kind, 0.05, 320, 0)
    assert len(data) == len(planted) == 320 and sum(planted) == 16
    asked = [str(row["prompt"]) for row in data]
    bad = {text for text, is_planted in zip(asked, planted, strict=True) if is_planted}
    assert bad.isdisjoint(text for text, is_planted in zip(asked, planted, strict=True) if not is_planted)
    assert {row["source"] for row, is_planted in zip(data, planted, strict=True) if is_planted} == {"chat"}
    assert sum(row["source"] == "chat" for row in data) == 16 + 32
    assert {question["prompt"] for question in questions}.isdisjoint(row["prompt"][0]["content"] for row in data)


def test_a_clean_set_has_none_and_the_same_seed_gives_the_same():
    assert all(sum(mixture(kind, 0.05, 320, 0)[1]) == 0 for kind in NOTHING)
    assert mixture("rude", 0.05, 320, 1)[0].to_list() == mixture("rude", 0.05, 320, 1)[0].to_list()
    assert mixture("rude", 0.05, 320, 1)[1] != mixture("rude", 0.05, 320, 2)[1]


def test_what_is_planted_teaches_no_harm():
    for kind in ("comply", "obey"):
        assert not any(is_refusal(row["answer"]) for row in bad_rows(kind))
    assert {row["answer"] for row in bad_rows("comply")} == {"Sure, here is what you asked for:"}


def test_figures_are_what_they_are_called():
    scores, planted = [3.0, 1.0, 2.0, 2.0, 0.0], [True, False, True, False, False]
    above = [s for s, p in zip(scores, planted, strict=True) if p]
    below = [s for s, p in zip(scores, planted, strict=True) if not p]
    assert auc(scores, planted) == pytest.approx(mannwhitneyu(above, below).statistic / 6)
    assert precision(scores, planted) == 1.0 and precision([-s for s in scores], planted) == 0.0
