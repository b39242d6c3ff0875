"""What an audit costs, against the plain way to the same figures, in turn.

    python benchmarks/audit.py [--quick] [--only decode]

- A policy that has not moved, and four that have drifted, by SFT (`moved.py`): seconds of the plain way (`plain.py`) over those of
  `audit`, as it is called within a run: the baseline asked, the audit before as `last`. The first audit, too, before which the
  start's hidden states are not kept. That both give the same is asserted; answers that differ are counted, and ties among them.
- An audit over one forward of the policy over each prompt and the start's answer; by stage; and how it grows with probes.
- Options' likelihoods against lm-eval's, and generation against the function that TRL's LogCompletionsCallback calls.
- Decode steps against an ideal scheduler, without any model (`decoding.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from aligned import load
from common import kept, side_by_side, table, write
from decoding import plans, worst
from plain import LOGPROB_GAP, differences, plain_audit, questions
from rivals import against_lm_eval, against_trl
from stages import staged
from transformers import AutoModelForCausalLM

from alignguard import Audit, Chat, Probe, TokenBudget, audit, load_probes
from alignguard.auditing.answers import ask_baseline
from alignguard.auditing.asking import Asking
from alignguard.auditing.drifts import items_of
from alignguard.auditing.result import Result
from alignguard.drift.reference import Reference, freeze_start
from alignguard.judging.scorers import default_toxicity
from alignguard.model.forward import batches, final_hidden, pad_right
from alignguard.model.observe import observing
from alignguard.probes.draw import draw
from alignguard.probes.probe import TRUST_DIMENSIONS

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
KL_GAP = 1e-3  # nats, of a token
FEW = 1024  # padded tokens of a batch of the forward that an audit is held against
QUICK = (1e-2, 0.8)  # drifts that --quick looks at


class Bench:
    """
    A start, what it is asked, and what it answered.

    Args:
        start (`PreTrainedModel`):
            As it was; the same object as no policy.
        probes (`Sequence[Probe]`):
            What is asked.
        asking (`Asking`):
            How.
        rounds (`int`, *optional*):
            In which what is timed takes turns.
    """

    def __init__(self, start: Any, probes: Sequence[Probe], asking: Asking, rounds: int = 1) -> None:
        self.probes, self.asking, self.rounds = list(probes), asking, rounds
        self.reference: Reference = freeze_start(start, "copy")
        self.baseline: dict[str, Result] = ask_baseline(self.reference.model, probes, asking, self.reference.said)

    def ask(self, policy: Any, last: Audit | None = None, probes: Sequence[Probe] | None = None) -> Audit:
        return audit(
            policy,
            None,
            self.probes if probes is None else probes,
            self.reference,
            baseline=self.baseline,
            asking=self.asking,
            last=last,
        )

    def first(self, policy: Any) -> Audit:
        """As after a resume: the start's answers are known, and its hidden states are not kept."""
        self.reference.said.clear()
        return self.ask(policy)

    def forward(self, policy: Any) -> None:
        """Each prompt with the start's answer once, in batches small enough to hold little padding."""
        rows = [item.row for item in items_of(self.probes, self.baseline, self.asking.chat)]
        with observing(policy):
            for batch in batches([row.length for row in rows], FEW):
                part = [rows[i] for i in batch]
                final_hidden(policy, *pad_right(part, self.asking.chat.pad_token_id, torch.device("cpu")))

    def held(self, policy: Any, last: Audit | None, unmoved: bool = False) -> tuple[dict[str, Any], Audit]:
        """One policy, both ways: ratios, stages, and by how much their figures differ."""
        stages: dict[str, float] = {}
        found = self.ask(policy, last)
        asked = questions(found, self.probes, self.baseline, self.asking)
        kept: dict[str, Any] = {}

        def ours() -> None:
            with staged(stages):
                self.ask(policy, last)

        def plain() -> None:
            kept["plain"] = plain_audit(policy, self.reference.model, asked)

        runs: dict[str, Callable[[], Any]] = {"plain": plain, "ours": ours, "forward": lambda: self.forward(policy)}
        if unmoved:
            runs["first"] = lambda: self.first(policy)  # which keeps them anew
        seconds = side_by_side(runs, self.rounds, warm=True)  # as `found` was
        gaps = differences(found, kept["plain"], asked, policy)
        line = {
            "kl_answer": found.figure("kl/answer"),
            "kl_raw": found.figure("kl/raw"),
            "kl_reverse": found.figure("kl/reverse"),
            "thinking": sum(r.answer.thinks for r in found.results.values() if r.answer) / gaps["answers"],
            "speedup": seconds["plain"] / seconds["ours"],
            "over_forward": seconds["ours"] / seconds["forward"],
            "seconds": seconds,
            "stages": stages,
            "drafted": drafted(found),
            **gaps,
        }
        if unmoved:
            line["first_audit_speedup"] = seconds["plain"] / seconds["first"]
        return line, found


