"""The form that a policy has learnt stands before what its likelihoods are read from; form alone is no drop and no drift."""

import pytest
from forms import Way
from scripted import Scripted, scenes
from tiny import tiny_tokenizer

from alignguard import Chat, TokenBudget, audit
from alignguard.auditing.asking import Asking
from alignguard.auditing.manner import Manner, manner_of, unread_tag
from alignguard.auditing.prompts import answer_context
from alignguard.drift.reference import Reference
from alignguard.model.chat import Answer
from alignguard.model.forms import FAMILIES
from alignguard.probes import probe_from_row

THINK = FAMILIES[0]


def answers(chat, *texts):
    return [chat.answer([*chat.encode(text), *chat.eos_token_ids], False) for text in texts]


@pytest.mark.parametrize(
    ("texts", "form", "wrapper"),
    [
        (["yes", "no"], THINK, ""),
        (["<think>a</think>yes", "no"], THINK, ""),
        (["<think></think><answer>yes</answer>", "<think>b</think><answer>no</answer>"], THINK, "<answer>"),
        (["<answer>\nyes</answer>", "<answer>\nno</answer>", "maybe"], THINK, "<answer>\n"),
        (["<answer>yes</answer>", "no", "never"], THINK, ""),
        (["<reasoning>a</reasoning>Final Answer: yes"] * 2, FAMILIES[11], "Final Answer: "),
        ([], THINK, ""),
    ],
)
def test_a_habit_is_what_most_answers_show(tokenizer, texts, form, wrapper):
    chat = Chat(tokenizer)
    found = manner_of(answers(chat, *texts), chat)
    assert (found.form.open, found.wrapper) == (form.open, wrapper)


def test_what_stands_before_an_answer(tokenizer):
    chat = Chat(tokenizer)
    wrapped = Manner(THINK, "<answer>")
    assert chat.decode(wrapped.before(chat, True)) == "<think>\n\n</think>\n\n<answer>"
    assert chat.decode(wrapped.before(chat, False)) == "<answer>"
    assert chat.decode(wrapped.before(chat, True, inside=True)) == "\n</think>\n\n<answer>"
    assert Manner(THINK).before(chat, False) == []
    probe = probe_from_row(
        {"id": "a", "dimension": "safety", "family": "a", "judge": "refusal", "expect": "comply", "prompt": "Hi"}
    )
    assert answer_context(probe, chat, True, wrapped) == [*chat.prompt_ids(probe.messages), *wrapped.before(chat, True)]


def test_gpt_oss_answers_in_its_final_channel_with_and_without_a_trace(tokenizer):
    harmony = next(form for form in FAMILIES if form.family == "gpt-oss")
    chat = Chat(tokenizer)
    assert chat.decode(Manner(harmony).before(chat, False)) == "<|channel|>final<|message|>"
    assert (
        chat.decode(Manner(harmony, "<|channel|>final<|message|>").before(chat, True)) == "<|channel|>final<|message|>"
    )


@pytest.mark.parametrize(
    ("texts", "tag"),
    [
        (["<steps>\none\n</steps>\nYes.", "<steps>two</steps> No.", "Yes."], "steps"),
        (["<steps>one</steps> Yes.", "No.", "Yes."], ""),  # no habit
        (["<p>one</p> Yes."] * 3, ""),  # HTML
        (["<email>Dear Ines</email>"] * 3, ""),  # nothing stands beside it
        (["<steps>one, without an end"] * 3, ""),
        ([], ""),
    ],
)
def test_a_tag_that_most_answers_begin_with_is_told(texts, tag):
    assert unread_tag([Answer((1,), "", text, False, True, True) for text in texts]) == tag


def test_what_is_told_is_told_once(caplog):
    chat = Chat(tiny_tokenizer())
    probes, says = scenes(1)
    way = Way("steps", wrapper="<steps>I see.</steps> ")
    start, policy = Scripted(chat, probes, says), Scripted(chat, probes, says, way)
    asking, baseline = Asking(chat, TokenBudget(answer=96, trace=96), lambda texts: [0.0] * len(texts)), {}
    for model in (start, policy, policy):
        audit(model, None, probes, Reference("given", start, "", ""), baseline=baseline, asking=asking, reverse=0)
    told = [record.getMessage() for record in caplog.records if "<steps>" in record.getMessage()]
    assert told == [
        "AlignGuard: most answers begin with <steps> ... </steps>, which is judged as a part of them; if it is a trace, give "
        "tags=('<steps>', '</steps>')."
    ]
