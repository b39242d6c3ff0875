"""One round of questions: `audit(model, tokenizer, probes, reference) -> Audit`.

drift    one teacher-forced pass of both models over the reference's own answers
choices  one teacher-forced pass over the options
answers  generated, from where the policy first departs from the reference's answer
scores   judged, and gathered under the names that are logged
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .ask import Asking, ProbeDrift, Result, ask_baseline, ask_choices, turns
from .chat import Chat
from .errors import StartError
from .gather import gather
from .generation import answer_all
from .measure import measure_drift
from .observe import observing
from .probes import load_probes
from .reference import Reference
from .scoring import judge, judge_choice
from .scoring.toxicity import default_toxicity


@dataclass
class Audit:
    """
    One round of questions at one step.

    Args:
        step (`int`):
            The optimizer step after which it was taken.
        results (`dict[str, Result]`):
            By probe id.
        metrics (`dict[str, float]`):
            Under the names that are logged, `alignguard/...`.
        time (`float`):
            Seconds since the epoch at its end.
    """

    step: int
    results: dict[str, Result]
    metrics: dict[str, float]
    time: float


def audit(
    model: Any,
    tokenizer: Any,
    probes: str | Sequence[Any] = "core",
    reference: Any = None,
    *,
    baseline: dict[str, Result] | None = None,
    asking: Asking | None = None,
    step: int = 0,
) -> Audit:
    """
    Ask a model trust probes, and hold it against a reference.

    Args:
        model (`PreTrainedModel`):
            The model that is audited.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        probes (`str` or `Sequence`, *optional*, defaults to `"core"`):
            As for [`load_probes`].
        reference (`Reference` or `PreTrainedModel`):
            The model it is held against.
        baseline (`dict[str, Result]`, *optional*):
            What the reference answered before; what is missing is asked and added.
        asking (`Asking`, *optional*):
            How probes are asked and judged.
        step (`int`, *optional*, defaults to `0`):
            For the record.

    Returns:
        [`Audit`]: results by probe, and metrics under the names that are logged.

    Example:
    ```python
    >>> from alignguard import audit
    >>> result = audit(trained, tokenizer, ["safety", "privacy"], reference=instruct)
    >>> result.metrics["alignguard/safety/drop"], result.metrics["alignguard/kl/answer"]
    ```
    """
    if reference is None:
        raise StartError("audit: give reference=, the model before training")
    if not isinstance(reference, Reference):
        reference = Reference("copy", reference, "as given")
    pool = load_probes(probes)
    asking = asking or Asking(Chat.of(model, tokenizer), toxicity=default_toxicity())
    baseline = {} if baseline is None else baseline
    start = time.perf_counter()
    missing = [probe for probe in pool if probe.id not in baseline]
    if missing:
        with reference.loaded() as frozen:
            baseline |= ask_baseline(frozen, missing, asking)

    chat = asking.chat
    with observing(model, reference.model, autocast=asking.autocast):
        drifts = measure_drift(model, reference, pool, baseline, asking)
        thinks = [id for id, drift in drifts.items() if drift.thinks >= 0.5]
        choices = [probe for probe in pool if probe.judge == "choice"]
        others = [probe for probe in pool if probe.judge != "choice"]
        logprobs = ask_choices(model, choices, asking, thinks) if choices else {}
        messages = [turns(probe) for probe in others]
        answers = answer_all(
            model,
            [chat.prompt_ids(m) for m in messages],
            [chat.opens_trace(m) for m in messages],
            chat,
            asking.budget,
            drafts=[_draft(baseline[probe.id], drifts[probe.id]) for probe in others],
            tick=asking.tick,
        )
    results: dict[str, Result] = {}
    said = {probe.id: answer for probe, answer in zip(others, answers, strict=True)}
    for probe in pool:
        answer, options = said.get(probe.id), logprobs.get(probe.id)
        if answer is not None:
            score = judge(probe, answer, asking.toxicity)
        else:
            score = judge_choice(probe, options or [])
        results[probe.id] = Result(probe, score, answer, options, drifts[probe.id])
    metrics = gather(results, baseline)
    metrics["alignguard/cost/seconds"] = time.perf_counter() - start
    metrics["alignguard/cost/tokens"] = float(sum(len(answer.tokens) for answer in answers))
    return Audit(step, results, metrics, time.time())


def _draft(result: Result, drift: ProbeDrift) -> list[int]:
    """What the policy would say too, and the token with which it departs. A trace closed by force is no draft."""
    if result.answer is None or result.answer.forced:
        return []
    same = list(result.answer.tokens[: drift.same])
    return same if drift.departs < 0 else [*same, drift.departs]
