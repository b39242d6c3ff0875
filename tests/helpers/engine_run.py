"""One process of a run whose trainer generates with a stand-in for vLLM: engine_run.py MODE OUT, for test_engine.py."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
import pytest
from engines import Engine, online, stand_in
from tiny import tiny_tokenizer
from trainers import guard

RANK = int(os.environ.get("RANK", 0))


def main(mode, out):
    stand_in(pytest.MonkeyPatch())
    split = {"vllm_tensor_parallel_size": 2} if mode == "split" else {}
    trainer = online(
        tiny_tokenizer(), Path(out).parent / "start", Path(out) / str(RANK), per_device_train_batch_size=2, **split
    )
    callback = guard(trainer, engine=None if mode == "own" else "trainer")
    trainer.add_callback(callback)
    if mode == "fails" and RANK == 1:
        Engine.made[-1].fails = RuntimeError("out of luck")
    trainer.train()
    found = {
        "metrics": [{k: v for k, v in a.metrics.items() if "/cost/" not in k} for a in callback.audits],
        "said": {id: r.answer and list(r.answer.tokens) for id, r in callback.audits[-1].results.items()},
        "asked": [len(prompts) for prompts in Engine.made[-1].greedy],
    }
    (Path(out) / f"found_{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
