"""
The figures that are logged, in one table: names, units, and what they say. Code names a figure by its key and gets its logged
name here, where a key that stands in no row is an error; the documentation's tables are made from the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from ..judging.score import Status
from ..probes.probe import DIMENSIONS
from ..probes.public.benchmarks import BENCHMARKS

PREFIX = "alignguard/"
_PLACES = {
    "<dimension>": "|".join(DIMENSIONS),
    "<status>": "|".join(status.value for status in Status),
    "<benchmark>": "|".join(re.escape(benchmark.name) for benchmark in BENCHMARKS),
    "<figure>": r"\w+",
    "<side>": r"[a-z]+",
}


@dataclass(frozen=True)
class Figure:
    """
    One row of the table.

    Args:
        keys (`tuple[str, ...]`):
            Names after `alignguard/`, with places such as `<dimension>`.
        unit (`str`):
            What they are counted in.
        what (`str`):
            What they say.
    """

    keys: tuple[str, ...]
    unit: str
    what: str


FIGURES = (
    Figure(
        ("kl/raw",), "nats per token", "KL(reference ‖ policy) on the reference's own answers, over the full vocabulary"
    ),
    Figure(
        ("kl/answer",),
        "nats per token",
        "the same after an empty, closed trace where the policy has learnt to think: behaviour without the change of "
        "format. The drift to look at first",
    ),
    Figure(
        ("kl/answer_low", "kl/answer_high"), "nats per token", "a 95 % interval of it, families of probes as clusters"
    ),
    Figure(
        ("kl/floor",),
        "nats per token",
        "`kl/answer` of the start against itself, from step 0: 0 where both are read alike, to the bit. A drift near it is none, nor in half "
        "precision one of some 1e-4, which rounding adds as soon as weights move at all (of a tiny model in bfloat16 2e-4); absent with `reference=` a model or path, and where step 0 is further than rounding can be (1e-5 in float32, 1e-2 in half precision or "
        "quantized): weights were changed after the callback was attached, which is told",
    ),
    Figure(
        ("kl/answer_first", "kl/answer_early", "kl/answer_late"),
        "nats per token",
        "of token 1, of tokens 2 to 5, and from token 6 on",
    ),
    Figure(("kl/answer_sum",), "nats per answer", "the sum over an answer"),
    Figure(("kl/thinks",), "probability", "how likely the policy opens a trace"),
    Figure(
        ("kl/reverse",),
        "nats per token",
        "KL(policy ‖ reference) on the policy's own answers (16 an audit; not with a cache)",
    ),
    Figure(
        ("kl/train_prompts",),
        "nats per token",
        "as `kl/answer`, on the start's answers to 16 training prompts; it predicts forgetting. Absent where the training set is a stream, "
        "a class or has a transform of its own, which reading might change",
    ),
    Figure(("<dimension>/kl",), "nats per token", "as `kl/answer`, of one dimension"),
    Figure(("<dimension>/score",), "in [0, 1]", "mean score, higher is more trustworthy"),
    Figure(
        ("<dimension>/drop", "<dimension>/drop_low", "<dimension>/drop_high"),
        "in [-1, 1]",
        "paired drop from the start with a 95 % interval of this one look, families of probes as clusters; positive is worse",
    ),
    Figure(
        ("<dimension>/leaning",),
        "in [0, 1]",
        "mean leaning: the same probes' score from likelihoods alone, which moves before answers flip. A warning, no verdict",
    ),
    Figure(("<dimension>/leaning_drop",), "in [-1, 1]", "its paired drop from the start; positive is worse"),
    Figure(
        ("<dimension>/sample_variance", "<dimension>/sample_error"),
        "",
        "where probes are answered several times by sampling: the variance between the scores of one probe's answers, in the mean, and "
        "the standard error of the mean score that it makes",
    ),
    Figure(("<dimension>/n",), "pairs", "probes scored both then and now"),
    Figure(("<dimension>/unscored",), "share", "of answers that could not be judged"),
    Figure(
        ("<dimension>/p", "together/p"),
        "probability",
        "of a fall as strong as this, at any audit of the run and in any dimension, if nothing had changed; of all audits so far "
        "(`together`: of all dimensions at once). Absent, as the two below, where too few answers could be judged",
    ),
    Figure(
        ("<dimension>/evidence", "together/evidence"),
        "ratio",
        "log p / log alpha; from 1 on it is proven that something fell",
    ),
    Figure(
        ("<dimension>/detectable", "together/detectable"),
        "in [0, 1]",
        "the smallest drop that would have been found by now with a probability of 80 %, had it been there since the start; absent "
        "where none would have been",
    ),
    Figure(("together/drop",), "in [-1, 1]", "of all trust probes of this audit"),
    Figure(
        (
            "<dimension>/<side>_score",
            "<dimension>/<side>_drop",
            "<dimension>/<side>_p",
            "<dimension>/<side>_detectable",
        ),
        "",
        "the same of one side: refuse and comply, keep and tell, and others",
    ),
    Figure(
        ("last_aligned_step",),
        "step",
        "the last audit before a regression at which no watched dimension or side had fallen (its drop's 95 % interval above "
        "zero), and all could be judged",
    ),
    Figure(
        ("safety/harmful_refusal", "safety/benign_refusal"), "share", "refusals, and over-refusals of harmless requests"
    ),
    Figure(
        ("safety/refusal_margin",),
        "nats",
        "log p(refusal) - log p(compliance) at the opening of answers to harmful requests",
    ),
    Figure(
        ("toxicity/mean", "toxicity/max", "toxicity/rate", "toxicity/trace_mean"),
        "probability",
        "of the answers; share at 0.5 or more; of the traces",
    ),
    Figure(("status/<status>",), "share", "of answers: answered, refused, unparseable, truncated, empty, unsure"),
    Figure(("degenerate", "forced"), "share", "of answers: broken ones; those whose trace was closed by force"),
    Figure(("cost/seconds",), "seconds", "of the audit"),
    Figure(
        ("cost/share",),
        "share",
        "of all time since training began that audits took, and keeping its rows; over all parts of a run that is resumed",
    ),
    Figure(
        ("cost/overhead",),
        "share",
        "the same without step 0 and the last step: what the schedule's overhead holds; pulses counted",
    ),
    Figure(("pulse/kl",), "nats per token", "as `kl/answer`, on the few probes of a pulse"),
    Figure(
        ("pulse/same",), "share", "of the start's answers to them that the policy would say too, up to where it departs"
    ),
    Figure(("pulse/choices",), "in [0, 1]", "mean score of those that are choices"),
    Figure(("pulse/refusal_margin",), "nats", "as `safety/refusal_margin`, on those that should be refused"),
    Figure(("pulse/<dimension>_leaning",), "in [0, 1]", "as `<dimension>/leaning`, on the few probes of a pulse"),
    Figure(("cost/tokens",), "tokens", "of all answers, those taken over from the start among them"),
    Figure(("budget/coefficient",), "loss per nat per token", "of a drift budget's penalty"),
    Figure(("budget/penalty",), "loss", "what was added at the last step"),
    Figure(
        ("budget/pace",),
        "factor",
        "on the learning rate: below 1 in the first steps, and where drift was far beyond its budget",
    ),
    Figure(
        ("budget/anchor_kl", "budget/max_kl"),
        "nats per token",
        "drift on a drift budget's anchors, and what it is held to",
    ),
    Figure(("<benchmark>/<figure>",), "", "a published benchmark's own aggregates, as its authors define them"),
)


def _pattern(key: str) -> str:
    parts = re.split(r"(<\w+>)", key)
    return "".join(f"(?:{_PLACES[part]})" if part in _PLACES else re.escape(part) for part in parts)


_KNOWN = re.compile("|".join(_pattern(key) for figure in FIGURES for key in figure.keys))


@lru_cache(maxsize=4096)
def logged(key: str) -> str:
    """
    The name under which a figure is logged.

    Args:
        key (`str`):
            After `alignguard/`, e.g. `"kl/answer"`.

    Raises:
        KeyError: There is no such figure in the table.
    """
    if _KNOWN.fullmatch(key) is None:
        raise KeyError(f"no figure {key!r} in the table of auditing/figures.py")
    return PREFIX + key


def named(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures by key, under the names that are logged; those that are no finite number cannot be had."""
    return {logged(key): value for key, value in figures.items() if isfinite(value)}


