"""
People use models whose chat template writes today's date into the prompt (Llama 3.2, gpt-oss, SmolLM3, Command A). A run that
goes on past midnight, or is resumed on another day, then holds answers of one prompt against a start that was asked another.

Oracle: the same run within one day.
Before: raw drift 0.1254 for 0.1278 past midnight, 0.2779 for 0.2695 resumed on the next day.
After: the same, to the bit.
"""

from datetime import datetime

import pytest
import transformers.utils.chat_template_utils as templates
from runs import guard, lines, sft
from tiny import CHATML, tiny_model, tiny_probes, tiny_tokenizer
from transformers import TrainerCallback

from alignguard import RunError
from alignguard.records.store import Store

DATED = "{{'<|im_start|>system\nToday is ' + strftime_now('%d %B %Y') + '.<|im_end|>\n'}}" + CHATML


@pytest.fixture
def calendar(monkeypatch):
    """What templates read the date from; a test writes another day into it."""
    day = [datetime(2026, 11, 30)]

    class Calendar(datetime):
        @classmethod
        def now(cls, tz=None):
            return day[0]

    monkeypatch.setattr(templates, "datetime", Calendar)
    return day


def trainer(output_dir, kind, callbacks=(), last=4):
    model = tiny_model(tiny_tokenizer(), seed=1, scale=4.0)
    saved = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    ours = [*callbacks, guard(reference=kind)]
    return sft(tiny_tokenizer(DATED), output_dir, ours, model=model, max_steps=last, **saved)


def assert_same(output_dir, other):
    found, expected = ([line["metrics"] for line in lines(folder)] for folder in (output_dir, other))
    for name in ("alignguard/kl/raw", "alignguard/kl/answer", "alignguard/safety/refusal_margin"):
        assert [metrics[name] for metrics in found] == [metrics[name] for metrics in expected], name


@pytest.mark.parametrize("kind", ["copy", "cache"])
def test_a_run_past_midnight(kind, calendar, tmp_path):
    class Midnight(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            calendar[0] = datetime(2026, 12, 1)

    trainer(tmp_path / "day", kind).train()
    trainer(tmp_path / "night", kind, [Midnight()]).train()
    assert_same(tmp_path / "night", tmp_path / "day")


@pytest.mark.parametrize("kind", ["copy", "cache"])
def test_a_run_resumed_on_another_day(kind, calendar, tmp_path):
    for name, day in (("day", calendar[0]), ("night", datetime(2026, 12, 1))):
        calendar[0] = datetime(2026, 11, 30)
        trainer(tmp_path / name, kind, last=2).train()
        resumed = trainer(tmp_path / name, kind)  # what it trains on is rendered here
        calendar[0] = day
        resumed.train(resume_from_checkpoint=True)
    assert_same(tmp_path / "night", tmp_path / "day")


def test_prompts_are_on_record_as_tokens(calendar, tmp_path):
    trained = trainer(tmp_path, "copy", last=2)
    trained.train()
    kept = Store.of_run(tmp_path).read_baseline(tiny_probes())
    texts = {id: trained.processing_class.decode(result.prompt) for id, result in kept.items()}
    assert all("Today is 30 November 2026." in text for text in texts.values()) and len(texts) == 9


def test_a_prompt_that_differs_in_more_than_its_date_is_an_error(calendar, tmp_path):
    trainer(tmp_path, "copy", last=2).train()

    class Holiday(datetime):
        def strftime(self, form):
            return "a holiday"

    calendar[0] = Holiday(2026, 12, 1)
    match = (
        r"baseline.json: probe 's1' is asked otherwise .*Today is 30 November 2026.*' then, .*Today is a holiday.*' now"
    )
    with pytest.raises(RunError, match=match):
        trainer(tmp_path, "copy").train(resume_from_checkpoint=True)
