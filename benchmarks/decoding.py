"""How many steps decoding takes, without a model: what `answer_all` does with rows whose length is known beforehand.

An ideal scheduler of the same memory holds at each step as many rows as fit, the longest first, and takes the next one in at once.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig

from alignguard import Chat, TokenBudget
from alignguard.model.generation import answer_all

ROWS = 206
SHARES = (0.0, 0.1, 0.5, 1.0)
MEMORY = (8192, 131_072)  # tokens held at once: a CPU's, and what an H100 had room for beside 7B
BUDGET = TokenBudget(answer=64, trace=512)


@dataclass
class Line:
    """What a row says if nobody stops it: a trace of so many tokens, or none, and an answer of so many."""

    prompt: list[int]
    trace: int
    answer: int
    tokens: list[int] = field(default_factory=list)


class Planned(torch.nn.Module):
    """
    A model of which each answer is planned; it computes nothing, and counts.

    Args:
        chat (`Chat`):
            How it is spoken to.
        lines (`Sequence[Line]`):
            What it is asked, no prompt twice, and says.
    """

    def __init__(self, chat: Chat, lines: Sequence[Line]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = PretrainedConfig(max_position_embeddings=2**20)
        self.generation_config = GenerationConfig()
        self.word = chat.encode(" word")[0]
        self.chat, self.close, self.eos = chat, chat.close_ids(), chat.eos_token_ids[0]
        self.lines = {tuple(line.prompt): line for line in lines}
        self.steps = self.read = self.calls = 0  # forwards, and tokens read before the first step of each batch

    def _goes_on(self, sequence: list[int], room: int) -> list[int]:
        """What it says next, to so many tokens at most, and then nothing."""
        n = next(n for n in range(len(sequence), 0, -1) if tuple(sequence[:n]) in self.lines)
        line, said = self.lines[tuple(sequence[:n])], sequence[n:]
        opened = self.chat.encode(self.chat.form.open) if line.trace else []
        trace = (opened + [self.word] * line.trace)[: line.trace]
        answer = [self.word] * (line.answer - 1) + [self.eos]
        ends = [i + len(self.close) for i in range(len(said)) if said[i : i + len(self.close)] == self.close]
        if ends:  # closed, by itself or by force
            rest = answer[len(said) - ends[0] :]
        else:
            rest = [*trace, *(self.close if trace else []), *answer][len(said) :]
        return rest[:room]

    def generate(
        self, input_ids: Any, attention_mask: Any, generation_config: Any, stopping_criteria: Any, **_: Any
    ) -> Any:
        rows, width = input_ids.shape
        room, pad = generation_config.max_new_tokens, generation_config.pad_token_id
        out = torch.cat([input_ids, torch.full((rows, room), pad)], 1)
        for i, (ids, mask) in enumerate(zip(input_ids.tolist(), attention_mask.tolist(), strict=True)):
            rest = self._goes_on(ids[width - sum(mask) :], room)
            out[i, width : width + len(rest)] = torch.tensor(rest)
        ends, done = torch.tensor(self.chat.eos_token_ids), torch.zeros(rows, dtype=torch.bool)
        self.calls, self.read = self.calls + 1, self.read + rows * width
        for step in range(1, room + 1):
            self.steps += 1
            out[done, width + step - 1] = pad
            done |= torch.isin(out[:, width + step - 1], ends) | stopping_criteria[0](out[:, : width + step], None)
            if done.all():
                break
        return out[:, : width + step]


def lines(chat: Chat, share: float, rows: int = ROWS, seed: int = 0) -> list[Line]:
    """
    Rows as a pool of probes has them: prompts of 30 to 150 tokens; every other answer fills its budget, the others end before;
    traces of 32 to 640 tokens, so that one in five is closed by force.
    """
    draws = random.Random(seed)
    found = []
    for i in range(rows):
        prompt = chat.encode(f"{i}:") + chat.encode(" ask") * draws.randint(30, 150)
        trace, answer = draws.randint(32, 640), 2 * BUDGET.answer if draws.random() < 0.5 else draws.randint(8, 64)
        found.append(Line(prompt, trace, answer))
    thinking = set(draws.sample(range(rows), round(share * rows)))
    for i, line in enumerate(found):
        line.trace *= i in thinking
    return found


def ideal_steps(rows: Sequence[tuple[int, int]], memory: int) -> int:
    """
    Steps of a scheduler that knows how long each row will be, and keeps room for all of it while it is held.

    Args:
        rows (`Sequence[tuple[int, int]]`):
            Tokens of each prompt, and tokens that are generated.
        memory (`int`):
            Tokens that are held at once; a row that is longer is held alone.
    """
    waiting = sorted(rows, key=lambda row: (-row[1], row[0]))
    held: list[tuple[int, int]] = []  # when a row ends, and what it takes
    now, used, last = 0, 0, 0
    while waiting or held:
        left = []
        for prompt, steps in waiting:
            size = prompt + steps
            if used + size <= memory or not held:
                heapq.heappush(held, (now + steps, size))
                used += size
                last = max(last, now + steps)
            else:
                left.append((prompt, steps))
        waiting = left
        now, size = heapq.heappop(held)
        used -= size
        while held and held[0][0] == now:
            used -= heapq.heappop(held)[1]
    return last


def plan(chat: Chat, share: float, memory: int, rows: int = ROWS, budget: TokenBudget = BUDGET) -> dict[str, Any]:
    """Steps of `answer_all` over those of the ideal scheduler, where so many of the rows think."""
    asked = lines(chat, share, rows)
    model = Planned(chat, asked)
    held = TokenBudget(budget.answer, budget.trace, decode_tokens=memory)
    said = answer_all(model, [line.prompt for line in asked], [False] * rows, chat, held)
    closed = len(chat.close_ids())
    told = [len(answer.tokens) - closed * answer.forced for answer in said]
    best = ideal_steps([(len(line.prompt), n) for line, n in zip(asked, told, strict=True)], memory)
    read = sum(len(line.prompt) for line in asked)
    return {
        "thinking": share,
        "memory": memory,
        "forced": sum(answer.forced for answer in said),
        "calls": model.calls,
        "steps": model.steps,
        "ideal_steps": best,
        "ratio": model.steps / best,
        "tokens_read_over_prompts": model.read / read,
    }


def plans(chat: Chat, rows: int = ROWS) -> list[dict[str, Any]]:
    """A line a share and memory."""
    return [plan(chat, share, memory, rows) for memory in MEMORY for share in SHARES]


def worst(found: Sequence[Mapping[str, Any]]) -> float:
    return max(float(line["ratio"]) for line in found)