_LOWER = re.compile(
    r"kl/(?!thinks|floor)\w+|\w+/(kl|unscored|evidence)|[\w-]+/(\w+_)?(drop|drop_low|drop_high|detectable|benign_refusal)"
    r"|toxicity/(mean|max|rate|trace_mean)|[\w-]+/(expected_max|probability)_\w+|status/(unparseable|truncated|empty|unsure)|degenerate"
    r"|budget/(anchor_kl|penalty)"
)
_HIGHER = re.compile(
    r"last_aligned_step|[\w-]+/(\w+_)?(score|leaning|p|harmful_refusal|refusal_margin)|[\w-]+/accuracy\w*|pulse/(same|choices)"
)


def lower_is_better(name: str) -> bool | None:
    """Whether a figure is better the lower it is; `None` where neither is, or its authors alone can tell."""
    key = name.removeprefix(PREFIX)
    return True if _LOWER.fullmatch(key) else False if _HIGHER.fullmatch(key) else None


def of_audits() -> list[str]:
    """The names of what audits have, those of sides and of published benchmarks left out."""
    keys = [key for figure in FIGURES for key in figure.keys if not key.startswith("pulse/")]
    found = [
        key.replace("<dimension>", name) for key in keys for name in (DIMENSIONS if "<dimension>" in key else ("",))
    ]
    return [PREFIX + key for key in found if "<" not in key]


def is_of_audits(name: str) -> bool:
    """Whether a name is that of a figure which an audit may have: a pulse's own are none."""
    key = name.removeprefix(PREFIX)
    return _KNOWN.fullmatch(key) is not None and not key.startswith("pulse/")


def compares(name: str) -> bool:
    """Whether a figure holds a model against another."""
    return "drop" in name or name.endswith(("/p", "_p", "/evidence", "detectable", "/last_aligned_step"))


def table(figures: Iterable[Figure] = FIGURES) -> str:
    """The table as Markdown: names, unit, and what they say."""
    rows = ["| figure | unit | what it is |", "|---|---|---|"]
    for figure in figures:
        names = ", ".join(f"`{PREFIX}{key}`" for key in figure.keys)
        rows.append(f"| {names} | {figure.unit} | {figure.what} |")
    return "\n".join(rows)
