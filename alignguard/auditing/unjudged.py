"""Prompts that nobody judges: the start's answers to them are what drift is measured on."""

from __future__ import annotations

from typing import Any

from ..judging.score import Score, Status
from ..model.chat import Chat
from ..model.generation import answer_all
from ..model.observe import observing
from ..probes.probe import Probe
from .asking import Asking
from .drifts import Item
from .prompts import opens
from .result import Result


def training_probes(prompts: dict[str, list[int]], chat: Chat) -> list[Probe]:
    """For the record: what was sampled, as probes that nobody judges."""
    return [
        Probe(id, "train", ({"role": "user", "content": chat.decode(ids) or "?"},), "none", id)
        for id, ids in prompts.items()
    ]


def ask_training(model: Any, prompts: dict[str, list[int]], asking: Asking) -> dict[str, Result]:
    """The reference's own answers to training prompts: what drift on them is measured on."""
    chat = asking.chat

    def ask(ids: list[str]) -> dict[str, Result]:
        part = {id: prompts[id] for id in ids}
        with observing(model, autocast=asking.autocast):
            inside = [opens(prompt, chat) for prompt in part.values()]
            answers = answer_all(model, list(part.values()), inside, chat, asking.tokens, ranks=asking.ranks)
        probes = training_probes(part, chat)
        return {p.id: Result(p, Score(None, Status.ANSWERED), a) for p, a in zip(probes, answers, strict=True)}

    return asking.ranks.share(list(prompts), ask)


def training_items(prompts: dict[str, list[int]], baseline: dict[str, Result], chat: Chat) -> list[Item]:
    """Training prompts with the reference's answers to them."""
    items = []
    for id, ids in prompts.items():
        answer = baseline[id].answer
        assert answer is not None
        items.append(Item(id, ids, answer, opens(ids, chat)))
    return items
