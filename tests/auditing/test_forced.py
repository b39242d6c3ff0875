"""Advice on the budgets, from models whose traces are known to the token."""

import pytest
import torch
from transformers import GenerationConfig

from alignguard import Chat, TokenBudget
from alignguard.auditing.asking import Asking
from alignguard.auditing.forced import budget_advice
from alignguard.auditing.result import Result
from alignguard.judging.judge import judge_answer
from alignguard.judging.score import Score, Status
from alignguard.model.chat import Answer
from alignguard.probes.rows import probe_from_row

BUDGET = 20


class Thinker(torch.nn.Module):
    """Goes on from wherever it is: thinks until its trace has as many tokens as its prompt says, then closes it."""

    def __init__(self, chat, lengths):
        super().__init__()
        self.p = torch.nn.Parameter(torch.zeros(1))
        self.generation_config = GenerationConfig()
        self.chat, self.lengths = chat, lengths

    def generate(self, input_ids, attention_mask, generation_config, stopping_criteria, **kwargs):
        word, close = self.chat.encode(" step")[-1:], self.chat.encode("</think> yes")
        rows = []
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            sequence = [t for t, m in zip(ids, mask, strict=True) if m]
            text = self.chat.decode(sequence)
            number = next(i for i in range(len(self.lengths)) if f"({i})" in text)
            said = len(sequence) - len(self.chat.prompt_ids([{"role": "user", "content": f"({number}) Why?"}]))
            rest = max(0, self.lengths[number] - said)
            rows.append((word * rest + close + [self.chat.eos_token_ids[0]])[: generation_config.max_new_tokens])
        width = max(map(len, rows))
        new = torch.tensor([row + [generation_config.pad_token_id] * (width - len(row)) for row in rows])
        return torch.cat([input_ids, new], 1)


def said(chat, lengths, forced):
    """A baseline whose traces run to `BUDGET`, or were shorter and closed by the model."""
    baseline = {}
    for i, cut in enumerate(forced):
        row = {"id": f"p{i}", "dimension": "ood", "family": "f", "judge": "abstain", "prompt": f"({i}) Why?"}
        trace = [*chat.encode("<think>"), *chat.encode(" step")[-1:] * BUDGET][:BUDGET]
        tokens = (*trace, *chat.close_ids(), *chat.encode("yes"))
        answer = Answer(tokens, "step", "yes", True, True, True, cut)
        baseline[f"p{i}"] = Result(probe_from_row(row), Score(1.0, Status.ANSWERED), answer)
    return baseline


@pytest.mark.parametrize(
    ("lengths", "forced", "told"),
    [
        ([30] * 8, [True] + [False] * 7, ""),  # an eighth: nothing to say
        (
            [30] * 6 + [50] * 2,
            [True] * 8,
            r"100% .* at 20 tokens.* of 8 that were let go on 7 closed by 64: .*trace=64\)",
        ),
        ([30] * 4 + [500] * 4, [True] * 8, "of 8 that were let go on 4 closed by 80: it would take more than that"),
        ([30] * 4 + [500] * 4, [True] * 8 + [False] * 12, r"40% .* of 8 that were let go on 4 closed by 64"),
    ],
)
def test_advice_on_the_trace_budget(tokenizer, lengths, forced, told):
    chat = Chat(tokenizer)
    asking = Asking(chat, TokenBudget(answer=8, trace=BUDGET))
    lengths = lengths + [30] * (len(forced) - len(lengths))
    found = budget_advice(Thinker(chat, lengths), said(chat, lengths, forced), asking)
    if not told:
        assert found == ""
    else:
        import re

        assert re.search(told, found), found


@pytest.mark.parametrize(("cut", "told"), [(2, False), (3, True)])
def test_answers_that_were_cut_off_before_their_point(tokenizer, cut, told):
    """A fifth of ten is no more than a fifth."""
    chat, baseline = Chat(tokenizer), {}
    for i in range(10):
        row = {
            "id": f"p{i}",
            "dimension": "privacy",
            "family": "f",
            "judge": "tell",
            "facts": ["noon"],
            "prompt": f"({i}) When?",
        }
        answer = Answer((1,), "", "It opens", False, True, i >= cut)
        baseline[f"p{i}"] = Result(probe_from_row(row), judge_answer(probe_from_row(row), answer), answer)
    found = budget_advice(Thinker(chat, []), baseline, Asking(chat, TokenBudget(answer=8)))
    assert found == told * (
        "AlignGuard: 3 of 10 of the start's answers that should tell a number, a fact or a secret were cut off at 8 tokens before "
        "they did, and are unscored; TokenBudget(answer=16) leaves more room."
    )
