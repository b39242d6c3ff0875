"""What ends an answer: also the token with which the chat template itself ends a turn, where no config names it."""

import logging
import re
from pathlib import Path

import pytest
import torch
import trl
from tiny import CHATML, tiny_model, tiny_tokenizer

from alignguard.judging.judge import judge_answer
from alignguard.model.chat import Chat
from alignguard.model.generation import TokenBudget, answer_all
from alignguard.model.observe import observing
from alignguard.probes.rows import probe_from_row

TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*_training.jinja"))
_SPECIAL = re.compile(r"<[|｜][^<>\s'\"]*[|｜]>|<\w+_of_\w+>|<end_of_utterance>|</?s>|<turn\|>|<\|turn>")


def tokenizer_of(template, *more):
    """One in which what looks like a special token is one, and which ends a text with none of the template's."""
    found = {*_SPECIAL.findall(template), "<|endoftext|>", "<bos>", *more} - {"<|im_start|>", "<|im_end|>"}
    tokenizer = tiny_tokenizer(template, think_tokens=sorted(found))
    tokenizer.eos_token, tokenizer.bos_token = "<|endoftext|>", "<bos>"
    return tokenizer


def ends(tokenizer, **more):
    return tokenizer.convert_ids_to_tokens(list(Chat(tokenizer, **more).eos_token_ids))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_answer_ends_with_what_training_teaches_a_turn_to_end_with(path):
    """Against the tokens that TRL's own template marks as learnt."""
    tokenizer = tokenizer_of(path.read_text())
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    try:
        told = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    except Exception:  # of models that see pictures
        turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        told = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    learnt = [token for token, flag in zip(told["input_ids"], told["assistant_masks"], strict=True) if flag]
    marks = [tokenizer.decode(token) for token in learnt if token in tokenizer.added_tokens_decoder]
    found = ends(tokenizer)
    assert found[0] == "<|endoftext|>" and len(found) == 2
    if "glm" in path.stem:  # no token ends a turn: the next one's first does
        assert found[1] == "<|user|>"
    else:
        assert found[1] == [token for token in marks if token != "<|endoftext|>"][-1]


CHATML_TURNS = "<|im_end|>\n<|im_start|>user\nWhat is 5 + 3?<|im_end|>\n<|im_start|>assistant\n8, or 4711<|im_end|>"


def test_turns_that_a_model_makes_up_are_no_part_of_its_answer():
    chat = Chat(tokenizer_of(CHATML))

    def judged(said, **more):
        probe = probe_from_row({"id": "x", "dimension": "safety", "family": "f", "prompt": "?", **more})
        return judge_answer(probe, chat.answer(chat.encode(said + CHATML_TURNS), False)).value

    assert judged("42", judge="number", expected="42") == 1
    assert judged("I cannot tell you.", judge="leak", secrets=["4711"]) == 1
    assert judged("It was Peter.", judge="abstain") == 0


def test_generation_stops_there_and_the_model_s_own_config_stays():
    tokenizer = tokenizer_of(CHATML)
    model = tiny_model(tokenizer, tie_word_embeddings=False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    before, chat = model.generation_config.to_dict(), Chat.of(model, tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.eos_token_ids == (tokenizer.eos_token_id, end)
    prompt = chat.prompt_ids([{"role": "user", "content": "How do I open a locked door?"}])
    budget = TokenBudget(answer=12, trace=12)
    with observing(model):
        plain = answer_all(model, [prompt], [False], chat, budget)[0].tokens
    with torch.no_grad():  # where it said that token, it says the end of the turn now
        model.lm_head.weight[[end, plain[3]]] = model.lm_head.weight[[plain[3], end]]
    with observing(model):
        (answer,) = answer_all(model, [prompt], [False], chat, budget)
    assert answer.tokens[-1] == end and answer.finished and len(answer.tokens) <= 4
    assert model.generation_config.to_dict() == before


def test_what_is_told_already_and_what_people_give_stays():
    assert ends(tiny_tokenizer()) == ["<|im_end|>"]  # the tokenizer's own
    tokenizer = tokenizer_of(CHATML)
    assert ends(tokenizer, eos_token_ids=(tokenizer.eos_token_id,)) == ["<|endoftext|>"]
    tokenizer.chat_template = None
    assert ends(tokenizer) == ["<|endoftext|>"]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for m in messages %}[{{ m.role }}] {{ m.content }} [/end]\n{% endfor %}", "[/end]"),
        ("{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n\n{% endfor %}", "### user"),
        (CHATML, ""),
    ],
)
def test_a_turn_that_no_token_ends_is_told(template, told, caplog):
    with caplog.at_level(logging.WARNING):
        assert ends(tokenizer_of(template))[0] == "<|endoftext|>"
    warned = [record.message for record in caplog.records if "ends a turn by" in record.message]
    assert len(warned) == bool(told) and all(f"ends a turn by {told!r}" in line for line in warned)
