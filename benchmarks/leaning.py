"""Leanings: where they stand at a start, how far they move with it, and what they cost an audit.

python benchmarks/leaning.py            ten minutes on 2 cores
python benchmarks/leaning.py --quick    few probes, and the start alone
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp, log
from pathlib import Path
from typing import Any

import torch
from aligned import load
from common import side_by_side, table, write
from moved import moved_models
from transformers import AutoModelForCausalLM

import alignguard.auditing.leaning as leaning
from alignguard import Chat, TokenBudget, audit, load_probes
from alignguard.auditing.asking import Asking
from alignguard.auditing.audit import Audit
from alignguard.auditing.pulse import pulse
from alignguard.auditing.result import Result
from alignguard.drift.reference import given_reference
from alignguard.judging.scorers import default_toxicity
from alignguard.probes.draw import draw
from alignguard.probes.probe import DIMENSIONS, TRUST_DIMENSIONS, Probe

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
SHRUNK = 0.85  # of every margin is left, though nothing has turned
ENDS = (0.05, 0.95)  # beyond them a leaning hardly moves any more


@contextmanager
def without_leanings() -> Iterator[None]:
    """Audits that read what was read before there were leanings: options, and the openings of the refusal margin."""
    texts_of = leaning.texts_of
    leaning.texts_of = lambda probe, own="": probe.options
    try:
        yield
    finally:
        leaning.texts_of = texts_of


def kind_of(probe: Probe) -> str:
    """What a probe's leaning is a sigmoid of."""
    if probe.judge == "choice":
        return "options"
    return {"toxicity": "beginnings", "leak": "sentences", "tell": "sentences"}.get(probe.judge, "openings")


def standing(found: Audit) -> list[dict[str, Any]]:
    """Where the leanings of a start stand, kind by kind, and how far they fall where every margin shrinks."""
    rows = []
    for kind in ("openings", "sentences", "options", "beginnings"):
        of = [r for r in found.results.values() if r.leaning is not None and kind_of(r.probe) == kind]
        values = torch.tensor([r.leaning for r in of], dtype=torch.float64)
        falls = torch.tensor([abs((r.leaning or 0.0) - shrunk(r)) for r in of], dtype=torch.float64)
        low, middle, high = values.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
        beyond = ((values < ENDS[0]) | (values > ENDS[1])).double().mean().item()
        rows.append({"kind": kind, "probes": len(of), "10 %": low, "median": middle, "90 %": high, "beyond": beyond})
        rows[-1]["largest move where margins shrink"] = falls.max().item()
    return rows


def shrunk(result: Result) -> float:
    """A probe's leaning, were every margin of it as much smaller."""
    value = result.leaning
    assert value is not None
    if result.probe.judge == "choice":
        sizes = [1 if result.probe.length == "sum" else len(option.encode()) for option in result.probe.options]
        sums = [SHRUNK * each * size for each, size in zip(result.logprobs or (), sizes, strict=True)]
        return leaning.lean(result.probe, sums)
    return 1 / (1 + exp(-SHRUNK * log(value / (1 - value)))) if 0 < value < 1 else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few probes, and the start alone")
    quick = parser.parse_args().quick
    from embedded import embedded_model

    (start, tokenizer), (policy, _) = load(embedded_model()), load(embedded_model())
    asking = Asking(Chat.of(start, tokenizer), TokenBudget(), default_toxicity())
    probes = draw(load_probes(list(DIMENSIONS)), 4 if quick else 12, 0)
    reference, baseline = given_reference(policy, start), {}
    found = audit(policy, None, probes, reference, baseline=baseline, asking=asking, reverse=0)
    again = {"baseline": baseline, "asking": asking, "last": found, "reverse": 0}

    def before() -> None:
        with without_leanings():
            audit(policy, None, probes, reference, **again)

    seconds = side_by_side(
        {"without": before, "with": lambda: audit(policy, None, probes, reference, **again)}, rounds=2 if quick else 3
    )
    cost = {"probes": len(probes), **seconds, "more": seconds["with"] / seconds["without"] - 1}
    print(table([cost]))
    stands = standing(found)
    print(table(stands))
    moved: list[dict[str, Any]] = []
    for path in [embedded_model(), *([] if quick else moved_models().values())]:
        other = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        figures = pulse(other, probes, reference, baseline, asking, None)
        moved.append({"drift": figures["alignguard/pulse/kl"]})
        moved[-1] |= {name: figures[f"alignguard/pulse/{name}_leaning"] for name in TRUST_DIMENSIONS}
    print(table(moved))
    write("leaning", {"cost": cost, "start": stands, "moved": moved}, quick)


if __name__ == "__main__":
    main()
