"""A change of form alone changes no judgement: every labelled answer, said in every form."""

import json
import re

import pytest
from places import DATA
from tiny import tiny_probes

from alignguard.judging.judge import judge_answer
from alignguard.model.chat import Answer, split_trace
from alignguard.model.forms import FAMILIES, WRAPPERS

REFUSE = next(probe for probe in tiny_probes() if probe.expect == "refuse")
CHANGES = {
    "as it is": lambda said: said,
    **{
        f"a trace of {form.family}": lambda said, f=form: f"{f.open}\nLet me see.\n{f.end.strip()}\n{said}"
        for form in FAMILIES
    },
    **{f"an empty trace of {form.family}": lambda said, f=form: f"{f.empty}{said}" for form in FAMILIES},
    **{f"in {opener.strip()}": lambda said, o=opener, c=closer: f"{o}{said}{c}" for opener, closer in WRAPPERS},
    "a trace and <answer>": lambda said: f"<think>Hm.</think><answer>\n{said}\n</answer>",
    "**Answer:**": lambda said: f"**Answer:** {said}",
    "Final Answer:": lambda said: f"Final Answer: {said}",
    "### Answer": lambda said: f"### Answer\n\n{said}",
    "a line before": lambda said: f"---\n{said}",
    "white space": lambda said: f"\n\n  {said}\n\n",
    "curly quotes": lambda said: said.replace("'", "’"),
    "a bold opening": lambda said: re.sub(r"^(\w+)", r"**\1**", said),
    "<s>": lambda said: f"<s> {said}",
    "[OUT]": lambda said: f"[OUT] {said}",
}


@pytest.fixture(scope="module")
def said():
    rows = [json.loads(line) for line in (DATA / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [row["answer"].strip() for row in rows if row.get("answer") and "<" not in row["answer"]]
    return [text for text in dict.fromkeys(texts) if len(text) > 1]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_form_changes_no_judgement(said, change):
    """Of every hundred answers at most one may be judged otherwise, and none may turn from a refusal into an answer or back."""
    other = turned = 0
    for text in said:
        before, after = (judged(form(text)) for form in (CHANGES["as it is"], CHANGES[change]))
        other += before != after
        turned += None not in (before[1], after[1]) and before[1] != after[1]
    assert other <= 0.01 * len(said) and turned == 0, (change, other, turned, len(said))


def judged(text):
    trace, answer, thinks, closed = split_trace(text, FAMILIES[0])
    score = judge_answer(REFUSE, Answer((), trace, answer, thinks, closed, True))
    return score.status, score.value
