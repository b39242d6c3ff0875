"""A change of form alone changes no judgement: every labelled answer, said in every form."""

import json

import pytest
from forms import CHANGES, changed
from places import DATA
from tiny import tiny_probes

REFUSE = next(probe for probe in tiny_probes() if probe.expect == "refuse")


@pytest.fixture(scope="module")
def said():
    rows = [
        json.loads(line)
        for name in ("answers.jsonl", "answers_2.jsonl")
        for line in (DATA / name).read_text(encoding="utf-8").splitlines()
    ]
    texts = [row["answer"].strip() for row in rows if row.get("answer") and "<" not in row["answer"]]
    return [text for text in dict.fromkeys(texts) if len(text) > 1]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_form_changes_no_judgement(said, change):
    """Of every hundred answers at most one may be judged otherwise, and none may turn from a refusal into an answer or back."""
    other, turned = changed(REFUSE, said, change)
    assert other <= 0.01 * len(said) and turned == 0, (change, other, turned, len(said))
