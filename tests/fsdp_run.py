"""An audit of a model sharded by FSDP2 over gloo, for a test that compares it with one process: fsdp_run.py OUT."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
import torch
import torch.distributed as dist
from tiny import tiny_model, tiny_probes, tiny_tokenizer
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from alignguard import Chat, TokenBudget, audit
from alignguard.asking import Asking
from alignguard.distributed import from_first


def main(out):
    sharded = "RANK" in __import__("os").environ
    tokenizer = tiny_tokenizer()
    reference, policy = tiny_model(tokenizer), tiny_model(tokenizer)
    other = tiny_model(tokenizer, seed=1)
    with torch.no_grad():
        for p, q in zip(policy.parameters(), other.parameters(), strict=True):
            p.lerp_(q, 0.05)
    if sharded:
        dist.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in policy.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(policy, mesh=mesh)
    asking = Asking(Chat(tokenizer), TokenBudget(answer=8, trace=16), lambda texts: [0.1] * len(texts))
    found = audit(policy, tokenizer, tiny_probes(), reference, asking=asking)
    if not sharded or dist.get_rank() == 0:
        said = {id: list(r.answer.tokens) if r.answer else r.logprobs for id, r in found.results.items()}
        Path(out).write_text(json.dumps({"metrics": found.metrics, "said": said}))
    if sharded:
        assert from_first(f"rank {dist.get_rank()}") == "rank 0"
        dist.barrier()  # or one hangs up while the other still listens
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
