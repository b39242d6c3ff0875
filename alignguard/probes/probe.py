"""The `Probe`: one thing asked, and how its answer is judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

TRUST_DIMENSIONS = ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood")
SKILL = "reasoning"  # what is trained for: shown beside trust, and no dimension of it
DIMENSIONS = (*TRUST_DIMENSIONS, SKILL)

# judge -> the fields it cannot do without
JUDGES: dict[str, tuple[str, ...]] = {
    "refusal": ("expect",),
    "toxicity": (),
    "leak": ("secrets",),
    "tell": ("facts",),
    "choice": ("options", "target"),
    "abstain": (),
    "number": ("expected",),
    "own": (),
}


@dataclass(frozen=True)
class Probe:
    """
    One thing asked, and how its answer is judged.

    Args:
        id (`str`):
            Unique in the pool.
        dimension (`str`):
            One of [`DIMENSIONS`].
        messages (`tuple[dict[str, str], ...]`):
            Chat turns `{"role", "content"}`; the last is a user turn.
        judge (`str`):
            One of `refusal`, `toxicity`, `leak`, `tell`, `choice`, `abstain`, `number`, `own` (the callable given as
            `judge=`).
        family (`str`):
            Probes of one template or scene share it: the cluster of the statistics.
        group (`str`, *optional*, defaults to `""`):
            What aggregates split by, e.g. `"harmful"` and `"benign"`.
        condition (`str`, *optional*, defaults to `""`):
            A finer label, e.g. `"ambiguous"`.
        expect (`str`, *optional*, defaults to `""`):
            `"refuse"` or `"comply"`, for the judge `refusal`.
        secrets (`tuple[str, ...]`, *optional*, defaults to `()`):
            Strings that must not stand in the answer, for the judge `leak`.
        facts (`tuple[str, ...]`, *optional*, defaults to `()`):
            Strings of which one should stand in the answer, for the judge `tell`.
        options (`tuple[str, ...]`, *optional*, defaults to `()`):
            What to choose from, for the judge `choice`.
        target (`int`, *optional*, defaults to `-1`):
            Index of the right option; -1 where none is, and being in doubt is right.
        stereotype (`int`, *optional*, defaults to `-1`):
            Index of the option that follows the stereotype.
        expected (`str`, *optional*, defaults to `""`):
            The right number, for the judge `number`; of a published benchmark the figure people gave.
        plain (`bool`, *optional*, defaults to `False`):
            Ask without the chat template, and without listing options: `prompt` is text, and each option goes on from it
            as it is written, with its leading space. For published benchmarks that are scored so.
        length (`str`, *optional*, defaults to `"bytes"`):
            How options of different length are compared: `"bytes"`, log-probability per byte of UTF-8 (lm-eval's
            `acc_norm`), or `"sum"`, of the whole text (`acc`).
        listed (`bool`, *optional*, defaults to `True`):
            Whether options are listed below the question. `False` where the prompt names them itself.
        compliance (`str`, *optional*, defaults to `""`):
            How an answer that complies would open, for the refusal margin; common openings by default.
        sample (`int`, *optional*, defaults to `0`):
            0 for the greedy answer; 1, 2, ... for answers drawn at random, each from its own seed.
        kind, rude (`str`, *optional*, defaults to `""`):
            Two ways to begin the answer, of one length and shape, for the leaning of the judge `toxicity`; never shown to the
            model as a prompt, and never scored. A few common ones by default.
    """

    id: str
    dimension: str
    messages: tuple[dict[str, str], ...]
    judge: str
    family: str
    group: str = ""
    condition: str = ""
    expect: str = ""
    secrets: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    target: int = -1
    stereotype: int = -1
    expected: str = ""
    plain: bool = False
    length: str = "bytes"
    listed: bool = True
    compliance: str = ""
    sample: int = 0
    kind: str = ""
    rude: str = ""

    @property
    def prompt(self) -> str:
        """The last user turn."""
        return self.messages[-1]["content"]


# of names and labels, and of what a leaning is read from: not of what is asked, nor of how its answer is scored
_BESIDE = {"id", "family", "group", "condition", "stereotype", "compliance", "kind", "rude"}


def repeats(pool: Sequence[Probe]) -> list[tuple[Probe, Probe]]:
    """
    The probes of a dimension that ask what an earlier one asks, and are scored alike, each with that one. Where anything asked
    differs (a turn, a choice, a secret), they are two.
    """
    first: dict[str, Probe] = {}
    found = []
    for probe in pool:
        asked = json.dumps(
            {name: value for name, value in asdict(probe).items() if name not in _BESIDE}, sort_keys=True
        )
        if (before := first.setdefault(asked, probe)) is not probe:
            found.append((probe, before))
    return found


_LATER = {"kind", "rude"}  # than the first records: a probe without them has the hash that it had then


def pool_hash(pool: Sequence[Probe]) -> str:
    """A hash over everything asked and how it is judged, for the record of a run (16 hexadecimal digits)."""
    told = [{name: value for name, value in asdict(probe).items() if value or name not in _LATER} for probe in pool]
    text = json.dumps(told, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
