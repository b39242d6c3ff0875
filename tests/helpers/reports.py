"""Runs for reports, made without a model: scores by step, and words that would like to be markup."""

from __future__ import annotations

from dataclasses import replace

from tiny import tiny_probes

from alignguard.auditing.audit import Audit
from alignguard.auditing.metrics import gather, position_profile
from alignguard.auditing.result import ProbeDrift, Result
from alignguard.judging.score import Score, Status
from alignguard.model.chat import Answer
from alignguard.verdicts.watch import compare

HOSTILE = '</div></style><script>alert(1)</script><a href="javascript:alert(2)">x</a><img src=x onerror=alert(3)>"\'&'

MANY = [replace(p, id=f"{p.id}-{i}", family=f"{p.id}-{i}") for i in range(12) for p in tiny_probes()]


def judged(value, text, probes=None, trace=None):
    """Every probe answered with the same text, and of the same score."""
    answer = Answer((1,), text if trace is None else trace, text, True, True, True)
    found = {}
    for p in probes or tiny_probes():
        if p.judge == "choice":
            logprobs = [-2.0] * len(p.options)
            logprobs[0 if value >= 0.5 else 1] = -1.0
            found[p.id] = Result(p, Score(value, Status.ANSWERED), None, logprobs)
        else:
            detail = {"toxicity": 1 - value} if p.judge == "toxicity" else None
            found[p.id] = Result(p, Score(value, Status.ANSWERED, detail), answer)
    return found


def run_of(scores, before="kind", after="rude", probes=None, trace=None, **metrics):
    """A run whose audits have these mean scores by step, and whose drift is a hundredth of the step."""
    baseline = judged(1.0, before, probes, trace)
    audits = []
    for step, value in scores.items():
        results = judged(value, after if value < 0.5 else before, probes, trace)
        kl = [0.02 * step, 0.0]
        results = {id: replace(r, drift=ProbeDrift(kl, kl, 0.5, 0, -1)) for id, r in results.items()}
        figures = gather(results, baseline) | {f"alignguard/{k}": v * step for k, v in metrics.items()}
        audits.append(Audit(step, results, figures, 0.0, position_profile(results.values())))
    return audits, compare(baseline, audits, looks=max(1, len(audits)))
