"""The reference of a call: loaded once, and asked once for all models that are asked alike."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..auditing.answers import settle_form
from ..auditing.asking import Asking
from ..auditing.result import Result
from ..drift.kept import Kept
from ..drift.reference import Reference, given_reference
from ..model.chat import Chat
from ..model.loading import load_model
from ..probes.draw import draw
from ..probes.probe import Probe
from ..trainer.settings import Settings


@dataclass
class Way:
    """
    One way of asking, and what the reference said when it was asked so.

    Args:
        asking ([`Asking`]):
            How probes are asked and judged.
        asked (`list[Probe]`):
            Which.
        baseline (`dict[str, Result]`, *optional*):
            What the reference answered, by probe id; it is filled by the first audit.
        said ([`Kept`], *optional*):
            Its hidden states on these answers, which drift is measured against.
    """

    asking: Asking
    asked: list[Probe]
    baseline: dict[str, Result] = field(default_factory=dict)
    said: Kept = field(default_factory=Kept)


@dataclass
class Start:
    """
    What the models of a call are held against.

    Args:
        name (`str`):
            Path or hub id.
        device (`torch.device`):
            Where all models compute.
        settings ([`Settings`]):
            What people ask.
        frozen (`PreTrainedModel`, *optional*):
            The reference itself, once it is loaded.
    """

    name: str
    device: torch.device
    settings: Settings
    frozen: Any = None
    _ways: dict[Hashable, Way] = field(default_factory=dict)

    def beside(self, model: Any, tokenizer: Any) -> tuple[Reference, Way]:
        """
        The reference as it stands beside a model, and how both are asked. Models of one dtype, chat template and end of answers
        are asked alike, and share what the reference said; for another it is asked anew, as if that model were audited alone.

        Args:
            model (`PreTrainedModel`):
                The one that is audited.
            tokenizer (`PreTrainedTokenizerBase`):
                That both are asked with.

        Raises:
            StartError: The reference cannot be loaded, or has another vocabulary.
        """
        dtype, settings = next(model.parameters()).dtype, self.settings
        if self.frozen is None or self.frozen.dtype != dtype:
            self.frozen = None  # before the other is there
            self.frozen = load_model(self.name, dtype, self.device)
        reference = given_reference(model, self.frozen)
        chat = Chat.of(model, tokenizer, settings.template_kwargs, settings.tags)
        kind = (dtype, chat.fingerprint(), chat.eos_token_ids)
        if kind not in self._ways:
            asking = Asking(
                chat, settings.tokens, settings.toxicity, settings.judge, seed=settings.seed, sampling=settings.sampling
            )
            way = Way(asking, draw(settings.pool, settings.schedule.draw, settings.seed))
            settle_form(self.frozen, way.asked, asking)
            self._ways[kind] = way
        way = self._ways[kind]
        reference.said = way.said
        return reference, way
