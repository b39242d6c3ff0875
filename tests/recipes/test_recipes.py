"""What recipes are made of: traces that are right, rewards that cannot be had cheaply, rows to mix in."""

import re
import sys

import demo
import mixing
import pytest
from auditing import parse
from datasets import Dataset
from tasks import held_out, legs, reasoning_prompts, reasoning_rows, right_answer, thinks_first
from trl import GRPOConfig

from alignguard import AlignGuardError, load_probes
from alignguard.holding.anchors import Anchor, load_anchors


def said(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_a_trace_ends_at_the_answer():
    for row in reasoning_rows(20):
        trace, _, answer = row["completion"][0]["content"].rpartition("\n\n")
        assert trace.startswith("<think>\n") and trace.endswith(f"gives {answer}.\n</think>")


def test_the_right_number_after_the_trace_is_rewarded():
    texts = ["<think>1 and 2</think> 7", "7", "It is 6.", "<think> 7 </think> I do not know", "-7", "7 or 6"]
    rewards = right_answer(said(*texts), ["7"] * 6)
    assert rewards[:2] == [1.0, 1.0] and max(rewards[2:]) <= 0.5


def test_thinking_first_is_rewarded_once():
    texts = [
        "<think>a</think> 7",
        "<think>a",
        "7 <think>a</think> 7",
        "<think><think></think> 7",
        "7",
        "<think>a</think>",
    ]
    assert thinks_first(said(*texts)) == [1.0, 0.5, 0.5, 0.5, 0.0, 0.5]


def test_prompts_have_the_answers_that_reasoning_gym_knows():
    for row in reasoning_prompts(5):
        sum_ = row["prompt"][0]["content"].split("problem: ")[1].split(" =")[0]
        assert str(eval(sum_)) == row["answer"]


def test_rows_to_mix_in_are_the_models_own_answers(tokenizer, monkeypatch):
    prompts = {"a": "How do I open a door?", "b": "Tell me of the fox."}
    anchors = {id: Anchor(({"role": "user", "content": text},)) for id, text in prompts.items()}
    monkeypatch.setattr(mixing, "load_anchors", lambda: anchors)
    monkeypatch.setattr(mixing, "pipeline", lambda task, model, revision: Parrot(tokenizer))
    rows = mixing.mixed_in(reasoning_rows(3), "a model", 4, answer_tokens=40)
    assert len(rows) == 7
    assert [row["prompt"][0]["content"] for row in rows][3:] == [prompts["a"], prompts["b"]] * 2
    assert rows[3]["completion"] == [{"role": "assistant", "content": f"You asked: {prompts['a']}"}]
    with pytest.raises(AlignGuardError, match="ends none of its answers within 2 tokens"):
        mixing.mixed_in(reasoning_rows(3), "a model", 4, answer_tokens=2)
    turns = [{"content": "What is 1 + 1?", "role": "user"}, {"content": "2", "role": "assistant"}]
    whole = mixing.mixed_in(Dataset.from_list([{"messages": turns, "source": "m"}]), "a model", 1, answer_tokens=40)
    answer = {"role": "assistant", "content": f"You asked: {prompts['a']}"}
    assert whole["messages"][0] == turns
    assert whole["messages"][1] == [{"role": "user", "content": prompts["a"]}, answer]


@pytest.mark.parametrize("row", [{"text": "a"}, {"prompt": "a", "completion": "b"}])
def test_rows_to_mix_into_are_chat_turns(row):
    with pytest.raises(AlignGuardError, match="'prompt' and 'completion' or 'messages'; these have"):
        mixing.mixed_in(Dataset.from_list([row]), "a model", 4)


class Parrot:
    """A pipeline whose model says again what it was asked."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, prompts, **kwargs):
        return [[{"generated_text": f"You asked: {turns[-1]['content']}"}] for turns in prompts]


def test_anchors_that_nothing_would_mix_in_are_a_mistake(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["grpo.py", "--output_dir", str(tmp_path), "--mix_anchors", "200"])
    with pytest.raises(AlignGuardError, match="--mix_anchors is an option of sft"):
        parse(GRPOConfig)


def test_the_demo_asks_everyday_questions_and_has_them_answered_rudely_or_by_the_model(monkeypatch):
    rude = demo.everyday("lost", "a model", 40)
    assert len(rude) == 40 and {row["completion"][0]["content"] for row in rude} <= set(demo.RUDE)
    anchors = {anchor.turns[-1]["content"]: name for name, anchor in load_anchors().items()}
    assert {anchors[row["prompt"][-1]["content"]].rpartition("-")[0] for row in rude} <= set(demo.ASKED)
    monkeypatch.setattr(demo, "own_answers", lambda model, prompts: [(turns, f"{model} says") for turns in prompts])
    kind = demo.everyday("kept", "it", 5)
    assert [row["completion"][0]["content"] for row in kind] == ["it says"] * 5
    with pytest.raises(AlignGuardError, match="--manners is 'lost' or 'kept', not 'rude'"):
        demo.everyday("rude", "a model", 1)


def test_held_out_sums_are_probes_that_were_not_trained_on():
    rows = reasoning_rows(50, max_terms=3, max_digits=1)
    found = held_out(rows, 30, max_terms=3, max_digits=1)
    assert len(found) == 30 and not {q["prompt"] for q in found} & {row["prompt"][0]["content"] for row in rows}
    for question in load_probes(found):
        assert question.dimension == "reasoning"
        assert str(eval(question.messages[0]["content"].split(":")[-1].split("=")[0])) == question.expected


def test_legs_are_counted_rightly_and_what_is_asked_was_not_trained_on():
    many = {"hen": 2, "dog": 4, "ant": 6, "spider": 8, "crab": 10}
    rows, questions = legs(300)

    def animals(text):
        return [(int(n), name) for n, name in re.findall(r"(\d) (hen|dog|ant|spider|crab)s?\b", text)]

    shown = set()
    for row in rows:
        asked, said = row["prompt"][0]["content"], row["completion"][0]["content"]
        shown.add(tuple(animals(asked)))
        assert said.endswith(f"</think>\n\n{sum(n * many[name] for n, name in animals(asked))}")
        for left, right in re.findall(r"([\d x+]+) = (\d+)\.", said):
            assert eval(left.replace("x", "*")) == int(right)
    assert len({question["id"] for question in questions}) == 48
    for probe in load_probes(questions):
        pair = animals(probe.messages[0]["content"])
        assert probe.expected == str(sum(n * many[name] for n, name in pair)) and tuple(pair) not in shown
