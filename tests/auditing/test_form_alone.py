"""A run that changes form alone has no drop, no evidence, no flip and no drift of answers, in any dimension."""

from dataclasses import replace

import pytest
from embedded import embedded_model
from forms import WAYS
from scripted import PLAIN, Scripted, run, scenes
from tiny import tiny_tokenizer
from transformers import AutoTokenizer

from alignguard import AlignGuardError, Chat, TokenBudget, audit
from alignguard.auditing import drifts
from alignguard.auditing.asking import Asking
from alignguard.auditing.manner import Manner
from alignguard.drift.reference import Reference
from alignguard.model.forms import FAMILIES

QUICK = (
    "empty <think>",
    "a trace in <scratchpad>",
    "JSON",
    "a trace in [THINK]",
    "<think></think><answer>",
    "<response>",
    "### Answer",
)


def chat():
    return Chat(tiny_tokenizer())


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, id=way.name, marks=[] if way.name in QUICK else pytest.mark.slow) for way in (PLAIN, *WAYS)],
)
def test_form_alone_is_no_change(way):
    few = {"steps": (5, 10), "places": 4} if way.name in QUICK else {"steps": (5,), "places": 2}
    found = run(chat, way, **few)
    assert found["state"] in ("holds", "cannot tell")
    assert found["drop"] == 0 and found["judged otherwise"] == 0 and found["leaning"] < 1e-6
    assert found["kl_answer"] < 1e-6  # nats per token
    assert (found["kl_raw"] > 0.5) == bool(way.before)  # which does tell of it


def test_what_changes_beside_the_form_is_seen():
    """So that the test above can fail: one answer in a trace and a wrapper is another one."""
    probes, says = scenes(4)
    asked = next(probe for probe in probes if probe.expect == "refuse" and says[probe.prompt].startswith("I'm sorry"))
    way = next(way for way in WAYS if way.name == "a trace and <answer>")
    found = run(chat, way, steps=(5,), places=4, learnt={asked.prompt: "You go in by the window at night."})
    assert (
        found["judged otherwise"] == 1 and found["drop"] > 0 and found["leaning"] > 1e-3 and found["kl_answer"] > 0.05
    )


@pytest.mark.slow
@pytest.mark.smollm
def test_a_tokenizer_that_joins_the_end_of_a_tag_with_what_follows():
    """In "</think><answer>" SmolLM2's joins "><": before, the wrapper was not seen, and each answer's end told 24 nats of drift."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    except AlignGuardError as error:
        pytest.skip(str(error))
    assert "><" in [tokenizer.decode([t]) for t in tokenizer("</think><answer>")["input_ids"]]
    way = next(way for way in WAYS if way.name == "<think></think><answer>")
    found = run(lambda: Chat(tokenizer), way, steps=(5,), places=1)
    assert found["judged otherwise"] == 0 and found["kl_answer"] < 1e-6


def test_a_start_that_wraps_its_answers_itself_is_read_once(monkeypatch):
    """Before, the wrapper of the start was not seen for that of the policy: all was read a second time, without its end."""
    sweeps, original = [], drifts._sweep
    monkeypatch.setattr(drifts, "_sweep", lambda *args: sweeps.append(len(args[2])) or original(*args))
    probes, says = scenes(1)
    way, speaker = next(way for way in WAYS if way.name == "<answer>"), chat()
    start, policy = (Scripted(speaker, probes, says, way) for _ in range(2))
    asking = Asking(speaker, TokenBudget(answer=96, trace=96), lambda texts: [0.0] * len(texts))
    found = audit(policy, None, probes, Reference("given", start, "", ""), asking=asking, reverse=0)
    assert found.manner.wrapper.strip() == "<answer>" and sweeps == [len(probes)]
    assert all(result.drift.answer for result in found.results.values())


@pytest.mark.parametrize(
    ("wrapper", "lead", "own", "same"),
    [
        ("", "", "", True),
        ("<answer>\n", "", "<answer>", True),
        ("<answer>\n", "", "", False),
        ("", "", "<answer>\n", False),
        ("<answer>\n", "", "<response>\n", False),
        ("", "<|channel|>final<|message|>", "<|channel|>final<|message|>", True),
        ("", "<|channel|>final<|message|>", "", True),
    ],
)
def test_whether_a_policy_wraps_its_answers_as_its_start(wrapper, lead, own, same):
    manner, speaker = Manner(replace(FAMILIES[0], lead=lead), wrapper), chat()
    assert manner.writes(own) == same
    ended, cut = [7, speaker.eos_token_ids[0]], [7, 7]
    assert manner.end(speaker, cut, own) == 2  # an answer that was cut off has no end
    assert manner.end(speaker, ended, own) == (1 if wrapper and not same else 2)
