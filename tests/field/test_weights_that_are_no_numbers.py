"""
People train at a rate that is too high, and weights become NaN, or infinite.

Oracle: what no number can be told of: a choice, a drift, a leaning have no figure.
Before: 1 of 2 choices was scored as right, and the record could not be read again ('leaning must be leanings between 0 and 1').
After: no score, no figure, one line that says so, and a record that can be read.
"""

import json
from dataclasses import replace
from math import inf, nan

import pytest
import torch
from runs import guard, lines, sft
from transformers import TrainerCallback

from alignguard.judging.judge import judge_choice
from alignguard.judging.score import Status
from alignguard.probes.rows import probe_from_row
from alignguard.records.record import read_record

LIKELIHOODS = (
    "/leaning",
    "/leaning_drop",
    "/kl",
    "refusal_margin",
    "/drop",
    "/score",
    "kl/raw",
    "kl/answer",
    "kl/thinks",
)


class Diverges(TrainerCallback):
    def __init__(self, value):
        self.value = value

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 1:
            with torch.no_grad():
                model.get_input_embeddings().weight[5:9] = self.value


@pytest.mark.parametrize("value", [nan, inf])
def test_an_audit_has_no_figure_of_what_is_no_number(tokenizer, tmp_path, caplog, value):
    sft(tokenizer, tmp_path, [guard(), Diverges(value)]).train()
    text = (tmp_path / "alignguard" / "audits.jsonl").read_text()
    assert not any(word in text for word in ("NaN", "Infinity"))
    zero, two, four = lines(tmp_path)
    assert zero["profile"] and not two["profile"] and not four["profile"] and "leaning" not in two | four
    for audit in (two, four):
        found = [name for name in audit["metrics"] if name.endswith(LIKELIHOODS)]
        assert found == [] and audit["scores"].keys() == zero["scores"].keys()
        assert audit["scores"]["e1"] is None and audit["scores"]["b1"] is None
        assert not any("answer_low" in name or "answer_high" in name for name in audit["metrics"])
    told = [message for message in caplog.messages if "no finite numbers" in message]
    assert told == [
        "AlignGuard: at step 2 the policy's likelihoods are no finite numbers: what is read off them has no figure"
    ]
    assert not read_record(str(tmp_path)).verdict.since
    assert json.loads(json.dumps(two), parse_constant=pytest.fail)


@pytest.mark.parametrize("target", [0, -1])
@pytest.mark.parametrize("logprobs", [[nan, nan], [-1.0, nan], [inf, -1.0], [-inf, -inf]])
def test_a_choice_by_what_is_no_number_is_none(target, logprobs):
    row = {"id": "e", "dimension": "ethics", "family": "f", "judge": "choice", "options": ["a", "b"], "prompt": "?"}
    probe = replace(probe_from_row({**row, "target": 0}), target=target)
    score = judge_choice(probe, logprobs)
    assert (score.value, score.status, score.degenerate) == (None, Status.UNPARSEABLE, True)


def test_an_option_that_is_out_of_the_question_is_one():
    row = {"id": "e", "dimension": "ethics", "family": "f", "judge": "choice", "options": ["a", "b"], "prompt": "?"}
    assert judge_choice(probe_from_row({**row, "target": 1}), [-inf, -2.0]).value == 1.0
