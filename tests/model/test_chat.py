import logging

import pytest
from tiny import tiny_probes, tiny_tokenizer

from alignguard.auditing.prompts import render_choice
from alignguard.model.chat import Chat
from alignguard.model.forms import FAMILIES, split_trace

T = FAMILIES[0]


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("plain", False, ("", "plain", False, True)),
        ("<think>a</think>b", False, ("a", "b", True, True)),
        ("<think>\na\n</think>\n\nb", False, ("a", "b", True, True)),
        ("<think>a", False, ("a", "", True, False)),
        ("a</think>b", True, ("a", "b", True, True)),
        ("a", True, ("a", "", True, False)),
        ("a</think>b", False, ("a", "b", True, True)),  # a closing tag alone: what stands before it is no answer
        ("Sure. <think>a</think>b", False, ("a", "Sure. b", True, True)),
        ("<think></think>b", False, ("", "b", True, True)),
        ("<think>a</think>b<think>c", False, ("ac", "b", True, False)),
        ("<think>a</think>b</think>c", False, ("ab", "c", True, True)),
        ("", False, ("", "", False, True)),
    ],
)
def test_trace_and_answer_are_told_apart(text, inside, expected):
    assert split_trace(text, T, inside) == expected


def test_tags_are_found_in_the_template():
    template = "{{ messages[0]['content'] }}{# <|START_THINKING|> <|END_THINKING|> #}"
    assert Chat(tiny_tokenizer(template)).tags == ("<|START_THINKING|>", "<|END_THINKING|>")
    assert Chat(tiny_tokenizer()).tags == ("<think>", "</think>")
    assert Chat(tiny_tokenizer(template), tags=("[A]", "[B]")).tags == ("[A]", "[B]")


def test_a_tokenizer_without_template_is_asked_in_plain_text_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        chat = Chat(tiny_tokenizer(template=None))
    assert "no chat template" in caplog.text
    assert chat.text([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]) == (
        "System: Be kind.\n\nUser: Hi\n\nAssistant:"
    )


def test_template_arguments_reach_the_template():
    template = "{{ messages[0].content }} {{ 'on' if enable_thinking else 'off' }}"
    assert Chat(tiny_tokenizer(template), {"enable_thinking": True}).text([{"role": "user", "content": "x"}]) == "x on"
    assert Chat(tiny_tokenizer(template)).text([{"role": "user", "content": "x"}]) == "x off"


def test_a_template_without_system_turns_gets_them_in_the_first_user_turn():
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{{ m['content'] }}|{% endfor %}"
    )
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert Chat(tiny_tokenizer(template)).text(messages) == "S\n\nU|"


def test_prompts_that_open_a_trace_are_noticed():
    opens = Chat(tiny_tokenizer("{{ messages[0]['content'] }}<think>\n"))
    closes = Chat(tiny_tokenizer("{{ messages[0]['content'] }}<think>\n\n</think>\n\n"))
    message = [{"role": "user", "content": "x"}]
    assert opens.opens_trace(message) and not closes.opens_trace(message)
    asks = [{"role": "user", "content": "What does <think> mean?"}]
    assert not Chat(tiny_tokenizer()).opens_trace(asks)


def test_tags_that_are_special_tokens_are_still_seen():
    tokenizer = tiny_tokenizer(think_tokens=["<think>", "</think>"])
    chat = Chat(tokenizer)
    assert len(chat.open_ids()) == 1
    answer = chat.answer([*chat.encode("<think>a</think>b"), tokenizer.eos_token_id], False)
    assert (answer.trace, answer.answer, answer.finished) == ("a", "b", True)


def test_end_tokens_end_the_text(tokenizer):
    chat = Chat(tokenizer)
    assert chat.decode([*chat.encode("one"), tokenizer.eos_token_id, *chat.encode("two")]) == "one"


def test_the_empty_trace_begins_as_a_trace_does(tokenizer):
    chat = Chat(tokenizer)
    assert chat.closed_trace_ids()[: len(chat.open_ids())] == chat.open_ids()
    assert split_trace(chat.decode(chat.closed_trace_ids()), T) == ("", "", True, True)


def test_options_are_listed_in_the_order_given():
    probe = next(p for p in tiny_probes() if p.id == "b1")
    (turn,) = render_choice(probe, [2, 0, 1])
    assert turn["content"].endswith("- nobody knows\n- the old man\n- the boy")
