"""
People shard by FSDP2 and ZeRO-3: every process holds a part of each layer, and every forward is a meeting. Whether a policy opens
a trace (at least one half), where it departs from a draft and when it ends are thresholds, and a process on the other side of one
takes another number of forwards: the job hangs.

Oracle: the forwards of each of two processes, counted, that meet as two processes do, each with its share of the probes.
Before: other numbers, where a difference is planted.
After: the same number; who has nothing left goes through the rest with a row of nothing.
"""

import threading

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
    """
    `generate` keeps the steps of one batch in line itself, over a group that there is none of here; and whether a process compiles
    is one switch for both threads, of which each would put back what the other had set.
    """
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, **kwargs: None)
    with torch.compiler.set_stance("default"):
        yield


class Meeting:
    """Two processes in one: each brings what it has, and goes on when the other has come."""

    def __init__(self):
        self.gate, self.brought = threading.Barrier(2, timeout=60), [None, None]

    def exchange(self, rank):
        def bring(value):
            self.brought[rank] = value
            self.gate.wait()
            both = list(self.brought)
            self.gate.wait()
            return both

        return bring


LOCK = threading.Lock()


def models(tokenizer, noise):
    """A start and its policy, made from seeds, one thread at a time."""
    with LOCK, torch.no_grad():
        start, policy = tiny_model(tokenizer, scale=4.0), tiny_model(tokenizer, scale=4.0)
        for seed, size in ((0, 0.05), (1, noise)):
            torch.manual_seed(seed)
            for weight in policy.parameters():
                weight += size * weight.std() * torch.randn_like(weight)
    return start, policy


def look(rank, meeting, tokenizer, probes, noise, found):
    """
    What one process does in an audit: forwards that read, and calls of `generate`, which keeps the steps of one batch in line itself.
    Its policy differs by `noise`, many times the rounding.
    """
    try:
        start, policy = models(tokenizer, noise)
        did, generate = [], policy.generate
        policy.register_forward_pre_hook(
            lambda module, args, kwargs: did.append("reads") if kwargs.get("use_cache") is False else None,
            with_kwargs=True,
        )
        policy.generate = lambda **kwargs: did.append("generates") or generate(**kwargs)
        ranks = Ranks(rank=rank, size=2, group=object(), sharded=True)
        ranks._exchange = meeting.exchange(rank)
        asking = Asking(
            Chat(tokenizer), TokenBudget(answer=24, trace=24), lambda texts: [0.1] * len(texts), ranks=ranks
        )
        result = audit(policy, None, probes, freeze_start(start, "copy"), asking=asking)
        found[rank] = did, result
    except Exception as error:
        found[rank] = error
        meeting.gate.abort()


def both(tokenizer, probes, noise):
    """What two processes do that audit one sharded model."""
    meeting, found = Meeting(), [None, None]
    threads = [
        threading.Thread(target=look, args=(rank, meeting, tokenizer, probes, rank * noise, found)) for rank in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in found:
        if isinstance(outcome, Exception):
            raise outcome
    return found


@pytest.mark.parametrize("noise", [1e-6, 0.2])
@pytest.mark.parametrize("asked", [slice(None), slice(3), slice(1)])
def test_all_take_as_many_forwards(tokenizer, probes, noise, asked):
    """One of two has one probe more; of a single probe the other has none at all."""
    (first, _), (second, _) = both(tokenizer, probes[asked], noise)
    assert first == second and "reads" in first and ("generates" in first or len(probes[asked]) == 1)


def test_what_they_find_is_what_one_process_finds(tokenizer, probes):
    (_, first), (_, second) = both(tokenizer, probes, 0.0)
    start, policy = models(tokenizer, 0.0)
    asking = Asking(Chat(tokenizer), TokenBudget(answer=24, trace=24), lambda texts: [0.1] * len(texts))
    found = audit(policy, None, probes, freeze_start(start, "copy"), asking=asking)
    for theirs in (first, second):
        assert theirs.results.keys() == found.results.keys()
        for key, value in found.metrics.items():
            if "cost/seconds" not in key:
                assert theirs.metrics[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


def test_without_rounds_they_would_not(tokenizer, probes, monkeypatch):
    """So that the test above can fail."""
    monkeypatch.setattr(Ranks, "rounds", lambda self, mine: mine)
    (first, _), (second, _) = both(tokenizer, probes[:1], 0.2)
    assert first != second


def test_a_process_that_failed_meanwhile_is_told():
    ranks = Ranks(size=2, group=object(), sharded=True)
    ranks._exchange = lambda value: [value, ("ValueError: planted", False, None)]
    with pytest.raises(RunError, match="process 1 of 2 failed with ValueError: planted"):
        ranks.agree(3)
    assert Ranks().agree(3) == 3
