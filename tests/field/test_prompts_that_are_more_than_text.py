"""
People train on tables of tool calls, of turns in parts, with pictures, or with no content where a tool is called: rows as
`datasets` reads them, null in every field that another row has.

Oracle: TRL's own `apply_chat_template`, over the real templates in its package.
Before: a call's empty content was asked as 'None', parts as Python writes them, calls and tools not at all; a KeyError or
ProbeError ended the run for a statistic.
After: as TRL renders it; or left out, and it is said how many were and why.
"""

import logging
from pathlib import Path

import pytest
import trl
from datasets import Dataset
from runs import guard, lines
from tiny import tiny_model, tiny_tokenizer
from transformers import Trainer, TrainingArguments
from trl.data_utils import apply_chat_template

from alignguard.model.chat import Chat
from alignguard.trainer.train_prompts import prompt_of, sample_prompts

CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Graz"}}}
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY}}]
ASKED = {"role": "user", "content": "Weather in Graz?", "tool_calls": None, "name": None}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL], "name": None}
TOLD = {"role": "tool", "content": "19 degrees", "tool_calls": None, "name": "get_weather"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Weather in"}, {"type": "text", "text": " Graz?"}]}
PICTURE = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}


def spoken(name):
    return tiny_tokenizer((Path(trl.__path__[0]) / "chat_templates" / f"{name}.jinja").read_text())


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5", "llama3_1", "gptoss", "glm4moe", "gemma4"])
@pytest.mark.parametrize("turns", [[ASKED, CALLED, TOLD], [ASKED, CALLED, TOLD, {**ASKED, "content": "And tomorrow?"}]])
def test_calls_and_tools_are_rendered_as_trl_renders_them(name, turns):
    tokenizer = spoken(name)
    clean = [{key: value for key, value in turn.items() if value is not None} for turn in turns]
    expected = apply_chat_template({"prompt": clean}, tokenizer, tools=TOOLS)["prompt"]
    row = {"prompt": turns, "tools": TOOLS}
    assert tokenizer.decode(prompt_of(row, Chat(tokenizer))) == expected
    assert "19 degrees" in expected and expected.count("get_weather") > 1


def test_a_prompt_ends_where_the_model_speaks(tokenizer):
    chat = Chat(tokenizer)
    expected = chat.prompt_ids([{"role": "user", "content": "Weather in Graz?"}])
    for turns in ([ASKED], [PARTS], [ASKED, {"role": "assistant", "content": "Fine."}], [ASKED, CALLED]):
        assert prompt_of({"messages": turns}, chat) == expected


def test_a_template_of_parts_gets_parts():
    tokenizer = spoken("smolvlm")
    expected = apply_chat_template({"prompt": [PARTS]}, tokenizer)["prompt"]
    assert tokenizer.decode(prompt_of({"prompt": [PARTS]}, Chat(tokenizer))) == expected


ROWS = [
    {"prompt": [ASKED], "images": []},
    {"prompt": [PARTS], "images": None},
    {"prompt": [PICTURE]},
    {"prompt": [ASKED], "images": ["a picture"]},
    {"prompt": [ASKED, CALLED, TOLD], "tools": TOOLS},  # this template drops the call
    {"prompt": [ASKED, CALLED, {"role": "critic", "content": {"no": "text"}}]},
    {"prompt": "two " * 2000},
]


def test_what_cannot_be_rendered_is_left_out_and_said_once(tokenizer):
    told, chat = [], Chat(tokenizer)
    assert sample_prompts(ROWS, chat, 9, 0, tell=told.append).keys() == {"train-0", "train-1"}
    (line,) = told
    assert line.startswith(
        "AlignGuard: drift on training prompts is measured on 2; 5 were left out: 2 since they hold more"
    )
    assert "since the chat template leaves out a call of the tool get_weather" in line or line.endswith("; ...")
    told.clear()
    sample_prompts(ROWS[:2], chat, 9, 0, tell=told.append)
    assert not told


def test_rows_that_cannot_be_read_end_nothing(tokenizer):
    told, broken = [], {"prompt": [ASKED], "tools": "[{"}
    assert sample_prompts([broken] * 3, Chat(tokenizer), 2, 0, tell=told.append) == {}
    assert "measured on 0; 3 were left out: 3 since they cannot be read (JSONDecodeError: " in told[0]


@pytest.mark.parametrize("rows", [ROWS[:5], ROWS[2:5]])
def test_a_run_goes_on_whatever_its_rows_hold(rows, tokenizer, tmp_path, capsys, caplog):
    model = tiny_model(tokenizer, seed=1, scale=4.0)
    ids = tokenizer(["a b c"], return_tensors="pt")["input_ids"]
    learnt = {"input_ids": ids, "labels": ids}
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            remove_unused_columns=False,
        ),
        train_dataset=[{**row, "number": i} for i, row in enumerate(rows)],
        processing_class=tokenizer,
        data_collator=lambda some: learnt,
        callbacks=[guard()],
    )
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        trainer.train()
    caplog.records[:] = [record for record in caplog.records if "TokenBudget(answer=" not in record.getMessage()]
    asked = "alignguard/kl/train_prompts" in lines(tmp_path)[-1]["metrics"]
    assert asked == (rows == ROWS[:5]) and not caplog.records
    assert capsys.readouterr().out.count("AlignGuard: drift on training prompts is measured on") == 1


def test_a_table_that_writes_null_in_every_field(tokenizer):
    """`datasets` gives each turn the fields of all."""
    rows = Dataset.from_list([{"prompt": [ASKED]}, {"prompt": [ASKED, CALLED, {**TOLD, "name": "x"}]}])
    assert prompt_of(rows[0], Chat(tokenizer)) == Chat(tokenizer).prompt_ids(
        [{"role": "user", "content": "Weather in Graz?"}]
    )
