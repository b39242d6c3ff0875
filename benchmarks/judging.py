"""Whether judgements can be believed: the options chosen here against lm-eval, on the same items and the same real model.

    python benchmarks/judging.py --benchmarks DIR [--quick]

DIR holds one folder a benchmark, as published (bbq/, ethics/).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from common import table, write
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignguard import Chat, TokenBudget, load_public
from alignguard.ask import Asking, ask_choices
from alignguard.observe import observing

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))


def agreement(name: str, folder: Path, size: int, model: Any, tokenizer: Any) -> dict[str, float]:
    """One benchmark: items, share of the same choice, largest gap of an option's log-probability in nats."""
    probes = load_public(name, folder / name, size=size)
    with observing(model):
        ours = ask_choices(model, probes, Asking(Chat.of(model, tokenizer), TokenBudget()))
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
    asked = [Instance("loglikelihood", {}, (p.prompt, o), i) for p in probes for i, o in enumerate(p.options)]
    theirs = iter([value for value, _ in lm.loglikelihood(asked)])
    same, gap = 0, 0.0
    for probe in probes:
        lengths = [1 if probe.length == "sum" else len(o.encode()) for o in probe.options]
        sums = [next(theirs) for _ in probe.options]
        gap = max(gap, *(abs(a * n - b) for a, n, b in zip(ours[probe.id], lengths, sums, strict=True)))
        scaled = [b / n for b, n in zip(sums, lengths, strict=True)]
        same += scaled.index(max(scaled)) == ours[probe.id].index(max(ours[probe.id]))
    return {"items": len(probes), "same_choice": same / len(probes), "max_logprob_gap": gap}


def main() -> None:
    from embedded import embedded_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, required=True, help="folder of the benchmarks' files")
    parser.add_argument("--quick", action="store_true", help="20 items each")
    options = parser.parse_args()
    path = embedded_model()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    size = 20 if options.quick else 120
    found = {name: agreement(name, options.benchmarks, size, model, tokenizer) for name in ("bbq", "ethics")}
    print(table([{"benchmark": name, **figures} for name, figures in found.items()]))
    write("judging", found)


if __name__ == "__main__":
    main()
