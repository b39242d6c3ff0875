"""One round of questions: `audit(model, tokenizer, probes, reference) -> Audit`.

drift    one teacher-forced pass over the reference's own answers, against what that said there
choices  read in the same pass, and whatever else hangs on the same prompts, if the policy answers as it did last
answers  generated, from where the policy first departs from the reference's answer
scores   judged, and gathered under the names that are logged
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..distributed import compute_device
from ..drift.reference import Reference, given_reference, load_reference
from ..errors import StartError
from ..given import is_whole, need
from ..judging.scorers import default_toxicity
from ..model.chat import Answer, Chat
from ..model.generation import Draft
from ..model.loading import check_reference_tokenizer
from ..model.observe import memory_given_back, observing, restored_rng
from ..probes.draw import spread
from ..probes.pool import load_probes
from ..probes.probe import Probe
from .answers import ask_baseline, settle_form, speak, weigh
from .asking import Asking
from .drifts import Ahead, Item, items_of, measure_drift, opens_trace, read_as_told
from .figures import logged, named
from .leaning import likelihood_rows
from .manner import Manner, manner_of, unread_tag
from .metrics import gather, mean_drift, position_profile, tokens_said
from .prompts import encode_prompt, keep_prompts
from .reading import Told
from .result import ProbeDrift, Result
from .reverse import measure_reverse
from .samples import thinking
from .unjudged import training_items

logger = logging.getLogger(__name__)


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
        profile (`list[float]`, *optional*):
            Mean *answer* drift at each token of an answer, in nats, as far as a quarter of the answers reach.
        scores (`dict[str, float | None]`, *optional*):
            Of every probe; those of `results` by default. They are kept when the results of earlier audits are let go.
        unsure (`dict[str, tuple[float, float]]`, *optional*):
            Of unsure answers the scores of their two readings, the lower first; those of `results` by default.
        leaning (`dict[str, float]`, *optional*):
            Of every probe that has one, its leaning; those of `results` by default. It is kept like `scores`.
        manner ([`Manner`], *optional*):
            How the policy thought and wrapped its answers; not kept on record.
    """

    step: int
    results: dict[str, Result]
    metrics: dict[str, float]
    time: float
    profile: list[float] = field(default_factory=list)
    scores: dict[str, float | None] = field(default_factory=dict)
    unsure: dict[str, tuple[float, float]] = field(default_factory=dict)
    leaning: dict[str, float] = field(default_factory=dict)
    manner: Manner | None = None

    def __post_init__(self) -> None:
        self.scores = self.scores or {id: result.score.value for id, result in self.results.items()}
        found = {id: result.score.readings for id, result in self.results.items()}
        self.unsure = self.unsure or {id: readings for id, readings in found.items() if readings is not None}
        leanings = {id: result.leaning for id, result in self.results.items()}
        self.leaning = self.leaning or {id: leaning for id, leaning in leanings.items() if leaning is not None}

    def figure(self, key: str) -> float | None:
        """One of `metrics` by its key in the table of `figures.py`, e.g. `"kl/answer"`; `None` where this audit lacks it."""
        return self.metrics.get(logged(key))


