"""`About`: what a record says of itself. What was asked of whom, by what rule, and whether a run took steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..given import shown
from ..verdicts.rule import StopRule

APART = "judged by different versions"  # what begins the note of a record whose sides were

_ABSENT = (
    "id",
    "max_steps",
    "looks",
    "alpha_until",
    "overhead",
    "against",
    "title",
    "dtype",
    "reads",
    "template_kwargs",
    "sampling",
    "engine",
    "left_out",
    "notes",
    "put_back",
)  # are not written where they say nothing


def _kind_of(name: str) -> tuple[type, ...]:
    """What a field may be, as JSON has it."""
    told = str(next(field.type for field in fields(About) if field.name == name))
    kinds = {
        "bool": (bool,),
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "dict": (dict,),
        "tuple": (list, tuple),
    }
    return next(kind for start, kind in kinds.items() if told.startswith(start))


@dataclass(frozen=True)
class About:
    """
    What stands in `baseline.json` beside the baseline's scores. A record of an earlier version may lack some of it.

    Args:
        alignguard (`str`):
            The version that wrote the record.
        model, model_fingerprint, tokenizer_fingerprint (`str`):
            Who was asked.
        reference (`str`):
            How the start was kept.
        pool_hash (`str`), probes, draw, seed (`int`):
            What was asked.
        toxicity, judge (`str`):
            Scorers, by name and version.
        rule (`str`), stop (`dict[str, Any]`, *optional*):
            What counts as a regression, in words and as values.
        looks (`int`, *optional*), alpha_until (`int`, *optional*):
            Over how many audits alpha is spread, or by which step it is spent: that at which the run was to end when it began.
        budget (`str`, *optional*):
            The drift budget, in words.
        overhead (`float`, *optional*):
            Share of the run's time that audits were held to; `None` where all that were planned were taken.
        tags (`tuple[str, ...]`), answer_tokens, trace_tokens (`int`):
            How answers were read.
        reads (`int`, *optional*):
            Tokens that who gave the baseline reads at most, prompt and answer together; `None` where nothing tells.
        template_kwargs (`dict[str, Any]`, *optional*):
            What the chat template was given.
        sampling (`dict[str, Any]`, *optional*):
            How answers were drawn where they were sampled: temperature, top_p and samples; from `seed`.
        max_steps (`int`, *optional*):
            The last step of a training run; a matched audit of two models has none.
        quote (`bool`):
            Whether reports and trackers may show what was asked and said.
        against, title, dtype (`str`):
            Of a matched audit: what the model was held against, the report's title, and the dtype of both.
        engine (`dict[str, str]`, *optional*):
            Of a served model: `url`, its name there (`model`), what serves it (`server`), what has answered as its `reference`, and,
            where that is served too, its name there (`reference_model`).
        left_out (`tuple[str, ...]`), notes (`tuple[str, ...]`):
            What could not be had of it, and what is to be known of how it was asked.
        put_back (`str`, *optional*):
            Whose weights were put back after training, where they are not those of the last audit.
        id (`str`, *optional*):
            Of a training run: drawn as it begins, and told by its checkpoints too.
    """

    alignguard: str = ""
    model: str = "model"
    model_fingerprint: str = ""
    tokenizer_fingerprint: str = ""
    reference: str = ""
    pool_hash: str = ""
    probes: int = 0
    draw: int = 0
    seed: int = 0
    toxicity: str = "none"
    judge: str = "none"
    rule: str = ""
    stop: dict[str, Any] | None = None
    looks: int | None = None
    alpha_until: int | None = None
    budget: str | None = None
    overhead: float | None = None
    tags: tuple[str, ...] = ()
    answer_tokens: int = 0
    trace_tokens: int = 0
    reads: int | None = None
    template_kwargs: dict[str, Any] | None = None
    sampling: dict[str, Any] | None = None
    max_steps: int | None = None
    quote: bool = True
    against: str = ""
    title: str = ""
    dtype: str = ""
    engine: dict[str, str] | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    put_back: str = ""
    id: str = ""

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> About:
        """
        Read what [`~About.to_dict`] gave, also of an earlier version; what is not known is left out.

        Raises:
            ValueError: It is no record.
        """
        if not isinstance(told, Mapping) or "pool_hash" not in told or "seed" not in told:
            raise ValueError("it tells neither pool_hash nor seed")
        known = {field.name: told[field.name] for field in fields(cls) if field.name in told}
        for name, value in known.items():
            if value is not None and not isinstance(value, _kind_of(name)):
                raise ValueError(f"{name} is {shown(value)}")
        lists = {name: tuple(known.get(name) or ()) for name in ("tags", "left_out", "notes")}
        return cls(**known | lists | {"model": str(known.get("model") or "model")})

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `baseline.json`, and as trackers are told of the run."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
        return {name: value for name, value in told.items() if name not in _ABSENT or value not in (None, "", {}, [])}

    @property
    def is_run(self) -> bool:
        """Whether it is of a training run, which takes steps."""
        return self.max_steps is not None

    @property
    def is_alone(self) -> bool:
        """Whether a served model was asked, and held against nothing."""
        return self.engine is not None and not self.against

    @property
    def was(self) -> str:
        """What the model is held against, in a word."""
        return "reference" if self.against else "start"

    @property
    def held_against(self) -> str:
        """What the model is held against."""
        return self.against or ("nothing" if self.is_alone else "the model at step 0")

    @property
    def note(self) -> str:
        """That the weights that are there are not those that the figures are of, in a sentence; empty where they are."""
        told = f"After training the weights of {self.put_back} were put back; the figures are of the last audit's."
        return told if self.put_back else ""

    @property
    def stop_rule(self) -> StopRule:
        """The rule on record: as values, or in the words of earlier versions."""
        if self.stop is not None:
            return StopRule(**self.stop)
        found = re.match(r"([\w-]+), alpha (\S+), min_drop (\S+), patience (\d+)", self.rule)
        if found is None:
            return StopRule()
        return StopRule(float(found[2]), float(found[3]), patience=int(found[4]), rule=found[1])


def as_json(value: Any) -> Any:
    """What JSON has no word for: numpy's numbers as numbers, and what is no data, as a function among a template's options, by its name."""
    return value.item() if hasattr(value, "item") else getattr(value, "__qualname__", type(value).__qualname__)
