"""How the policy answers: greedily, in batches, within a budget for the trace and one for the answer.

A draft (the reference's answer) saves work: as far as one teacher-forced pass shows that the policy would say the same,
it is taken over, and only the rest is generated. The result is what plain greedy decoding gives, up to ties of
floating-point arithmetic.

A sampled answer is drawn with noise that depends on its key and on the position alone, never on the run's generators: start
and policy share their chance, and the answer is a function of weights and key.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from ..distributed import Ranks, compute_device
from .batched import can_batch, plain_defaults
from .chat import Answer, Chat
from .forward import batches
from .room import decode_room
from .sampled import Draw, Sampled
from .stopping import LOOK_EVERY, Asked, Budgets, TokenBudget, has_ended, is_done, is_thinking, limit_of
from .virtual import virtual_tokens

_ALONE = Ranks()
# another way to go on: sequences of token ids, each continued greedily by at most so many tokens, past no end of an answer;
# `None` where it failed, and has told so
Ask = Callable[[list[list[int]], int], list[list[int]] | None]
# the same of rows, which know what was asked, what was said so far, and how it is drawn
AskRows = Callable[[list[Asked], int], list[list[int]] | None]


@dataclass(frozen=True)
class Draft:
    """
    The beginning of an answer that is known before it is generated.

    Args:
        tokens (`Sequence[int]`, *optional*, defaults to `()`):
            What the model would say greedily.
        forced (`int`, *optional*, defaults to `0`):
            How many of them stand before the answer, where the trace ran out of its budget and was closed.
    """

    tokens: Sequence[int] = ()
    forced: int = 0


def context_size(model: Any) -> int:
    """Tokens that a model reads at most, prompt and answer together, beside its virtual ones; no end where its config tells none."""
    config = getattr(model, "config", None)
    size = None if config is None else getattr(config.get_text_config(), "max_position_embeddings", None)
    return size - virtual_tokens(model) if isinstance(size, int) and size > 0 else sys.maxsize


def reserve(chat: Chat) -> int:
    """Tokens kept free beside prompt and answer: for closing a trace, and for the empty one that drift puts before an answer."""
    return len(chat.closed_trace_ids()) + len(chat.close_ids()) + len(chat.lead_ids())


def _generate(
    model: Any,
    rows: list[Asked],
    room: int,
    limit: int,
    chat: Chat,
    budget: TokenBudget,
    ranks: Ranks,
    tick: Callable[[int], None],
) -> None:
    """
    Continue every row by at most `room` tokens, until it ends or its budget does, or the longest row of its batch fills the
    model's context; in batches of at most `limit` tokens, one by one where a model's answer hangs on its batch.
    """
    device, size = compute_device(model), context_size(model)
    lengths = [len(row.prompt) + len(row.said) for row in rows]
    plan = list(batches([n + room for n in lengths], limit))
    if len(plan) > 1:  # who is seen to think goes on after the others of its batch have ended, and keeps their place
        thinking = [i for i, row in enumerate(rows) if is_thinking(row, chat)]
        parts = thinking, [i for i in range(len(rows)) if i not in set(thinking)]
        plan = [
            [part[k] for k in batch] for part in parts for batch in batches([lengths[i] + room for i in part], limit)
        ]
    if not can_batch(model, chat):
        plan = [[i] for i in range(len(rows))]
    for _ in range(ranks.rounds(len(plan)) - len(plan)):
        plan.append([])  # of a sharded model: what the others have left is gone through with a row of nothing
    for batch in plan:
        if not batch:
            _idle(model, chat)
            continue
        part = [rows[i] for i in batch]
        width = max(lengths[i] for i in batch)
        ids = torch.full((len(part), width), chat.pad_token_id, dtype=torch.long)
        mask = torch.zeros((len(part), width), dtype=torch.long)
        for k, row in enumerate(part):  # padding on the left: every row goes on at the same position
            sequence = row.prompt + row.said
            ids[k, width - len(sequence) :] = torch.tensor(sequence)
            mask[k, width - len(sequence) :] = 1
        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=min(room, max(1, size - width)),
            eos_token_id=list(chat.eos_token_ids) or None,
            pad_token_id=chat.pad_token_id,
            use_cache=True,
        )
        criterion = Budgets(part, width, chat, budget, device)
        draws = [row.draw for row in part]
        sampled = [Sampled(draws, [len(row.said) for row in part], width)] if any(draws) else []
        with plain_defaults(model):
            out = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([criterion]),
                logits_processor=LogitsProcessorList(sampled),
                synced_gpus=ranks.sharded,
            )
        for row, tokens, stop in zip(part, out[:, width:].tolist(), criterion.stops.tolist(), strict=True):
            _say(row, tokens[: stop or len(tokens)], chat, budget)
        tick(sum(is_done(row, chat, budget) for row in part))


def _say(row: Asked, tokens: list[int], chat: Chat, budget: TokenBudget) -> None:
    """It has said more: up to the end of its answer, or of its budget."""
    end = next((i + 1 for i, token in enumerate(tokens) if token in chat.eos_token_ids), len(tokens))
    said = row.said + tokens[:end]
    row.said = said[: max(limit_of(row, said, chat, budget), len(row.said))]


def _ask(
    ask: AskRows, rows: list[Asked], chat: Chat, budget: TokenBudget, tick: Callable[[int], None] = lambda n: None
) -> None:
    """
    Have every row continued elsewhere until it ends or its budget does: those that answer first, then traces with their answers.
    Where that fails, rows are left as they are.
    """
    asked = rows
    while asked := [row for row in asked if not is_done(row, chat, budget)]:
        before = {row: len(row.said) for row in asked}
        found = ask(asked, max(_room(row, chat, budget) for row in asked))
        if found is None:
            return
        for row, tokens in zip(asked, found, strict=True):
            while tokens and not is_done(row, chat, budget):  # how far it may go is seen from what it has said so far
                now = limit_of(row, row.said, chat, budget)
                part, tokens = tokens[: now - len(row.said)], tokens[now - len(row.said) :]
                whole = len(row.said) + len(part)
                _say(row, part, chat, budget)
                if len(row.said) < whole:  # its end, or that of its budget, came before
                    break
        tick(sum(is_done(row, chat, budget) for row in asked))
        asked = [row for row in asked if len(row.said) > before[row]]


def _room(row: Asked, chat: Chat, budget: TokenBudget) -> int:
    """Tokens that a row may go on for, as far as is seen: a trace may close, and is then followed by an answer."""
    left = limit_of(row, row.said, chat, budget) - len(row.said)
    return left + budget.answer if not row.forced and is_thinking(row, chat) else left


def _idle(model: Any, chat: Chat) -> None:
    """One token of nothing, and as many steps as the other processes take."""
    ids = torch.full((1, 2), chat.pad_token_id, device=compute_device(model))
    config = GenerationConfig(max_new_tokens=1, do_sample=False, pad_token_id=chat.pad_token_id)
    with plain_defaults(model):
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, synced_gpus=True)


def answer_all(
    model: Any,
    prompts: Sequence[list[int]],
    inside: Sequence[bool],
    chat: Chat,
    budget: TokenBudget,
    drafts: Sequence[Draft] | None = None,
    ranks: Ranks = _ALONE,
    tick: Callable[[int], None] = lambda n: None,
    draws: Sequence[Draw | None] | None = None,
    ask: Ask | None = None,
) -> list[Answer]:
    """
    Answer every prompt, greedily, or by sampling where that is asked.

    Args:
        model (`PreTrainedModel`):
            The model that answers; in eval mode, without gradients, see `observe.py`.
        prompts (`Sequence[list[int]]`):
            Token ids.
        inside (`Sequence[bool]`):
            Whether a prompt itself opens a trace.
        chat (`Chat`):
            Tags and end tokens.
        budget (`TokenBudget`):
            Of trace and answer.
        drafts (`Sequence[Draft]`, *optional*):
            For each prompt what is already known.
        ranks ([`Ranks`], *optional*):
            The processes of a sharded model (FSDP, ZeRO-3), which take the same number of steps, each with prompts of its own.
        tick (`Callable[[int], None]`, *optional*):
            Called with the number of prompts answered, for a progress bar.
        draws (`Sequence[Draw | None]`, *optional*):
            For each prompt how its answer is drawn; `None` for the greedy one. A sampled answer takes no draft.
        ask (`Ask`, *optional*):
            What generates greedy answers in the model's place; what it leaves, and sampled ones, the model generates itself.

    Returns:
        `list[Answer]`, in the order of the prompts.
    """
    size = context_size(model) - reserve(chat)
    rows = []
    for prompt, opens, draft, draw in zip(
        prompts, inside, drafts or [Draft()] * len(prompts), draws or [None] * len(prompts), strict=True
    ):
        row = _row(prompt, opens, draw, size, budget)
        if draft.tokens and draw is None:  # one that ends the answer, or fills the budget, leaves nothing to generate
            row.forced = draft.forced
            row.said = list(draft.tokens)[: limit_of(row, list(draft.tokens), chat, budget)]
        rows.append(row)
    least = min(budget.batch_tokens, budget.decode_tokens or budget.batch_tokens)
    limit = budget.decode_tokens or (least if ranks.sharded else decode_room(model, least))

    def finish(asked: list[Asked], tick: Callable[[int], None]) -> None:
        """In rounds, each twice as long as the last: who thinks goes on without those who do not, in batches made anew."""
        nonlocal limit
        if ask is not None:
            go_on = ask
            greedy = [row for row in asked if row.draw is None]
            _ask(lambda rows, most: go_on([row.prompt + row.said for row in rows], most), greedy, chat, budget, tick)
        room = budget.answer + LOOK_EVERY
        while ranks.rounds(len(asked := [row for row in asked if not is_done(row, chat, budget)])):
            before = {row: len(row.said) for row in asked}
            try:
                _generate(model, asked, room, limit, chat, budget, ranks, tick)
            except torch.OutOfMemoryError:
                if ranks.sharded or limit <= least:
                    raise
                limit = max(least, limit // 2)  # what was free when the limit was found may be so no longer
                continue
            room *= 2
            asked = [row for row in asked if len(row.said) > before[row]]  # whatever a model says, this ends

    tick(sum(is_done(row, chat, budget) for row in rows))
    finish(rows, tick)
    if budget.force_close:
        finish(_closed(rows, chat), lambda n: None)
    return [chat.answer(row.said, row.inside, row.forced > 0) for row in rows]


def answer_elsewhere(
    ask: AskRows, prompt: list[int], inside: bool, chat: Chat, budget: TokenBudget, size: int, draw: Draw | None = None
) -> Answer:
    """
    Answer one prompt where no model is at hand, as [`answer_all`] does.

    Args:
        ask (`AskRows`):
            What generates.
        prompt (`list[int]`), inside (`bool`), chat (`Chat`), budget (`TokenBudget`), draw (`Draw`, *optional*):
            As for [`answer_all`].
        size (`int`):
            Tokens that are read at most, prompt and answer together.
    """
    row = _row(prompt, inside, draw, size - reserve(chat), budget)
    _ask(ask, [row], chat, budget)
    if budget.force_close:
        _ask(ask, _closed([row], chat), chat, budget)
    return chat.answer(row.said, row.inside, row.forced > 0)


def _row(prompt: Sequence[int], inside: bool, draw: Draw | None, size: int, budget: TokenBudget) -> Asked:
    """A prompt that nothing has been said to yet, with room for an answer at least."""
    return Asked(list(prompt), inside, [], draw, max(size - len(prompt), budget.answer + 1))


def _closed(rows: Sequence[Asked], chat: Chat) -> list[Asked]:
    """Those that are still within their trace, which is closed for them, so that the answer can be asked for."""
    cut = [row for row in rows if not chat.answer(row.said, row.inside).closed]
    for row in cut:
        if has_ended(row, chat):  # it has said what it had to say, in its trace; what would it tell?
            row.said.pop()
        row.said += chat.close_ids(row.said)
        row.forced = len(row.said)
    return cut
