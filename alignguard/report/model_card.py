"""A trust card put into a model card that is there: its section between two comments, its figures among the `model-index`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData, RepoCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump

from ..errors import RunError, one_line
from ..files import write_whole
from ..text import rounded
from .card import TrustCard, shown
from .markdown import BEGIN, END, section
from .picture import write_picture

PICTURE = "alignguard.svg"
_DATASET = "alignguard"  # by its type our results are known among others'
_SECTION = re.compile(f"{BEGIN}\n.*?{END}\n?", re.DOTALL)
# the key, and what stands beneath it: indented, a list, or empty lines
_INDEX = re.compile(r"""^["']?model-index["']?:.*\n(?:(?:[ \t-].*)?\n)*""", re.MULTILINE)


def put_into(path: Path, card: TrustCard) -> bool:
    """
    Put a trust card into a model card, in place of an earlier one. All else that stands in it stays as it is, word for word.

    Args:
        path (`Path`):
            The model card; the picture is written beside it.
        card ([`TrustCard`]):
            What is told.

    Returns:
        `bool`: whether anything had to be changed.

    Raises:
        RunError: There is none, or it cannot be read as one.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file; give a model card that is there, or write one of its own with --output")
    try:
        there = path.read_bytes().decode("utf-8-sig")
        told = with_section(with_results(there.replace("\r\n", "\n"), card), section(card, _picture(path, card)))
    except RunError as error:
        raise RunError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path}: is no text in UTF-8; give a model card") from None
    if "\r\n" in there:
        told = told.replace("\n", "\r\n")
    if told == there:
        return False
    write_whole(path.resolve(), lambda beside: beside.write_bytes(told.encode("utf-8")))
    return True


def _picture(path: Path, card: TrustCard) -> str:
    return write_picture(path.with_name(PICTURE), card)


def with_section(text: str, ours: str) -> str:
    """A model card with our section: where an earlier one stands, or at its end."""
    match = REGEX_YAML_BLOCK.search(text)
    front, body = (text[: match.end()], text[match.end() :]) if match else ("", text)
    if (BEGIN in body) != (END in body):
        raise RunError(f"of the two comments {BEGIN} and {END} one is missing; put it back, or take out the other")
    if _SECTION.search(body):
        return front + _SECTION.sub(lambda match: ours, body, count=1)
    return f"{front}{body.rstrip()}\n\n{ours}" if body.strip() else f"{front}\n{ours}"


def with_results(text: str, card: TrustCard) -> str:
    """A model card with our figures in its front matter, beside the results of others and in place of our own earlier ones."""
    match = REGEX_YAML_BLOCK.search(text)
    front = f"{match[2].strip()}\n" if match and match[2].strip() else ""
    before = _read(text) if match else {}
    try:
        index = _merged(before.get("model-index"), before.get("model_name") or card.name, results(card))
    except (AttributeError, KeyError, TypeError):
        raise RunError("its model-index is not in the hub's form; mend it, or take it out") from None
    if not match and not index:
        return text
    ours = {"model-index": index} if index else {}
    part = yaml_dump(ours, sort_keys=False) if ours else ""
    front, found = _INDEX.subn(lambda match: part, front, count=1)
    told = f"---\n{front}{'' if found else part}---\n{text[match.end() :] if match else text and chr(10) + text}"
    others = {key: value for key, value in before.items() if key != "model-index"}
    if _read(told) != others | ours:  # it is written in a way that is not seen through here
        raise RunError("its model-index cannot be replaced as it is written; take it out")
    return told


def front_matter(card: TrustCard) -> str:
    """Our figures alone, as the front matter of a model card that has no other."""
    return with_results("", card)


def results(card: TrustCard) -> list[EvalResult]:
    """
    Our figures as huggingface_hub has them: of each dimension its scores, its drop, what could not be judged, and the drift. None where
    other weights were put back, since they stand for those of the model.
    """
    if card.about.put_back:
        return []
    found = []
    for row in card.rows:
        counts: dict[str, float | str] = {"n": row.n, "asked": row.asked, "unscored": row.unscored}
        counts |= {"verdict": row.verdict} if row.verdict else {}
        drop = counts | {"n": row.pairs, "low": row.low, "high": row.high, "p": row.p, "detectable": row.detectable}
        drop |= {"part": row.part} if row.part else {}
        share = row.unscored / row.asked
        found += [
            _result(card, row.dimension, "score", "Score, 1 is best", row.last, counts),
            _result(card, row.dimension, "start_score", "Score of the start", row.start, counts),
            _result(card, row.dimension, "drop", "Drop from the start, positive is worse", row.drop, drop),
            _result(card, row.dimension, "unscored", "Share of answers that could not be judged", share, counts),
        ]
    for key, value in card.drift.items():
        name = key.replace("kl/", "kl_")
        found.append(
            _result(card, "drift", name, f"Drift from the start, {key.removeprefix('kl/').replace('_', ' ')}", value)
        )
    return [result for result in found if isfinite(result.metric_value)]


def _result(
    card: TrustCard, config: str, metric: str, name: str, value: float, more: dict[str, float | str] | None = None
) -> EvalResult:
    told = {key: figure if isinstance(figure, str) else _short(figure) for key, figure in (more or {}).items()}
    args = {key: figure for key, figure in told.items() if isinstance(figure, str) or isfinite(figure)}
    return EvalResult(
        task_type="text-generation",
        dataset_type=_DATASET,
        dataset_name=f"AlignGuard ({card.probe_set} probes): {config}",
        dataset_config=config,
        dataset_revision=shown(card.about.pool_hash),
        metric_type=metric,
        metric_name=name,
        metric_value=_short(value),
        metric_args=args or None,
    )


def _short(value: float) -> float:
    """Four digits: the fifth is noise."""
    return value if isinstance(value, int) else float(rounded(value, ".4g"))


def _merged(index: list[dict[str, Any]] | None, name: str, ours: Sequence[EvalResult]) -> list[dict[str, Any]]:
    """A `model-index` with others' results as they were, and ours; empty where there are none."""
    told = ModelCardData(model_name=name, eval_results=[*ours]).to_dict() if ours else {}
    fresh = told["model-index"][0]["results"] if told else []
    kept = [
        entry | {"results": [r for r in entry.get("results") or [] if r.get("dataset", {}).get("type") != _DATASET]}
        for entry in index or []
    ]
    first, *others = kept or [{"name": name, "results": []}]
    return [entry for entry in (first | {"results": [*first["results"], *fresh]}, *others) if entry["results"]]


def _read(text: str) -> dict[str, Any]:
    """What a front matter tells; of others' results too as they are written, since huggingface_hub's own form lacks some of it."""
    try:
        return dict(RepoCard(text).data.to_dict())
    except Exception as error:  # of YAML or of huggingface_hub
        raise RunError(f"its front matter cannot be read ({one_line(error)}); mend it") from None
