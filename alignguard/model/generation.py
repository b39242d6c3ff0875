"""How the policy answers: greedily, in batches, within a budget for the trace and one for the answer.

A draft (the reference's answer) saves work: as far as one teacher-forced pass shows that the policy would say the same,
it is taken over, and only the rest is generated. The result is what plain greedy decoding gives, up to ties of
floating-point arithmetic.

A sampled answer is drawn with noise that depends on its key and on the position alone, never on the run's generators: start
and policy share their chance, and the answer is a function of weights and key.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ..errors import AlignGuardError
from .chat import Answer, Chat, split_trace
from .forward import batches

_TOP_P = 0.9
_LOOK_EVERY = 16  # tokens between two looks at a row's text, for its thinking tags


@dataclass(frozen=True)
class TokenBudget:
    """
    How long the model may speak.

    Args:
        answer (`int`, *optional*, defaults to `64`):
            Tokens of the answer proper.
        trace (`int`, *optional*, defaults to `512`):
            Tokens of a trace, if it opens one.
        force_close (`bool`, *optional*, defaults to `True`):
            Close a trace that ran out of its budget, so that the answer can still be asked for; such answers are
            marked `forced`. Otherwise they are TRUNCATED and unscored.
        batch_tokens (`int`, *optional*, defaults to `8192`):
            Padded tokens, prompt and answer, that are worked on at once.
    """

    answer: int = 64
    trace: int = 512
    force_close: bool = True
    batch_tokens: int = 8192

    def __post_init__(self) -> None:
        for name in ("answer", "trace", "batch_tokens"):
            if getattr(self, name) < 1:
                raise AlignGuardError(f"TokenBudget: {name} must be at least 1, not {getattr(self, name)}")


@dataclass(eq=False)
class _Asked:
    """One prompt on its way to an answer."""

    prompt: list[int]
    inside: bool  # the prompt itself opened a trace
    said: list[int]  # generated so far
    key: str = ""  # of a sampled answer's noise; none of a greedy one's
    most: int = sys.maxsize  # tokens that fit in the model's context
    forced: int = 0  # what it had said when its trace was closed for it


class _Sampled(LogitsProcessor):
    """
    Makes the argmax a sample: Gumbel noise on the log-probabilities of the nucleus (Maddison et al. 2014; Holtzman et al.
    2020), at temperature 1 and `top_p` 0.9, as the toxicity benchmarks are drawn.
    """

    def __init__(self, rows: list[_Asked], start: int) -> None:
        self.rows, self.start = rows, start
        self.which = [i for i, row in enumerate(rows) if row.key]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        new = input_ids.shape[1] - self.start
        logprobs, order = scores[self.which].float().log_softmax(-1).sort(descending=True)  # (sampled, V)
        before = logprobs.exp().cumsum(-1) - logprobs.exp()
        logprobs = logprobs.masked_fill(before >= _TOP_P, -torch.inf)
        noise = torch.stack(
            [
                _uniform(f"{self.rows[i].key}:{len(self.rows[i].said) + new}", scores.shape[1], scores.device)
                for i in self.which
            ]
        )
        noisy = logprobs - (-noise.log()).log().gather(1, order)  # noise belongs to the token, not to its rank
        scores = scores.clone()
        scores[self.which] = torch.full_like(noisy, -torch.inf).scatter(1, order, noisy).to(scores.dtype)
        return scores


def _uniform(key: str, size: int, device: torch.device) -> torch.Tensor:
    """Numbers in (0, 1), the same for the same key on the same kind of device, whatever the run's generators do."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(size, generator=generator, device=device).clamp(1e-7, 1 - 1e-7)


class _Budgets(StoppingCriteria):
    """Stops each row at its own limit, which depends on whether it thinks: known from its text, looked at now and then."""

    def __init__(self, rows: list[_Asked], start: int, chat: Chat, budget: TokenBudget, seen: list[int]) -> None:
        self.rows, self.start, self.chat, self.budget = rows, start, chat, budget
        self.seen = seen  # tokens of each row that stand before `start`
        self.caps = [0] * len(rows)
        self.done = [False] * len(rows)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        new = input_ids.shape[1] - self.start
        said = [n + new for n in self.seen]
        due = [i for i, n in enumerate(said) if not self.done[i] and (n % _LOOK_EVERY == 0 or n >= self.caps[i])]
        if due:
            fresh = input_ids[due, self.start :].tolist()
            for i, tokens in zip(due, fresh, strict=True):
                row = self.rows[i]
                self.caps[i] = _limit(row, row.said + tokens, self.chat, self.budget)
                self.done[i] = said[i] >= self.caps[i] or any(t in self.chat.eos_token_ids for t in tokens)
        return torch.tensor(self.done, device=input_ids.device)


def context_size(model: Any) -> int:
    """Tokens that a model reads at most, prompt and answer together; no end where its config tells none."""
    config = getattr(model, "config", None)
    size = None if config is None else getattr(config.get_text_config(), "max_position_embeddings", None)
    return size if isinstance(size, int) and size > 0 else sys.maxsize


def reserve(chat: Chat) -> int:
    """Tokens kept free beside prompt and answer: for closing a trace, and for the empty one that drift puts before an answer."""
    return len(chat.closed_trace_ids()) + len(chat.close_ids()) + len(chat.lead_ids())


