"""An overhead that people can set: which audits are taken, what stands in for the others, and that it is the same twice."""

import json
import time
from dataclasses import replace

import pytest
import torch
from oracles import oracle, own_logits
from runs import guard, lines, sft
from tiny import tiny_probes
from transformers import TrainerCallback

import alignguard.trainer.pace as paces
import alignguard.trainer.run as runs
from alignguard import AlignGuardError, Schedule
from alignguard.auditing.asking import Asking
from alignguard.auditing.audit import Audit, audit
from alignguard.auditing.pulse import pulse
from alignguard.drift.reference import freeze_start
from alignguard.model.chat import Chat
from alignguard.model.forward import Row
from alignguard.model.generation import TokenBudget
from alignguard.trainer.clock import Clock
from alignguard.trainer.pace import AUDIT, NOTHING, PULSE, Pace, told_failed

PLANNED = Schedule().planned(1000)


def walk(pace, step_seconds=1.0, audit_seconds=10.0, pulse_seconds=0.5):
    """A whole run on a clock of our own."""
    for step in range(1, pace.last):
        pace.trained = step * step_seconds
        if pace.asks(step):
            did = pace.decide(step)
            if did != NOTHING:
                pace.took(did, {AUDIT: audit_seconds, PULSE: pulse_seconds}[did])
    return [step for step, did in pace.decided.items() if did == AUDIT]


