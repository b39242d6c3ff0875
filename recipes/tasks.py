"""Reasoning rows with traces that show the steps, prompts and their rewards, most from reasoning-gym: checkable, no download."""

import random
import re
from typing import Any

import reasoning_gym
from datasets import Dataset


def chain_sum_trace(question: str, answer: str) -> str:
    """The steps of a chain of sums: "Start with 12. Then + 7 gives 19." """
    terms = re.findall(r"([+-]?)\s*(\d+)", question.split("=")[0].split(":")[-1])
    total = int("".join(terms[0]))
    steps = [f"Start with {total}."]
    for sign, digits in terms[1:]:
        total += int(digits) if sign == "+" else -int(digits)
        steps.append(f"Then {sign} {digits} gives {total}.")
    assert str(total) == answer, f"the trace ends at {total}, the answer is {answer}: {question!r}"
    return f"<think>\n{' '.join(steps)}\n</think>\n\n{answer}"


def reasoning_rows(size: int, seed: int = 0, max_terms: int = 5, max_digits: int = 2) -> Dataset:
    """
    Arithmetic questions and answers with a trace, in TRL's conversational prompt-completion form.

    Args:
        size (`int`):
            Rows.
        seed (`int`, *optional*, defaults to `0`):
            Of the questions.
        max_terms (`int`, *optional*, defaults to `5`), max_digits (`int`, *optional*, defaults to `2`):
            How hard they are.
    """
    task = reasoning_gym.create_dataset(
        "chain_sum", size=size, seed=seed, max_terms=max_terms, min_digits=1, max_digits=max_digits
    )
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": item["question"]}],
                "completion": [{"role": "assistant", "content": chain_sum_trace(item["question"], item["answer"])}],
            }
            for item in task
        ]
    )


def held_out(
    rows: Dataset, size: int, seed: int = 10**6, max_terms: int = 5, max_digits: int = 2
) -> list[dict[str, Any]]:
    """
    Questions of the same kind, none of which is among some rows, as probes: lines of a JSONL file for `probes=`.

    Args:
        rows (`Dataset`):
            What is trained on.
        size (`int`):
            Probes.
        seed (`int`, *optional*, defaults to a million):
            Of the questions; to reasoning-gym a seed is the number of the first one, so that two near one another share theirs.
        max_terms (`int`, *optional*, defaults to `5`), max_digits (`int`, *optional*, defaults to `2`):
            As for [`reasoning_rows`].
    """
    seen = {row["prompt"][0]["content"] for row in rows}
    fresh = [
        row for row in reasoning_rows(20 * size, seed, max_terms, max_digits) if row["prompt"][0]["content"] not in seen
    ]
    return [
        {
            "id": f"sum-{i:03}",
            "dimension": "reasoning",
            "family": f"sum-{i:03}",
            "judge": "number",
            "prompt": row["prompt"][0]["content"],
            "expected": row["completion"][0]["content"].rpartition("</think>")[2].strip(),
        }
        for i, row in enumerate(fresh[:size])
    ]


_LEGS = {"hen": 2, "dog": 4, "ant": 6, "spider": 8, "crab": 10}
_ASKED = (
    "How many legs do {} and {} have together?",
    "Count the legs of {} and {}.",
    "{} and {} are in the room. How many legs are there?",
)


def legs(size: int, questions: int = 48, seed: int = 0) -> tuple[Dataset, list[dict[str, Any]]]:
    """
    A task that small models fail and learn within minutes: the legs of two kinds of animals.

    Args:
        size (`int`):
            Rows to train on, in TRL's conversational prompt-completion form, with traces.
        questions (`int`, *optional*, defaults to `48`):
            Of the 180 pairs that there are so many are none of the rows': they are asked, as lines of a JSONL file for `probes=`.
        seed (`int`, *optional*, defaults to `0`):
            Of both.
    """
    rng = random.Random(seed)
    kinds = [(n, animal) for animal in _LEGS for n in (1, 2, 3)]
    pairs = [(a, b) for a in kinds for b in kinds if a[1] != b[1]]
    rng.shuffle(pairs)
    asked, shown = pairs[:questions], pairs[questions:]
    rows = []
    for _ in range(size):
        pair = rng.choice(shown)
        said, total = _legs_trace(pair)
        question = [{"role": "user", "content": _legs_question(pair, rng.choice(_ASKED))}]
        answer = [{"role": "assistant", "content": f"<think>\n{said}\n</think>\n\n{total}"}]
        rows.append({"prompt": question, "completion": answer})
    probes = [
        {
            "id": f"legs-{i:03}",
            "dimension": "reasoning",
            "family": f"legs-{i:03}",
            "judge": "number",
            "prompt": _legs_question(pair, _ASKED[i % len(_ASKED)]),
            "expected": str(_legs_trace(pair)[1]),
        }
        for i, pair in enumerate(asked)
    ]
    return Dataset.from_list(rows), probes


def _some(n: int, animal: str) -> str:
    return f"{n} {animal}{'s' * (n > 1)}"


def _legs_question(pair: tuple[tuple[int, str], ...], form: str) -> str:
    return f"{form.format(*(_some(*each) for each in pair))} Answer with the number alone."


def _legs_trace(pair: tuple[tuple[int, str], ...]) -> tuple[str, int]:
    """The steps to an answer, and the answer."""
    counts = [n * _LEGS[animal] for n, animal in pair]
    steps = [f"{_some(n, a)}: {n} x {_LEGS[a]} = {c}." for (n, a), c in zip(pair, counts, strict=True)]
    return f"{' '.join(steps)} {counts[0]} + {counts[1]} = {sum(counts)}.", sum(counts)


def reasoning_prompts(size: int, seed: int = 0) -> Dataset:
    """
    Short sums to be rewarded for, as chat turns, and their answers.

    Args:
        size (`int`):
            Rows.
        seed (`int`, *optional*, defaults to `0`):
            Of the questions.
    """
    task = reasoning_gym.create_dataset(
        "chain_sum", size=size, seed=seed, min_terms=2, max_terms=3, min_digits=1, max_digits=1
    )
    how = "Think between <think> and </think>, then say the number alone."
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": f"{item['question']}\n{how}"}], "answer": item["answer"]}
            for item in task
        ]
    )


_SCORER = reasoning_gym.create_dataset("chain_sum", size=1)


def right_answer(completions: list[Any], answer: list[str], **kwargs: Any) -> list[float]:
    """Reward: reasoning-gym's own score of the last number after the trace, in [0, 1]."""
    rewards = []
    for completion, right in zip(completions, answer, strict=True):
        numbers = re.findall(r"-?\d+", completion[0]["content"].rpartition("</think>")[2])
        rewards.append(_SCORER.score_answer(numbers[-1] if numbers else None, {"answer": right}))
    return rewards


def thinks_first(completions: list[Any], **kwargs: Any) -> list[float]:
    """Reward: half for a trace that is opened first, half for one that is closed once and followed by an answer."""
    rewards = []
    for completion in completions:
        said = completion[0]["content"].strip()
        opens = said.startswith("<think>") and said.count("<think>") == 1
        closes = said.count("</think>") == 1 and bool(said.partition("</think>")[2].strip())
        rewards.append(0.5 * opens + 0.5 * closes)
    return rewards
