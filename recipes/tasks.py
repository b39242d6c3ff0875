"""Reasoning rows with traces that show the steps, from reasoning-gym: checkable, endless, no download."""

import re

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


def reasoning_rows(size: int, seed: int = 0) -> Dataset:
    """
    Arithmetic questions and answers with a trace, in TRL's conversational prompt-completion form.

    Args:
        size (`int`):
            Rows.
        seed (`int`, *optional*, defaults to `0`):
            Of the questions.
    """
    task = reasoning_gym.create_dataset("chain_sum", size=size, seed=seed, max_terms=5, min_digits=1, max_digits=2)
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": item["question"]}],
                "completion": [{"role": "assistant", "content": chain_sum_trace(item["question"], item["answer"])}],
            }
            for item in task
        ]
    )
