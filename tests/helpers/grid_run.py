"""The grid's cells of two processes: grid_run.py TRAINER,TRAINER OUT, started by torchrun. Each process writes what differs for it."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
import torch.distributed as dist
from grid import KINDS, TRAINERS, differing, starts
from tiny import tiny_tokenizer


def main(names, out):
    rank, tokenizer = int(os.environ["RANK"]), tiny_tokenizer()
    own = Path(out) / str(rank)  # a folder for each process shows who writes
    begin, kind = starts(tokenizer, own / "starts"), KINDS["dropout"]
    found = {
        name: differing(TRAINERS[name], kind, tokenizer, begin[kind.start], own / name) for name in names.split(",")
    }
    assert dist.get_world_size() == 2
    (Path(out) / f"found_{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
