"""Audits of a model sharded over gloo, by hand and in a run: fsdp_run.py WAY OUT, for test_fsdp.py."""

import functools
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
import torch
import torch.distributed as dist
from runs import guard
from tiny import tiny_model, tiny_probes, tiny_tokenizer
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.generation import StoppingCriteriaList
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from alignguard import Chat, TokenBudget, audit
from alignguard.auditing.answers import ask_baseline
from alignguard.auditing.asking import Asking
from alignguard.auditing.drifts import items_of, remember
from alignguard.distributed import Ranks
from alignguard.drift.reference import freeze_start


def shard(model, way):
    """By FSDP2, or as accelerate wraps a model by FSDP1: its layers, with their own weights or with flat ones."""
    if way != "fully_shard":
        policy = functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={LlamaDecoderLayer})
        here = torch.device("cpu")
        return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=way != "flat", device_id=here)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def count_steps():
    """How many decode steps are taken, and of how many rows each."""
    steps, call = [], StoppingCriteriaList.__call__

    def counted(self, input_ids, scores, **kwargs):
        steps.append(len(input_ids))
        return call(self, input_ids, scores, **kwargs)

    StoppingCriteriaList.__call__ = counted
    return steps


def trained(way, tokenizer, folder):
    """Drifts of a run, whose hooks are called as a trainer calls them that shards its model between the first two."""
    callback, model = guard(reference="auto" if "RANK" in os.environ else "cache"), tiny_model(tokenizer)
    first = os.environ.get("RANK", "0") == "0"
    given = (
        TrainingArguments(folder, use_cpu=True),
        TrainerState(max_steps=4, is_world_process_zero=first),
        TrainerControl(),
    )
    callback.on_init_end(*given, model=model)
    model = shard(model, way) if "RANK" in os.environ else model
    optimizer, ids = torch.optim.SGD(model.parameters(), lr=1e-2), torch.arange(4, 20)[None]
    callback.on_train_begin(*given, model=model, processing_class=tokenizer)
    for _ in range(4):
        callback.on_step_begin(*given)
        model.train()
        model(input_ids=ids, labels=ids).loss.backward()
        callback.on_pre_optimizer_step(*given)
        optimizer.step()
        optimizer.zero_grad()
        given[1].global_step += 1
        callback.on_step_end(*given, optimizer=optimizer)
    callback.on_train_end(*given)
    assert callback.reference.kind == "cache"
    return {audit.step: audit.metrics["alignguard/kl/answer"] for audit in callback.audits}


def main(way, out):
    sharded, tokenizer, steps = "RANK" in os.environ, tiny_tokenizer(), count_steps()
    reference, policy, start = tiny_model(tokenizer), tiny_model(tokenizer), tiny_model(tokenizer)
    other = tiny_model(tokenizer, seed=1)
    with torch.no_grad():
        for p, q in zip(policy.parameters(), other.parameters(), strict=True):
            p.lerp_(q, 0.05)
    cached = freeze_start(start, "auto" if sharded else "cache", sharded)
    if sharded:
        dist.init_process_group("gloo")
        policy, start = shard(policy, way), shard(start, way)
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
    result = {"metrics": found.metrics, "cached": again.metrics, "said": said, "steps": list(steps)}
    os.environ["ACCELERATE_USE_FSDP"] = str(sharded).lower()
    result["run"] = trained(way, tokenizer, out)
    (Path(out) / f"found_{ranks.rank}.json").write_text(json.dumps(result))
    if sharded:
        assert ranks.first(f"rank {dist.get_rank()}") == "rank 0"
        dist.barrier()  # or one hangs up while the other still listens
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
