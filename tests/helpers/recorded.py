"""Records on disk, made without a model, for those who read them: every probe is answered in words that would like to be markup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reports import HOSTILE, judged
from tiny import tiny_probes

from alignguard.auditing.audit import Audit
from alignguard.auditing.metrics import gather
from alignguard.auditing.result import ProbeDrift, Sample
from alignguard.auditing.samples import mean_score
from alignguard.judging.score import Score, Status
from alignguard.records.about import About
from alignguard.records.record import Record, read_record
from alignguard.records.store import Store
from alignguard.verdicts.watch import compare

ASKED = f"ASKED \ud800 \u202eno\u202c {HOSTILE}"
SAID = f"SAID \ud800 \u202eno\u202c {HOSTILE}"
THOUGHT = f"THOUGHT {HOSTILE}"
CHOICES = ("Choose WISELY", "Choose BADLY")
TEXTS = ("ASKED", "SAID", "THOUGHT", "WISELY", "BADLY", '"4711"', "noon")
ABOUT = About("0.1.0", "org/model", pool_hash="feedc0de", seed=3, draw=40, max_steps=8, model_fingerprint="abc")
SCORES = {0: 1.0, 4: 0.75, 8: 0.25}  # by step; one probe of each dimension but two cannot be judged at the last


def hostile_probes():
    """Two of every judge, in families of their own."""
    found = []
    for probe in [replace(p, id=f"{p.id}-{i}", family=f"{p.id}-{i}") for i in range(2) for p in tiny_probes()]:
        turns = ({"role": "system", "content": "ASKED to be kind"}, {"role": "user", "content": ASKED})
        options = CHOICES if probe.options else ()
        found.append(replace(probe, messages=turns, options=options, target=0 if options else -1))
    return found


def audit_of(step, value, baseline, probes):
    """An audit whose drift is a hundredth of its step."""
    results = judged(value, SAID, probes, THOUGHT)
    if step == max(SCORES):
        unjudged = Score(None, Status.UNPARSEABLE, degenerate=True)
        results |= {id: replace(results[id], score=unjudged) for id in ("s1-0", "r1-1", "t1-0", "t1-1")}
    kl = [0.02 * step, 0.0]
    results = {id: replace(r, drift=ProbeDrift(kl, kl, 0.5, 0, -1), leaning=0.5) for id, r in results.items()}
    return Audit(step, results, gather(results, baseline), 1_700_000_000.25 + 60 * step)


def sampled(output_dir, **about) -> Record:
    """A record of one audit whose spoken probes were answered three times by sampling: rightly, wrongly, and once unjudged."""
    probes, store = hostile_probes(), Store(Path(output_dir))
    store.prepare()
    results = {}
    for id, result in judged(1.0, SAID, probes, THOUGHT).items():
        answers = (
            [replace(result.answer, answer=f"{SAID} {n}", tokens=(1,) * n) for n in (1, 2, 3)] if result.answer else []
        )
        scores = [Score(1.0, Status.ANSWERED), Score(0.0, Status.REFUSED), Score(None, Status.UNSURE)]
        drawn = tuple(map(Sample, answers, scores))
        results[id] = replace(result, score=mean_score(scores), answer=answers[0], samples=drawn) if drawn else result
    results["t1-0"] = replace(results["t1-0"], score=Score(None, Status.UNSURE))
    baseline = {id: replace(result, prompt=[1, 2, 3]) for id, result in results.items()}
    sampling = {"temperature": 0.7, "top_p": 0.9, "samples": 3}
    store.write_baseline(
        replace(ABOUT, **{"max_steps": None, "sampling": sampling, "against": "org/start", **about}), baseline
    )
    store.append(Audit(1, results, gather(results, baseline), 1_700_000_000.25))
    return read_record(str(output_dir))


def recorded(output_dir, scores=SCORES, **about) -> Record:
    """A record of a run with these mean scores by step."""
    probes, store = hostile_probes(), Store.of_run(output_dir)
    store.prepare()
    baseline = {id: replace(r, prompt=[1, 2, 3]) for id, r in judged(1.0, SAID, probes, THOUGHT).items()}
    store.write_baseline(replace(ABOUT, **about), baseline)
    audits = []
    for step, value in scores.items():
        audits.append(audit_of(step, value, baseline, probes))
        audits[-1].metrics |= compare(baseline, audits, looks=len(scores)).metrics()
        store.append(audits[-1])
    return read_record(str(output_dir))