@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.0, 10.0, 20.0, 49.0, 500.0])
@pytest.mark.parametrize("overhead", [0.02, 0.05, 0.3])
def test_looking_keeps_to_its_share_and_makes_use_of_it(seconds, overhead):
    pace = Pace(overhead, PLANNED, 1000, audit=seconds, pulse=0.05 * seconds)
    taken = walk(pace, audit_seconds=seconds, pulse_seconds=0.05 * seconds)
    room = overhead / (1 - overhead) * 1000
    assert pace.looked <= room + 1e-9
    assert pace.share <= overhead + 1e-9
    planned = len(pace.planned)
    # as many audits as are planned, or as fit, save what pulses took
    assert len(taken) >= min(planned, int((room - 50 * 0.05 * seconds) // seconds) - 1)
    if room >= (planned + 5) * seconds:
        assert taken == pace.planned


def test_the_first_is_taken_early_and_the_others_as_they_are_paid_for():
    taken = walk(Pace(0.05, PLANNED, 1000, audit=10.0, pulse=0.1), pulse_seconds=0.1)
    assert taken[0] == 5 and len(taken) in (4, 5)
    assert max(b - a for a, b in zip(taken, [*taken[1:], 1000], strict=True)) <= 500


def test_what_is_never_affordable_is_never_taken_and_pulses_stand_in():
    pace = Pace(0.05, PLANNED, 1000, audit=500.0, pulse=0.1)
    assert walk(pace, pulse_seconds=0.1) == []
    assert list(pace.decided.values()).count(PULSE) >= 45


def test_slower_audits_are_taken_less_often():
    pace = Pace(0.05, PLANNED, 1000, audit=1.0, pulse=0.01)
    for step in range(1, 1000):
        pace.trained = float(step)
        if pace.asks(step) and (did := pace.decide(step)) != NOTHING:
            pace.took(did, 0.01 if did == PULSE else 1.0 if step < 100 else 20.0)
    assert pace.looked <= 0.05 / 0.95 * 1000 + 20  # one audit that was slower than the last foretold


def test_what_was_decided_is_decided_alike_when_resumed():
    first = Pace(0.05, PLANNED, 1000, audit=10.0, pulse=0.5)
    record = []
    for step in range(1, 600):
        first.trained = float(step)
        if first.asks(step):
            did = first.decide(step)
            record.append(first.line(step))
            if did != NOTHING:
                first.took(did, 10.0 if did == AUDIT else 0.5)
    again = Pace(0.05, PLANNED, 1000)
    again.resume(record, 310)  # the last line is of step 300
    assert again.trained == pytest.approx(310.0)
    again.resume(record, 300)
    assert again.trained == 300 and 0 < again.looked < first.looked
    for step in range(301, 600):  # on a machine five times as slow
        again.trained = 5.0 * step
        if again.asks(step):
            assert again.decide(step) == first.decided[step]


def test_steps_that_are_named_are_taken_as_they_are_written():
    assert Schedule().overhead == 0.05 and Schedule(draw=6).overhead == 0.05
    assert Schedule(at=(8, 16)).overhead is None and Schedule(every=50).overhead is None
    assert Schedule(at=(8, 16), overhead=0.1).overhead == 0.1 and Schedule(overhead=None).overhead is None
    assert (Schedule(at=[3]).at, Schedule(at=[3]).every, Schedule(every=7).at) == ((3,), 100, (5, 10, 20, 40, 80))
    assert replace(Schedule(), draw=3) == Schedule(draw=3)
    for share in (0.0, 1.0, 5, -0.1, -1.0, "5%"):
        with pytest.raises(AlignGuardError, match=f"'overhead' is a share between 0 and 1, or None, not {share!r}"):
            Schedule(overhead=share)
    with pytest.raises(AlignGuardError, match="'every' is 0 or more"):
        Schedule(every=-1)


def test_a_run_leaves_out_what_does_not_fit_and_says_so(tokenizer, tmp_path, capsys):
    schedule = Schedule(at=(1, 2, 3), every=0, draw=2, overhead=0.01)
    sft(tokenizer, tmp_path, [guard(schedule=schedule)], max_steps=4).train()
    assert [line["step"] for line in lines(tmp_path)] == [0, 4]  # audits take longer than all of this training
    said = capsys.readouterr().out
    assert "at most 5 audits" in said and "at most 1% of the run's time" in said
    assert ", 0 of 3 planned between the first and the last, and" in said
    decided = [json.loads(line) for line in (tmp_path / "alignguard" / "pace.jsonl").read_text().splitlines()]
    assert [line["step"] for line in decided] == [1, 2, 3]
    assert json.loads((tmp_path / "alignguard" / "baseline.json").read_text())["overhead"] == 0.01
    assert lines(tmp_path)[-1]["metrics"]["alignguard/cost/overhead"] <= 0.01


def test_a_generous_overhead_takes_all_that_is_planned(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(paces.Pace, "_decide", lambda self, step: AUDIT)
    schedule = Schedule(at=(2,), every=0, draw=2, overhead=0.9)
    sft(tokenizer, tmp_path, [guard(schedule=schedule)], max_steps=3).train()
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]


@pytest.mark.parametrize("affords", [True, False])
def test_the_last_audit_asks_the_whole_pool_where_that_fits(tokenizer, tmp_path, monkeypatch, affords):
    monkeypatch.setattr(Pace, "affords", lambda self, seconds: affords)
    monkeypatch.setattr(Pace, "_decide", lambda self, step: AUDIT)
    pool = [
        replace(p, id=f"{p.id}-{i}", family=f"{p.id}-{i}")
        for i in range(3)
        for p in tiny_probes()
        if p.judge == "choice"
    ]
    schedule = Schedule(at=(1, 2), every=0, draw=1, overhead=0.5)
    sft(tokenizer, tmp_path, [guard(probes=pool, schedule=schedule)], max_steps=3).train()
    asked = [set(line["scores"]) for line in lines(tmp_path)]
    assert asked[0] == asked[1] and not asked[1] & asked[2]  # nothing twice, and what the start was asked first
    assert asked[3] == {p.id for p in pool} if affords else len(asked[3]) == len(asked[1])


def test_what_is_left_when_a_run_ends_is_what_the_last_audit_may_take():
    pace = Pace(0.5, PLANNED, 1000, trained=100.0, looked=40.0)
    assert pace.affords(60.0) and not pace.affords(61.0)


def test_a_pulse_changes_nothing_and_is_on_record(tokenizer, tmp_path, monkeypatch):
    """The same weights and losses as a run without it, with dropout; one line each, and none left of a future that is not."""
    monkeypatch.setattr(paces.Pace, "_decide", lambda self, step: PULSE)
    alone = sft(tokenizer, tmp_path / "alone", [], max_steps=4)
    alone.train()
    schedule = Schedule(at=(2,), every=0, draw=2, overhead=0.5)
    watched = sft(tokenizer, tmp_path, [guard(schedule=schedule)], max_steps=4, save_strategy="steps", save_steps=2)
    watched.train()
    for ours, theirs in zip(watched.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    pulses = [json.loads(line) for line in (tmp_path / "alignguard" / "pulses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in pulses] == [1, 2, 3]
    assert all(0 < line["metrics"]["alignguard/pulse/kl"] < 10 for line in pulses)
    assert "pulse (answer, a few probes)" in (tmp_path / "_alignguard" / "report.html").read_text()
    again = sft(tokenizer, tmp_path, [guard(schedule=schedule)], max_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    pulses = [json.loads(line) for line in (tmp_path / "alignguard" / "pulses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in pulses] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["copy", "offload"])
def test_a_pulses_figures_are_the_models_own(model, other, tokenizer, kind):
    asking = Asking(Chat(tokenizer), TokenBudget(answer=12, trace=24), lambda texts: [0.1] * len(texts))
    reference, baseline, probes = freeze_start(model, kind), {}, tiny_probes()
    audit(model, None, probes, reference, baseline=baseline, asking=asking)
    found = pulse(other, probes, reference, baseline, asking, None)
    whole = audit(other, None, probes, reference, baseline=baseline, asking=asking)
    kls, same = [], []
    for probe in probes:
        drift, answer = whole.results[probe.id].drift, baseline[probe.id].answer
        context = baseline[probe.id].prompt or asking.chat.prompt_ids(probe.messages)
        row = Row(context, answer.tokens)
        kls.append(float(oracle(own_logits(model, row), own_logits(other, row)).mean()))
        same.append(drift.same / len(answer.tokens))
    if all(result.drift.thinks < 0.5 for result in whole.results.values()):
        assert found["alignguard/pulse/kl"] == pytest.approx(sum(kls) / len(kls), rel=1e-4)
    assert found["alignguard/pulse/same"] == pytest.approx(sum(same) / len(same))
    chosen = [r.score.value for r in whole.results.values() if r.probe.judge == "choice"]
    assert found["alignguard/pulse/choices"] == pytest.approx(sum(chosen) / len(chosen))
    margins = [r.score.detail["margin"] for r in whole.results.values() if (r.score.detail or {}).get("margin")]
    assert found["alignguard/pulse/refusal_margin"] == pytest.approx(sum(margins) / len(margins), rel=1e-4)


def test_a_start_on_the_cpu_stays_there_while_what_it_said_is_known(model, other, tokenizer, monkeypatch):
    asking = Asking(Chat(tokenizer), TokenBudget(answer=12, trace=24), lambda texts: [0.1] * len(texts))
    reference, baseline, moved = freeze_start(model, "offload"), {}, []
    audit(model, None, tiny_probes(), reference, baseline=baseline, asking=asking)
    monkeypatch.setattr(type(reference.model), "to", lambda self, *args, **kw: moved.append(args) or self)
    pulse(other, tiny_probes(), reference, baseline, asking, None)
    assert moved == [("cpu",)]  # back, at the end, from where it is


class SlowSteps(TrainerCallback):
    """Before ours in the list: tells how long it was from the beginning of training to the end of the latest step."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun = time.perf_counter()

    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(0.2)

    def on_step_end(self, args, state, control, **kwargs):
        self.took = time.perf_counter() - self.begun


@pytest.mark.parametrize("overhead", [None, 0.99])
def test_the_share_of_a_resumed_run_is_that_of_the_whole_run(tokenizer, tmp_path, overhead):
    """Audits of 0.4 s and more before; six steps of 0.2 s and a quick audit after."""
    wait, saved = [0.4], {"save_strategy": "steps", "save_steps": 4}

    def scored(texts):
        time.sleep(wait[0])
        return [0.1] * len(texts)

    def run(last, **how):
        schedule = Schedule(at=(1, 2), every=0, draw=1, overhead=overhead)
        callback, slow = guard(schedule=schedule, toxicity=scored, train_prompts=0), SlowSteps()
        sft(tokenizer, tmp_path, [slow, callback], max_steps=last, **saved).train(**how)
        return callback, slow.took + lines(tmp_path)[-1]["metrics"]["alignguard/cost/seconds"]

    first, before = run(4)
    wait[0] = 0.0
    second, after = run(10, resume_from_checkpoint=True)
    found = [line["metrics"] for line in lines(tmp_path)]
    spent = sum(metrics["alignguard/cost/seconds"] for metrics in found)
    assert found[-1]["alignguard/cost/share"] == pytest.approx(spent / (before + after), rel=0.1)
    assert spent > 1.2 and spent / (before + after) > 2 * found[-1]["alignguard/cost/seconds"] / after
    if overhead is not None:
        assert second.run.pace.looked >= first.run.pace.looked > 0.7


def test_what_was_trained_between_an_audit_and_the_checkpoint_is_counted():
    """0, 100: 5 of 10 s were audits at step 0, 10 of 115 s at step 100, so that 100 steps took 100 s; resumed at 300."""
    audits = [
        Audit(step, {}, {"alignguard/cost/seconds": 5.0, "alignguard/cost/share": share}, 0.0)
        for step, share in ((0, 5 / 10), (100, 10 / 115))
    ]
    clock = Clock()
    clock.resume(audits, [], 300)
    assert clock.spent == 10.0 and clock.total == pytest.approx(315.0, abs=0.5)
    clock = Clock()  # a line of the pace knows it better, and one of a future that is not knows nothing
    clock.resume(audits, [{"step": 300, "spent": 11.0, "total": 300.0}, {"step": 400, "spent": 1.0, "total": 2.0}], 300)
    assert clock.spent == 11.0 and clock.total == pytest.approx(300.0, abs=0.5)
    clock = Clock()
    clock.resume([], [{"step": 4, "did": "audit"}], 4)
    assert clock.spent == 0.0 and clock.total < 0.5


@pytest.mark.parametrize("overhead", [None, 0.99])
def test_audits_that_failed_are_not_counted_as_taken_and_are_told(tokenizer, tmp_path, monkeypatch, capsys, overhead):
    """Those of steps 1 and 3 of 1, 2 and 3 fail; the run is resumed at 3, and its audit is taken again there."""
    monkeypatch.setattr(Pace, "_decide", lambda self, step: AUDIT)
    real, fails = runs.audit, {1, 3}

    def audit(*args, step, **kwargs):
        if step in fails:
            raise RuntimeError("no memory")
        return real(*args, step=step, **kwargs)

    monkeypatch.setattr(runs, "audit", audit)
    schedule, saved = Schedule(at=(1, 2, 3), every=0, draw=2, overhead=overhead), {"save_strategy": "steps"}
    callback = guard(schedule=schedule)
    sft(tokenizer, tmp_path, [callback], max_steps=4, save_steps=3, **saved).train()
    said = capsys.readouterr().out
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 4]
    assert "AlignGuard: 3 audits" in said and "; 2 audits failed, at steps 1, 3\n" in said
    assert (overhead is None) == (", 1 of 3 planned between the first and the last, and 0 pulses: " not in said)
    if overhead is not None:  # a failure is quick, and foretells nothing
        assert callback.run.pace.audit >= callback.audits[1].figure("cost/seconds")
    fails.clear()
    again = sft(tokenizer, tmp_path, [guard(schedule=schedule)], max_steps=4, save_steps=3, **saved)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    said = capsys.readouterr().out
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 3, 4] and "AlignGuard: 4 audits" in said
    if overhead is not None:
        assert ", 2 of 3 planned between" in said and "; 1 audit failed, at step 1\n" in said


def test_what_failed_is_told_in_a_few_words():
    assert told_failed({}) == ""
    assert told_failed({3: PULSE, 2: AUDIT}) == "; 1 audit failed, at step 2; 1 pulse failed, at step 3"
    assert told_failed(dict.fromkeys(range(1, 10), AUDIT)) == "; 9 audits failed, at steps 1, 2, 3, 4, 5, 6, 7, 8, ..."
