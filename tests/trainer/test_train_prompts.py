"""Prompts of the training data, in the forms TRL's trainers keep them."""

import pytest
from datasets import Dataset

from alignguard.model.chat import Chat
from alignguard.trainer.train_prompts import prompt_of, sample_prompts

TURNS = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


@pytest.fixture
def chat(tokenizer):
    return Chat(tokenizer)


def test_rows_tell_their_prompts(chat):
    expected = chat.prompt_ids(TURNS[:1])
    assert prompt_of({"prompt": TURNS[:1], "completion": TURNS[1:]}, chat) == expected
    assert prompt_of({"messages": TURNS}, chat) == expected
    assert prompt_of({"prompt": "2+2?"}, chat) == chat.encode("2+2?")
    assert prompt_of({"input_ids": [5, 6, 7, 8], "completion_mask": [0, 0, 1, 1]}, chat) == [5, 6]
    assert prompt_of({"input_ids": [5, 6, 7, 8], "labels": [-100, -100, -100, 8]}, chat) == [5, 6, 7]
    assert prompt_of({"prompt_ids": [5, 6]}, chat) == [5, 6]


@pytest.mark.parametrize(
    "row", [{"input_ids": [5, 6]}, {"text": "x"}, {}, "x", {"messages": []}, {"input_ids": [5], "labels": [5]}]
)
def test_rows_without_a_prompt_are_left_alone(chat, row):
    assert prompt_of(row, chat) is None


def test_samples_are_seeded_and_short_enough(chat):
    rows = Dataset.from_list([{"prompt": f"what is {i}?" * (200 if i == 3 else 1)} for i in range(20)])
    found = sample_prompts(rows, chat, 5, 0)
    assert len(found) == 5 and found == sample_prompts(rows, chat, 5, 0) != sample_prompts(rows, chat, 5, 1)
    assert "train-3" not in sample_prompts(rows, chat, 20, 0)
    assert sample_prompts(iter([]), chat, 5, 0) == {} == sample_prompts(rows, chat, 0, 0)
