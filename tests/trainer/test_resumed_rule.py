"""A run that is resumed with another rule, or to another last step, has that on record: reports come to the verdict that it has."""

import json

import pytest
from planted import Turns, planted, slow

from alignguard import AlignGuardError, StopRule
from alignguard.records.record import read_record


def agrees(folder, callback):
    """What is on disk comes to the verdict that the run has."""
    record, told = read_record(str(folder)), json.loads((folder / "alignguard" / "baseline.json").read_text())
    ours, theirs = ((v.step, v.since, v.last_aligned_step, v.metrics()) for v in (callback.run.verdict, record.verdict))
    assert json.dumps(ours) == json.dumps(theirs)
    assert record.about.stop_rule == (callback.settings.stop or StopRule(stop=False, checkpoint=False))
    assert told["max_steps"] == callback.run.context.last and told["scores"]
    return record


def begun(tokenizer, folder, rule=None, **settings):
    """A run of three steps that comes out well."""
    callback = planted(audits=99, stop=rule, **settings)
    slow(tokenizer, folder, [callback], max_steps=3, save_strategy="steps", save_steps=3).train()
    agrees(folder, callback)


_ALL = "; all audits on record are judged by it, those before too"
_LOOSER = " (looser, and chosen after looking: it calls a regression in more sound runs than its alpha says)"
RULES = {
    "another": (
        StopRule(alpha=0.2, floors={"ethics": 0.5}),
        "alpha 0.05 -> 0.2, floors none -> ethics 0.5" + _ALL + _LOOSER,
    ),
    "stricter": (StopRule(min_drop=0.9), "min_drop 0.03 -> 0.9" + _ALL),
    "a floor": (
        StopRule(min_drop=0.9, floors={"toxicity": 0.5}),
        "min_drop 0.03 -> 0.9, floors none -> toxicity 0.5" + _ALL,
    ),
    "looser": (
        StopRule(min_drop=0.01, patience=2, stop=False),
        "min_drop 0.03 -> 0.01, patience 1 -> 2" + _ALL + _LOOSER,
    ),
    "the same": (StopRule(stop=False), ""),
    "none": (None, ""),
}


@pytest.mark.parametrize("name", RULES)
def test_a_run_that_is_resumed_with_another_rule_has_it_on_record(tokenizer, tmp_path, capsys, name):
    """And a last step, if it is prolonged: a report made of what is on disk told of the old rule's regression, at step 9 of 3."""
    begun(tokenizer, tmp_path)
    rule, told = RULES[name]
    callback = planted(audits=1, stop=rule)
    capsys.readouterr()
    slow(tokenizer, tmp_path, [callback], max_steps=9).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    record = agrees(tmp_path, callback)
    assert [audit.step for audit in record.audits] == [*range(callback.run.verdict.step + 1)]
    assert (record.verdict.since == {}) == (name == "stricter")
    said = [line for line in capsys.readouterr().out.splitlines() if "the rule is another" in line]
    assert said == ([f"AlignGuard: from step 3 on the rule is another: {told}"] if told else [])


def test_a_record_whose_run_is_not_resumed_stays_as_it_was(tokenizer, tmp_path):
    """A rule by which it has regressed already is refused, and was not written down."""
    begun(tokenizer, tmp_path, StopRule(min_drop=0.9), toxicity=Turns(2))
    about = tmp_path / "alignguard" / "baseline.json"
    before = about.read_bytes()
    with pytest.raises(AlignGuardError, match="this run is resumed after it"):
        slow(tokenizer, tmp_path, [planted(stop=StopRule())], max_steps=9).train(resume_from_checkpoint=True)
    assert about.read_bytes() == before