def audit(
    model: Any,
    tokenizer: Any,
    probes: str | Sequence[Any] = "core",
    reference: Any = None,
    *,
    baseline: dict[str, Result] | None = None,
    asking: Asking | None = None,
    step: int = 0,
    reverse: int = 16,
    prompts: dict[str, list[int]] | None = None,
    last: Audit | None = None,
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
        reference (`Reference`, `PreTrainedModel` or `str`):
            The model it is held against; a path or hub id is loaded.
        baseline (`dict[str, Result]`, *optional*):
            What the reference answered before; what is missing is asked and added.
        asking (`Asking`, *optional*):
            How probes are asked and judged.
        step (`int`, *optional*, defaults to `0`):
            For the record.
        reverse (`int`, *optional*, defaults to `16`):
            On so many of the policy's own answers KL(policy || reference) is measured too; 0 for none.
        prompts (`dict[str, list[int]]`, *optional*):
            Training prompts to measure drift on, whose answers are in `baseline`.
        last ([`Audit`], *optional*):
            The one before, with its results: what is read ahead is what was asked then. It changes no figure.

    Returns:
        [`Audit`]: results by probe, and metrics under the names that are logged.

    Raises:
        StartError: There is no reference, it cannot be loaded or lacks weights, or it has another vocabulary.

    Example:
    ```python
    >>> from alignguard import audit
    >>> result = audit(trained, tokenizer, ["safety", "privacy"], reference=instruct)
    >>> result.metrics["alignguard/safety/drop"], result.metrics["alignguard/kl/answer"]
    ```
    """
    if reference is None:
        raise StartError("audit: give reference=, the model before training")
    speaks = hasattr(model, "config") and hasattr(model, "parameters")
    need(speaks, "the first argument is a model that is loaded", model, where="audit")
    need(is_whole(reverse, 0), "reverse= is a whole number, 0 or more", reverse, where="audit")
    right = asking is None or isinstance(asking, Asking)
    need(right, "asking= is None or an Asking, as Asking(Chat.of(model, tokenizer))", asking, where="audit")
    pool = load_probes(probes)
    settled, asking = asking is not None, asking or Asking(Chat.of(model, tokenizer), toxicity=default_toxicity())
    if isinstance(reference, (str, Path)):
        name, reference = str(reference), load_reference(model, str(reference))
        check_reference_tokenizer(name, asking.chat.tokenizer)
    if not isinstance(reference, Reference):
        reference = given_reference(model, reference)
    reference.check_tokens(model, len(asking.chat.tokenizer))
    baseline = {} if baseline is None else baseline
    keep_prompts(baseline.values(), asking.chat)
    begun, chat, ranks, device = time.perf_counter(), asking.chat, asking.ranks, compute_device(model)
    with restored_rng(), memory_given_back(device), reference.awake(device):  # scorers may draw too
        missing = [probe for probe in pool if probe.id not in baseline]
        if missing:
            with reference.loaded() as frozen:
                if not settled:  # who brings an `Asking` has seen to it
                    settle_form(frozen, missing, asking)
                baseline |= ask_baseline(frozen, missing, asking, reference.said)
        backwards = {probe.id for probe in spread([p for p in pool if p.judge != "choice"], reverse)}
        found, manner, mostly = _ask(model, reference, pool, baseline, asking, backwards, last)
        items = training_items(prompts or {}, baseline, chat)
        training: dict[str, ProbeDrift] = {}
        if items:
            training = ranks.share(
                items, lambda part: _train_drift(model, reference, part, baseline, asking, manner, mostly)
            )
    results = {probe.id: found[probe.id][0] for probe in pool}
    reverses = [kl for _, kl in found.values() if kl is not None]
    metrics = gather(results, baseline)
    if reverses:
        metrics |= named({"kl/reverse": sum(reverses) / len(reverses)})
    if any(drift.answer for drift in training.values()):  # else all were cut off in their traces: that is no drift of 0
        metrics |= named({"kl/train_prompts": mean_drift(training.values())})
    metrics[logged("cost/seconds")] = time.perf_counter() - begun
    metrics[logged("cost/tokens")] = tokens_said(results.values())
    return Audit(step, results, metrics, time.time(), position_profile(results.values()), manner=manner)


def _ask(
    model: Any,
    reference: Reference,
    pool: list[Probe],
    baseline: dict[str, Result],
    asking: Asking,
    backwards: set[str],
    last: Audit | None,
) -> tuple[dict[str, tuple[Result, float | None]], Manner, bool]:
    """
    Of each probe the result and, for those in `backwards`, the reverse drift; the policy's manner, and whether it thinks more
    often than not. Each process does its share, twice.
    """
    ranks, chat, told = asking.ranks, asking.chat, Told()
    ahead = replace(as_last(pool, baseline, last, chat), kept=backwards)
    first = ranks.share(pool, lambda part: _said(model, reference, part, baseline, asking, told, ahead))
    drifts = {id: drift for id, (drift, _) in first.items()}
    answers = {id: said for id, (_, said) in first.items() if said}
    # what a model does in most of its answers it would do before a choice, too
    everything = [answer for said in answers.values() for answer in said]
    if (tag := unread_tag(everything)) and tag not in chat.unread:
        chat.unread.add(tag)
        logger.warning(
            f"AlignGuard: most answers begin with <{tag}> ... </{tag}>, which is judged as a part of them; if it is a trace, give "
            f"tags=('<{tag}>', '</{tag}>')."
        )
    manner, habit = manner_of(everything, chat), [answer.thinks for answer in everything]
    mostly = sum(habit) > len(habit) / 2
    thinks = thinking(answers)
    thinks |= {id for id in drifts.keys() - answers.keys() if mostly or opens_trace(drifts[id], baseline[id], chat)}
    found = ranks.share(
        pool,
        lambda part: _weighed(
            model, reference, part, baseline, asking, told, drifts, answers, thinks, manner, backwards
        ),
    )
    return found, manner, mostly


def as_last(pool: Sequence[Probe], baseline: dict[str, Result], last: Audit | None, chat: Chat) -> Ahead:
    """What will be asked if the policy answers as it did last, or, where nobody has asked it yet, as its start did."""
    then = {id: result.answer for id, result in (last.results if last is not None else baseline).items()}
    answers = {id: answer for id, answer in then.items() if answer is not None}
    thinks = {id for id, answer in answers.items() if answer.thinks}
    if 2 * len(thinks) > len(answers):
        thinks |= {probe.id for probe in pool if probe.id not in answers}
    manner = last.manner if last is not None and last.manner is not None else manner_of(answers.values(), chat)
    rows = {p.id: likelihood_rows(p, chat, p.id in thinks, manner, baseline[p.id].opening) for p in pool}
    return Ahead(manner, thinks, rows)


def _said(
    model: Any,
    reference: Reference,
    pool: list[Probe],
    baseline: dict[str, Result],
    asking: Asking,
    told: Told,
    ahead: Ahead,
) -> dict[str, tuple[ProbeDrift, tuple[Answer, ...]]]:
    """Drift on the reference's answers, and what the policy says, drafted by it."""
    with observing(model, *reference.models, autocast=asking.autocast):
        drifts = measure_drift(model, reference, items_of(pool, baseline, asking.chat), asking, told, ahead)
    asking.tick(len(pool))
    spoken = [probe for probe in pool if probe.judge != "choice"]
    drafts = {p.id: _draft(baseline[p.id], drifts[p.id], asking.chat) for p in spoken}
    answers = speak(model, spoken, asking, drafts, ask=asking.engine() if asking.engine is not None else None)
    return {probe.id: (drifts[probe.id], answers.get(probe.id, ())) for probe in pool}


def _weighed(
    model: Any,
    reference: Reference,
    pool: list[Probe],
    baseline: dict[str, Result],
    asking: Asking,
    told: Told,
    drifts: dict[str, ProbeDrift],
    answers: dict[str, tuple[Answer, ...]],
    thinks: set[str],
    manner: Manner,
    backwards: set[str],
) -> dict[str, tuple[Result, float | None]]:
    """What was said is judged, choices are asked, and drift is read after the form that the policy has."""
    chat = asking.chat
    now: dict[str, ProbeDrift] = {}
    reverse: dict[str, float] = {}

    def read() -> None:
        with observing(*reference.models or (model,)):
            items, raw = items_of(pool, baseline, chat), {p.id: drifts[p.id] for p in pool}
            now.update(read_as_told(model, reference, items, raw, manner, thinks, asking, told))
            if reference.models:
                mine = [(p, *encode_prompt(p, chat)) for p in pool if p.id in backwards and p.id in answers]
                own = [Item(p.id, context, answers[p.id][0], inside) for p, context, inside in mine]
                reverse.update(measure_reverse(model, reference, own, asking, told))

    own = {probe.id: baseline[probe.id].opening for probe in pool}
    found = weigh(model, pool, asking, answers, thinks, manner, own, told, read)
    return {id: (replace(result, drift=now[id]), reverse.get(id)) for id, result in found.items()}


def _train_drift(
    model: Any,
    reference: Reference,
    items: Sequence[Item],
    baseline: dict[str, Result],
    asking: Asking,
    manner: Manner,
    mostly: bool,
) -> dict[str, ProbeDrift]:
    """Drift on training prompts, read after the form that the policy has."""
    with observing(model, *reference.models, autocast=asking.autocast):
        drifts = measure_drift(model, reference, items, asking)
        thinks = {item.id for item in items if mostly or opens_trace(drifts[item.id], baseline[item.id], asking.chat)}
        return read_as_told(model, reference, items, drifts, manner, thinks, asking)


def _draft(result: Result, drift: ProbeDrift, chat: Chat) -> Draft:
    """What the policy would say too, and the token with which it departs."""
    if result.answer is None:
        return Draft()
    same = result.answer.tokens[: drift.same]
    closed = chat.forced_tokens(result.answer).stop
    return Draft(same if drift.departs < 0 else (*same, drift.departs), closed if len(same) >= closed else 0)
