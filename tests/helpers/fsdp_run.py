"""An audit of a model sharded by FSDP2 over gloo, and a cached start: fsdp_run.py OUT, for test_fsdp.py."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
import torch
import torch.distributed as dist
from tiny import tiny_model, tiny_probes, tiny_tokenizer
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.generation import StoppingCriteriaList

from alignguard import Chat, TokenBudget, audit
from alignguard.auditing.answers import ask_baseline
from alignguard.auditing.asking import Asking
from alignguard.auditing.drifts import items_of, remember
from alignguard.distributed import Ranks
from alignguard.drift.reference import freeze_start


def shard(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def count_steps():
    """How many decode steps are taken, and of how many rows each."""
    steps, call = [], StoppingCriteriaList.__call__

    def counted(self, input_ids, scores, **kwargs):
        steps.append(len(input_ids))
        return call(self, input_ids, scores, **kwargs)

    StoppingCriteriaList.__call__ = counted
    return steps


def main(out):
    sharded, tokenizer, steps = "RANK" in os.environ, tiny_tokenizer(), count_steps()
    reference, policy, start = tiny_model(tokenizer), tiny_model(tokenizer), tiny_model(tokenizer)
    other = tiny_model(tokenizer, seed=1)
    with torch.no_grad():
        for p, q in zip(policy.parameters(), other.parameters(), strict=True):
            p.lerp_(q, 0.05)
    cached = freeze_start(start, "auto" if sharded else "cache", sharded)
    if sharded:
        dist.init_process_group("gloo")
        shard(policy)
        shard(start)
    ranks = Ranks.of(policy)
    assert ranks.sharded == sharded
    asking = Asking(Chat(tokenizer), TokenBudget(answer=8, trace=16), lambda texts: [0.1] * len(texts), ranks=ranks)
    found = audit(policy, tokenizer, tiny_probes(), reference, asking=asking)

    baseline = ask_baseline(start, tiny_probes(), asking)
    items = items_of(tiny_probes(), baseline, asking.chat)
    remember(start, cached, items, asking, Path(out) / "reference.safetensors")
    cached.model = None
    again = audit(policy, tokenizer, tiny_probes(), cached, baseline=baseline, asking=asking)

    said = {id: list(r.answer.tokens) if r.answer else r.logprobs for id, r in found.results.items()}
    result = {"metrics": found.metrics, "cached": again.metrics, "said": said, "steps": steps}
    (Path(out) / f"found_{ranks.rank}.json").write_text(json.dumps(result))
    if sharded:
        assert ranks.first(f"rank {dist.get_rank()}") == "rank 0"
        dist.barrier()  # or one hangs up while the other still listens
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
