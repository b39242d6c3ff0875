"""
People shard by FSDP2 and ZeRO-3: every process holds a part of each layer, all go through all rows, and every forward is a
meeting. Processes compute the same up to rounding; whether a policy opens a trace (at least one half), where it departs from a
draft and when it ends are thresholds, and a process on the other side of one takes another number of forwards: the job hangs.

Oracle: what the first process does, forward by forward, shape by shape.
Before: forwards of other rows, where a difference is planted.
After: the same forwards.
"""

import pytest
import torch
from tiny import tiny_model

from alignguard import Chat, TokenBudget, audit
from alignguard.auditing.asking import Asking
from alignguard.distributed import Ranks
from alignguard.drift.reference import freeze_start
from alignguard.errors import RunError


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """`generate` keeps the steps of one batch in line itself, over a group that there is none of here."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, **kwargs: None)


class Meeting:
    """Two processes, one after the other: what the first brought is there when the second comes."""

    def __init__(self):
        self.brought, self.at = [], 0

    def first(self, value):
        self.brought.append(value)
        return [value, value]

    def second(self, value):
        self.at += 1
        return [self.brought[self.at - 1], value]


def look(tokenizer, probes, noise, exchange):
    """The shapes of all forwards of an audit by one process, but single decode steps; its policy differs by `noise`, many times the rounding."""
    start, policy = tiny_model(tokenizer, scale=4.0), tiny_model(tokenizer, scale=4.0)
    with torch.no_grad():
        torch.manual_seed(0)
        for weight in policy.parameters():
            weight += 0.05 * weight.std() * torch.randn_like(weight)
        torch.manual_seed(1)
        for weight in policy.parameters():
            weight += noise * weight.std() * torch.randn_like(weight)
    shapes = []
    policy.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple((args[0] if args else kwargs["input_ids"]).shape)),
        with_kwargs=True,
    )
    ranks = Ranks(size=2, group=object(), sharded=True)
    ranks._exchange = exchange
    asking = Asking(Chat(tokenizer), TokenBudget(answer=24, trace=24), lambda texts: [0.1] * len(texts), ranks=ranks)
    audit(policy, None, probes, freeze_start(start, "copy"), asking=asking)
    return [shape for shape in shapes if shape[1] > 1]


@pytest.mark.parametrize("noise", [1e-6, 0.2])
def test_all_take_the_forwards_of_the_first(tokenizer, probes, noise):
    meeting = Meeting()
    first = look(tokenizer, probes, 0.0, meeting.first)
    assert look(tokenizer, probes, noise, meeting.second) == first
    assert meeting.at == len(meeting.brought)  # and meet as often


def test_without_agreeing_they_would_not(tokenizer, probes, monkeypatch):
    """So that the test above can fail."""
    monkeypatch.setattr(Ranks, "agree", lambda self, value: value)
    meeting = Meeting()
    first = look(tokenizer, probes, 0.0, meeting.first)
    assert look(tokenizer, probes, 0.2, meeting.second) != first


def test_a_process_that_failed_meanwhile_is_told():
    ranks = Ranks(size=2, group=object(), sharded=True)
    ranks._exchange = lambda value: [value, ("ValueError: planted", False, None)]
    with pytest.raises(RunError, match="process 1 of 2 failed with ValueError: planted"):
        ranks.agree(3)
    assert Ranks().agree(3) == 3
