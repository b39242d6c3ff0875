"""What exact drift costs: time and memory of one sweep over the vocabulary, against the ways it could be done.

    python benchmarks/drift.py [--quick]

The floor is the two head products alone, untiled. `naive` takes both models' full logits and log-softmaxes; `trl` is TRL's
ChunkedDivergenceFunction, forward KL (it computes the student's entropy and the reverse gap too); `compiled` is this
package's tile loop with torch.compile.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from common import side_by_side, table, write
from peak import PeakMemory
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

import alignguard.drift.kl as drift
from alignguard.drift.kl import kl_tokens
from alignguard.model.head import Head

SHAPES = [(2048, 576, 49_152), (1024, 1024, 151_936)]


def models(tokens: int, d: int, vocabulary: int) -> tuple[torch.Tensor, Head, torch.Tensor, Head, torch.Tensor]:
    """Hidden states and heads of two models a small drift apart, with logits spread as those of language models."""
    torch.manual_seed(0)
    weight, hidden = torch.randn(vocabulary, d), torch.randn(tokens, d) * 3 / d**0.5
    other = weight + 0.01 * torch.randn(vocabulary, d)
    moved = hidden + 0.02 * torch.randn(tokens, d) * 3 / d**0.5
    return hidden, Head(weight), moved, Head(other), torch.randint(0, vocabulary, (tokens,))


def naive(hidden_p: torch.Tensor, head_p: Head, hidden_q: torch.Tensor, head_q: Head) -> torch.Tensor:
    """Both full logits at once."""
    p = head_p.logits(hidden_p).log_softmax(-1)
    q = head_q.logits(hidden_q).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def oracle(hidden_p: torch.Tensor, head_p: Head, hidden_q: torch.Tensor, head_q: Head) -> torch.Tensor:
    """Float64, 64 positions."""
    p = (hidden_p[:64].double() @ head_p.weight.double().T).log_softmax(-1)
    q = (hidden_q[:64].double() @ head_q.weight.double().T).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def trl(hidden_p: torch.Tensor, head_p: Head, hidden_q: torch.Tensor, head_q: Head) -> torch.Tensor:
    return ChunkedDivergenceFunction.apply(hidden_q, head_q.weight, None, hidden_p, head_p.weight, None, 0.0)[0]


def peak(run: Any) -> float:
    """Scratch of a run in MiB."""
    with PeakMemory() as memory:
        run()
    return memory.bytes / 2**20


def measure(tokens: int, d: int, vocabulary: int, rounds: int, compiled: bool) -> dict[str, Any]:
    """One shape."""
    h, p, g, q, targets = models(tokens, d, vocabulary)
    assert p.weight is not None and q.weight is not None

    def floor() -> None:
        torch.mm(h, p.weight.T)
        torch.mm(g, q.weight.T)

    runs = {
        "floor": floor,
        "forward": lambda: kl_tokens(h, p, g, q, targets),
        "everything": lambda: kl_tokens(h, p, g, q, targets, everything=True),
        "naive": lambda: naive(h, p, g, q),
        "trl": lambda: trl(h, p, g, q),
    }
    if compiled:
        chunk = torch.compile(copy.copy(drift._kl_chunk), dynamic=False)
        runs["compiled"] = lambda: [
            chunk(h[i : i + 2048], p, g[i : i + 2048], q, targets[i : i + 2048], False) for i in range(0, tokens, 2048)
        ]
    seconds = side_by_side(runs, rounds)
    found, exact = kl_tokens(h, p, g, q, targets)["kl"], oracle(h, p, g, q)
    result: dict[str, Any] = {
        "T": tokens,
        "d": d,
        "V": vocabulary,
        "kl": exact.mean().item(),
        "time_over_gemm": seconds["forward"] / seconds["floor"],
        "everything_over_gemm": seconds["everything"] / seconds["floor"],
        "time_vs_naive": seconds["forward"] / seconds["naive"],
        "time_vs_trl": seconds["forward"] / seconds["trl"],
        "scratch_mb": peak(runs["forward"]),
        "everything_scratch_mb": peak(runs["everything"]),
        "naive_scratch_mb": peak(runs["naive"]),
        "trl_scratch_mb": peak(runs["trl"]),
        "max_rel_err": ((found[:64] - exact).abs() / exact).max().item(),
        "self_kl": kl_tokens(h, p, h.clone(), p, targets)["kl"].abs().max().item(),
        "floor_seconds": seconds["floor"],
    }
    if compiled:
        result["compiled_over_gemm"] = seconds["compiled"] / seconds["floor"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no compilation")
    quick = parser.parse_args().quick
    with torch.no_grad():
        shapes = [measure(*shape, rounds=3 if quick else 7, compiled=not quick) for shape in SHAPES]
        growth = []
        for tokens in (512, 1024, 2048, 4096, 8192):
            h, p, g, q, targets = models(tokens, 576, 49_152)
            seconds = side_by_side(
                {"ours": lambda h=h, p=p, g=g, q=q, t=targets: kl_tokens(h, p, g, q, t)}, 1 if quick else 3
            )
            scratch = peak(lambda h=h, p=p, g=g, q=q, t=targets: kl_tokens(h, p, g, q, t))
            growth.append({"T": tokens, "seconds": seconds["ours"], "scratch_mb": scratch})
    for shape in shapes:
        print(table([{"figure": k, "value": v} for k, v in shape.items()]), end="\n\n")
    print(table(growth))
    write("drift", {"shapes": shapes, "growth": growth}, quick)


if __name__ == "__main__":
    main()