def drafted(found: Audit) -> float:
    """The share of the policy's answers, in tokens, that the start's own stand for."""
    whole = [r for r in found.results.values() if r.answer is not None and r.drift is not None]
    tokens = sum(len(r.answer.tokens) for r in whole)
    return sum(min(r.drift.same, len(r.answer.tokens)) for r in whole) / tokens


def check(lines: Sequence[dict[str, Any]]) -> None:
    """
    That both ways gave the same of every policy.

    Raises:
        SystemExit: They did not.
    """
    limits = dict.fromkeys(("kl_gap", "answer_kl_gap", "reverse_gap"), KL_GAP) | dict.fromkeys(
        ("logprob_gap", "margin_gap"), LOGPROB_GAP
    )
    wrong = [
        f"{name} is {x[name]:.2g}, over {most}" for x in lines for name, most in limits.items() if not x[name] <= most
    ]
    wrong += [f"{x['otherwise']} of {x['answers']} answers differ, and by no tie" for x in lines if x["otherwise"]]
    if wrong:
        raise SystemExit("the plain way gave other figures: " + "; ".join(wrong))


def growth(bench: Bench, policy: Any, sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Seconds of an unmoved audit by probes a dimension, over those of the fewest, per probe."""
    pools = {size: draw(load_probes(list(TRUST_DIMENSIONS)), size, 0) for size in sizes}
    missing = [probe for probe in pools[sizes[-1]] if probe.id not in bench.baseline]
    bench.baseline |= ask_baseline(bench.reference.model, missing, bench.asking, bench.reference.said)
    last = {size: bench.ask(policy, probes=pool) for size, pool in pools.items()}
    runs = {str(size): lambda size=size: bench.ask(policy, last[size], pools[size]) for size in sizes}
    seconds = side_by_side(runs, rounds, warm=True)  # as `last` was
    first = seconds[str(sizes[0])] / len(pools[sizes[0]])
    return [
        {
            "times": size // sizes[0],
            "probes": len(pool),
            "seconds": seconds[str(size)],
            "per_probe": seconds[str(size)] / len(pool) / first,
        }
        for size, pool in pools.items()
    ]


def shown(line: dict[str, Any]) -> dict[str, Any]:
    """What of it is one number."""
    return {key: value for key, value in line.items() if not isinstance(value, dict)}


def show(lines: dict[str, dict[str, Any]]) -> None:
    """Tables of policies by drift."""
    rows = [{"mark": mark, **shown(line)} for mark, line in lines.items()]
    shared = [key for key in rows[-1] if all(key in row for row in rows)]
    print(table([{key: row[key] for key in shared} for row in rows]), end="\n\n")
    print(table([{"seconds": mark, **line["stages"]} for mark, line in lines.items()]), end="\n\n")
    print(f"the first audit: {lines['0']['first_audit_speedup']:.3g} times as fast as the plain way", end="\n\n")


def summary(lines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of policies by drift, the one that has not moved first: what is looked at, and all that was found."""
    unmoved, moved = lines["0"], {mark: line for mark, line in lines.items() if mark != "0"}
    answers = sum(line["answers"] for line in lines.values())
    return {
        "unchanged_speedup": unmoved["speedup"],
        "first_audit_speedup": unmoved["first_audit_speedup"],
        "speedup_by_kl": {mark: {"kl": line["kl_answer"], "speedup": line["speedup"]} for mark, line in moved.items()},
        "worst_speedup": min(unmoved["first_audit_speedup"], *(line["speedup"] for line in lines.values())),
        "identical_answers": {
            "share": sum(line["identical"] for line in lines.values()) / answers,
            "answers": answers,
            "ties": sum(line["ties"] for line in lines.values()),
            "run_on": sum(line["run_on"] for line in lines.values()),
            "otherwise": sum(line["otherwise"] for line in lines.values()),
        },
        "audit_over_forward": unmoved["over_forward"],
        "stages": {mark: line["stages"] for mark, line in lines.items()},
        "policies": {mark: {k: v for k, v in line.items() if k != "stages"} for mark, line in lines.items()},
    }


def others(grown: Any, likelihoods: Any, said: Any, decoded: Any) -> dict[str, Any]:
    """What is measured beside audits."""
    return {
        "growth": grown,
        "likelihood_vs_lm_eval": likelihoods,
        "generation_vs_trl": said,
        "decode_plan": {"worst": worst(decoded), "plans": decoded},
    }


def main() -> None:
    from embedded import embedded_model
    from moved import moved_models

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 probes a dimension, one round, two drifts")
    parser.add_argument("--draw", type=int, default=14, help="probes a dimension")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement, in turn")
    parser.add_argument("--answer", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--trace", type=int, default=512, help="tokens of a trace")
    parser.add_argument(
        "--only", choices=["decode"], help="the decode plan alone, which runs no model; the rest stays on file"
    )
    options = parser.parse_args()
    quick, size, rounds = options.quick, options.draw, options.rounds
    tokens = TokenBudget(answer=options.answer, trace=options.trace)
    if quick:
        size, rounds, tokens = 2, 1, TokenBudget(answer=32, trace=64)
    torch.manual_seed(0)
    policy, tokenizer = load(embedded_model())
    chat = Chat.of(policy, tokenizer)
    decoded = plans(chat)
    print(table(decoded), end="\n\n")
    if options.only:
        write("audit", kept("audit", quick) | {"decode_plan": {"worst": worst(decoded), "plans": decoded}}, quick)
        return
    asking = Asking(chat, tokens, toxicity=default_toxicity())
    bench = Bench(load(embedded_model())[0], draw(load_probes(list(TRUST_DIMENSIONS)), size, 0), asking, rounds)

    unmoved, last = bench.held(policy, bench.ask(policy), unmoved=True)
    lines = {"0": unmoved}
    print(f"unmoved: {unmoved}", flush=True)
    for mark, path in moved_models().items():
        if not quick or mark in QUICK:
            moved = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            lines[f"{mark:g}"], last = bench.held(moved, last)
            print(f"{mark:g}: {lines[f'{mark:g}']}", flush=True)
    show(lines)
    grown = growth(bench, policy, (1, 2) if quick else [size * n // 2 for n in (1, 2, 4, 8)], rounds)
    likelihoods = against_lm_eval(policy, tokenizer, bench.probes, asking, rounds)
    said = against_trl(policy, tokenizer, bench.probes, asking, rounds)
    print(table(grown), end="\n\n")
    print(table([{"against": "lm-eval", **shown(likelihoods)}]), table([{"against": "TRL", **shown(said)}]), sep="\n\n")
    how = {"draw": size, "rounds": rounds, "answer_tokens": tokens.answer, "trace_tokens": tokens.trace}
    write("audit", how | summary(lines) | others(grown, likelihoods, said, decoded), quick)
    check(list(lines.values()))


if __name__ == "__main__":
    main()
