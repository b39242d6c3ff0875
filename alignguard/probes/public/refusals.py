"""Benchmarks of requests to refuse, and of safe ones that look like them.

| name | source | licence | rows |
|---|---|---|---|
| xstest | Röttger et al., NAACL 2024 (arXiv 2308.01263) | CC BY 4.0 | 450: 250 safe, 200 unsafe |
| advbench | Zou et al. 2023 (arXiv 2307.15043) | MIT | 520 harmful |
| jailbreakbench | Chao et al., NeurIPS 2024 (arXiv 2404.01318) | MIT | 100 harmful, and 100 benign on the hub |
| strongreject | Souly et al., NeurIPS 2024 (arXiv 2402.10260) | MIT | 313 harmful |
| harmbench | Mazeika et al., ICML 2024 (arXiv 2402.04249) | MIT | 400 harmful |
| simplesafetytests | Vidgen et al. 2023 (arXiv 2311.08370) | CC BY 4.0 | 100 harmful |

All are judged by whether the answer refuses; see [`refusal_scores`] for the authors' own figures.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ...errors import ProbeError
from ..probe import Probe

logger = logging.getLogger(__name__)
Rows = list[dict[str, Any]]


def _probe(name: str, number: int, prompt: str, harmful: bool, family: str, compliance: str = "") -> Probe:
    return Probe(
        id=f"{name}-{number:04d}",
        dimension="safety",
        messages=({"role": "user", "content": prompt.strip()},),
        judge="refusal",
        family=f"{name}-{family}",
        group="harmful" if harmful else "benign",
        condition=name,
        expect="refuse" if harmful else "comply",
        compliance=compliance,
    )


def refusal_scores(results: Sequence[Any]) -> dict[str, float]:
    """
    Refusal rates over the answers that could be judged, harmful and safe prompts apart.

    Returns:
        `dict[str, float]`: `harmful_refusal` (1 minus the attack success rate by rule) and, where safe prompts were asked,
        `benign_refusal` (XSTest's exaggerated safety), in [0, 1].
    """
    found: dict[str, float] = {}
    for group in ("harmful", "benign"):
        part = [r for r in results if r.probe.group == group and r.score.value is not None]
        if part:
            found[f"{group}_refusal"] = sum(r.score.value == (group == "harmful") for r in part) / len(part)
    return found


def xstest(rows: Rows) -> list[Probe]:
    """Safe prompts that look unsafe, and unsafe contrasts; prompts of one type and focus word are a family."""
    for i, r in enumerate(rows, 1):
        if r["label"] not in ("safe", "unsafe"):
            raise ProbeError(f"xstest, row {i}: 'label' must be 'safe' or 'unsafe', not {r['label']!r}")
    families = [f"{r.get('type')}-{r['focus']}" if r.get("focus") else str(i) for i, r in enumerate(rows, 1)]
    return [
        _probe("xstest", i, r["prompt"], r["label"] == "unsafe", family)
        for i, (r, family) in enumerate(zip(rows, families, strict=True), 1)
    ]


def advbench(rows: Rows) -> list[Probe]:
    """Harmful instructions; `target` is how an answer that complies would open."""
    return [_probe("advbench", i, r["goal"], True, str(i), str(r.get("target") or "")) for i, r in enumerate(rows, 1)]


def jailbreakbench(rows: Rows) -> list[Probe]:
    """Harmful behaviours and, in the hub's split `benign`, harmless ones of the same topics."""
    return [
        _probe(
            "jailbreakbench",
            i,
            r["Goal"],
            r.get("_split") != "benign",
            str(r.get("Behavior") or i),
            str(r.get("Target") or ""),
        )
        for i, r in enumerate(rows, 1)
    ]


def strongreject(rows: Rows) -> list[Probe]:
    """Forbidden prompts."""
    return [_probe("strongreject", i, r["forbidden_prompt"], True, str(i)) for i, r in enumerate(rows, 1)]


def harmbench(rows: Rows) -> list[Probe]:
    """
    Harmful behaviours; where one has a context, it is put before it. Of the benchmark's folder, those that show an image are
    left out, and those that stand in several files are taken once.
    """
    shown = [r for r in rows if r.get("ImageFileName")]
    if shown:
        logger.warning(f"AlignGuard: harmbench: {len(shown)} of {len(rows)} items show an image, and are left out")
    rows = list({r.get("BehaviorID") or i: r for i, r in enumerate(rows) if not r.get("ImageFileName")}.values())
    texts = [
        f"{r['ContextString']}\n\n---\n\n{r['Behavior']}" if r.get("ContextString") else r["Behavior"] for r in rows
    ]
    return [
        _probe("harmbench", i, text, True, str(r.get("BehaviorID") or i))
        for i, (r, text) in enumerate(zip(rows, texts, strict=True), 1)
    ]


def simplesafetytests(rows: Rows) -> list[Probe]:
    """Plainly unsafe prompts from five areas of harm."""
    return [_probe("simplesafetytests", i, r["prompts_final"], True, str(i)) for i, r in enumerate(rows, 1)]
