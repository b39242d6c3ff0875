"""Reasoning rows with traces that show the steps, prompts and their rewards, from reasoning-gym: checkable, endless, no download."""

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