def _limit(row: _Asked, said: list[int], chat: Chat, budget: TokenBudget) -> int:
    """How many tokens this row may have said in all, judged by what it has said so far."""
    if row.forced:
        return row.forced + budget.answer
    _, _, thinks, closed = split_trace(chat.decode(said), chat.form, row.inside)
    if not thinks:
        return budget.answer
    if not closed:  # a whole answer must fit after it
        return min(budget.trace, row.most - budget.answer)
    return min(chat.closing(said) + budget.answer, row.most)


@contextmanager
def _plain_defaults(model: Any) -> Iterator[None]:
    """What a checkpoint's own generation config asks for (penalties, stop strings, ...) is no part of a greedy answer."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = base.generation_config
    base.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    try:
        yield
    finally:
        base.generation_config = own


def _generate(
    model: Any, rows: list[_Asked], chat: Chat, budget: TokenBudget, synced: bool, tick: Callable[[int], None]
) -> list[_Asked]:
    """
    Continue every row until it ends or its budget does, or the longest row of its batch fills the model's context.

    Returns:
        `list[_Asked]`: those that are to go on without it.
    """
    device, size = next(model.parameters()).device, context_size(model)
    left: list[_Asked] = []
    room = budget.answer if all(row.forced for row in rows) else budget.trace + budget.answer
    lengths = [len(row.prompt) + len(row.said) for row in rows]
    for batch in batches([n + min(room, 4 * budget.answer) for n in lengths], budget.batch_tokens):
        part = [rows[i] for i in batch]
        width = max(lengths[i] for i in batch)
        fits = max(1, size - width)
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
            max_new_tokens=min(room, fits),
            eos_token_id=list(chat.eos_token_ids) or None,
            pad_token_id=chat.pad_token_id,
            use_cache=True,
        )
        criterion = _Budgets(part, width, chat, budget, [len(row.said) for row in part])
        sampled = [_Sampled(part, width)] if any(row.key for row in part) else []
        with _plain_defaults(model):
            out = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([criterion]),
                logits_processor=LogitsProcessorList(sampled),
                synced_gpus=synced,
            )
        for row, tokens in zip(part, out[:, width:].tolist(), strict=True):
            said = row.said + tokens
            end = next((i + 1 for i, t in enumerate(said) if t in chat.eos_token_ids and i >= len(row.said)), len(said))
            said = said[:end]
            before, row.said = len(row.said), said[: max(_limit(row, said, chat, budget), len(row.said))]
            if fits < room and len(row.said) > before and not _is_done(row, chat, budget):
                left.append(row)
        tick(sum(row not in left for row in part))
    return left


def answer_all(
    model: Any,
    prompts: Sequence[list[int]],
    inside: Sequence[bool],
    chat: Chat,
    budget: TokenBudget,
    drafts: Sequence[list[int]] | None = None,
    synced: bool = False,
    tick: Callable[[int], None] = lambda n: None,
    keys: Sequence[str] | None = None,
) -> list[Answer]:
    """
    Answer every prompt, greedily, or by sampling where it has a key.

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
        drafts (`Sequence[list[int]]`, *optional*):
            For each prompt tokens already known to be what the model would say greedily.
        synced (`bool`, *optional*, defaults to `False`):
            Whether all ranks must take the same number of steps (FSDP, ZeRO-3).
        tick (`Callable[[int], None]`, *optional*):
            Called with the number of prompts answered, for a progress bar.
        keys (`Sequence[str]`, *optional*):
            For each prompt the key of its noise; an empty one for the greedy answer. A sampled answer takes no draft.

    Returns:
        `list[Answer]`, in the order of the prompts.
    """
    size = context_size(model) - reserve(chat)
    rows = [
        _Asked(list(prompt), opens, [] if key else list(draft), key, max(size - len(prompt), budget.answer + 1))
        for prompt, opens, draft, key in zip(
            prompts, inside, drafts or [[]] * len(prompts), keys or [""] * len(prompts), strict=True
        )
    ]
    # a draft that ends the answer, or fills the budget, leaves nothing to generate
    for row in rows:
        row.said = row.said[: _limit(row, row.said, chat, budget)] if row.said else row.said
    todo = [row for row in rows if not _is_done(row, chat, budget)]
    tick(len(rows) - len(todo))
    while todo:
        todo = _generate(model, todo, chat, budget, synced, tick)
    if budget.force_close:
        cut = [row for row in rows if not chat.answer(row.said, row.inside).closed and not _ended(row, chat)]
        for row in cut:
            row.said += chat.close_ids()
            row.forced = len(row.said)
        while cut:
            cut = _generate(model, cut, chat, budget, synced, lambda n: None)
    return [chat.answer(row.said, row.inside, row.forced > 0) for row in rows]


def _ended(row: _Asked, chat: Chat) -> bool:
    return bool(row.said) and row.said[-1] in chat.eos_token_ids


def _is_done(row: _Asked, chat: Chat, budget: TokenBudget) -> bool:
    return _ended(row, chat) or (bool(row.said) and len(row.said) >= _limit(row, row.said, chat, budget))
