"""How a run begins: a new one asks its start what only that can say, a resumed one takes up its record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..auditing.answers import ask_baseline, settle_form
from ..auditing.asking import Asking, work
from ..auditing.audit import Audit
from ..auditing.context import longest_prompt
from ..auditing.drifts import items_of, remember
from ..auditing.result import Result
from ..auditing.unjudged import ask_training, training_items
from ..distributed import compute_device
from ..drift.reference import Reference
from ..errors import StartError
from ..holding.anchored import Anchored, ask_anchors, holdable_head, start_head, write_anchors
from ..holding.holder import Holder
from ..model.observe import observing
from ..records.about import About
from ..records.store import Store
from .console import Console
from .settings import Settings
from .train_prompts import sample_prompts

_CACHE = "reference*.safetensors"  # files of a cached start


@dataclass(frozen=True)
class RunContext:
    """
    What a run works with; none of it changes.

    Args:
        settings ([`Settings`]):
            What people ask.
        reference ([`Reference`]):
            The frozen start.
        args (`TrainingArguments`), model (`PreTrainedModel`):
            The trainer's.
        asking ([`Asking`]):
            How probes are asked and judged.
        store ([`Store`]), console ([`Console`]):
            Where things are kept, and said.
        last (`int`):
            The trainer's last step.
    """

    settings: Settings
    reference: Reference
    args: Any
    model: Any
    asking: Asking
    store: Store
    console: Console
    last: int

    @property
    def device(self) -> Any:
        """Where the model computes."""
        return compute_device(self.model)

    def on_first(self, do: Any) -> None:
        """What the process that keeps the record does, while the others wait; if it fails, all do."""
        self.asking.ranks.together(lambda: do() if self.console.writes else None)


@dataclass
class RunState:
    """
    What a run goes on from.

    Args:
        about ([`About`]):
            What stands on record of it.
        prompts (`dict[str, list[int]]`, *optional*):
            Training prompts that drift is measured on, as token ids.
        baseline (`dict[str, Result]`, *optional*):
            The start's answers so far, by probe id.
        audits (`list[Audit]`, *optional*):
            All so far.
        holder ([`Holder`], *optional*):
            The drift budget at work.
        floor (`float`, *optional*):
            Drift of the start against itself, nats per token.
    """

    about: About
    prompts: dict[str, list[int]] = field(default_factory=dict)
    baseline: dict[str, Result] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)
    holder: Holder | None = None
    floor: float | None = None


def agree_on_start(context: RunContext, about: About) -> About:
    """
    All processes begin with the same weights.

    Raises:
        StartError: They do not.
    """
    ranks, reference = context.asking.ranks, context.reference
    first = ranks.first(reference.fingerprint)
    if ranks.sharded:  # some loaders give the others no weights before the model is sharded
        reference.fingerprint = first
        return replace(about, model_fingerprint=first)
    if first != reference.fingerprint:
        raise StartError(
            f"process {ranks.rank} begins with other weights than process 0; set the same seed on all before the model is made"
        )
    return about


def settle_tags(context: RunContext, about: About) -> About:
    """In which form the start thinks, where its chat template does not tell."""
    with context.reference.awake(context.device), context.reference.loaded() as start:
        context.asking.within_memory(lambda: settle_form(start, context.settings.drawn(0), context.asking))
    return replace(about, tags=context.asking.chat.tags)


def open_record(context: RunContext, step: int, again: bool, begins: bool) -> None:
    """
    Make room on disk, which is then this run's alone: what another run left is set aside, and so is the future of a resumed one.

    Args:
        context ([`RunContext`]):
            What the run works with.
        step (`int`):
            0, or where the run is resumed.
        again (`bool`), begins (`bool`):
            Whether its start has been asked by the same callback before, and whether it has no record so far.
    """
    store, say = context.store, context.console.say
    asked = again and context.reference.cache is not None  # the start, whose cache on disk is still needed
    if step == 0 and asked and any(line["step"] > 0 for line in store.lines()):  # a run of its own, no retry
        aside = store.set_aside(keep=_CACHE)
        say(f"AlignGuard: output_dir holds the record of another run; it was moved to {aside}")
    elif not begins or asked:
        store.hold()
        if torn := store.rewind(step or -1):
            say(f"AlignGuard: lines were cut off in the writing, and are dropped: {', '.join(torn)}, in {store.root}")
    elif (aside := store.set_aside()) is not None:
        say(f"AlignGuard: output_dir holds the record of another run; it was moved to {aside}")
    store.prepare()
    store.hold()
    if begins:
        store.begin_empty(keep=_CACHE if asked else "")


def ask_start(context: RunContext, about: About, dataset: Any) -> RunState:
    """
    A new run: the start's answers to training prompts and a budget's anchors and, for a cache, to all probes that will be
    asked.

    Args:
        context ([`RunContext`]):
            What the run works with.
        about ([`About`]):
            What goes on record.
        dataset (`Dataset`):
            The training set, of which prompts are sampled.
    """
    settings, reference, asking = context.settings, context.reference, context.asking
    longest = longest_prompt(context.model, asking)
    tell = context.console.say

    def sample() -> dict[str, list[int]]:
        return sample_prompts(dataset, asking.chat, settings.train_prompts, settings.seed, longest, tell)

    # of the first process: others may hold the training set in another order
    state = RunState(about, asking.ranks.told(sample))
    if state.prompts:
        with reference.awake(context.device), reference.loaded() as frozen:
            state.baseline |= asking.within_memory(lambda: ask_training(frozen, state.prompts, asking))
        _write_prompts(context, state)
    if reference.cache is not None:
        state.baseline |= asking.within_memory(lambda: _fill_cache(context, state))
    if settings.budget is not None:
        with reference.awake(context.device):
            budget, anchors = settings.budget, settings.anchors
            asked = asking.within_memory(lambda: ask_anchors(anchors, reference, budget, asking))
            state.holder = hold(context, asked)
        _write_anchors(context, state.holder)
    if reference.cache is not None:
        reference.model = None  # from here on the policy goes its own way
    return state


def take_over(context: RunContext, about: About, earlier: RunState) -> RunState:
    """
    A second `train()` of the same callback, or a retry with a smaller batch: what the start told the run before goes into
    this one's record too.

    Args:
        context ([`RunContext`]), about ([`About`]):
            This run's.
        earlier ([`RunState`]):
            The first run's.
    """
    state = RunState(about, earlier.prompts, earlier.baseline, floor=earlier.floor)
    if state.prompts:
        _write_prompts(context, state)
    if earlier.holder is not None:
        state.holder = hold(context, earlier.holder.anchors)
        _write_anchors(context, state.holder)
    return state


def _write_prompts(context: RunContext, state: RunState) -> None:
    if context.console.writes:
        context.store.write_prompts(state.prompts)


def _write_anchors(context: RunContext, holder: Holder) -> None:
    path, prompts, fingerprint = context.store.anchors, context.settings.anchors, context.reference.fingerprint
    context.on_first(lambda: write_anchors(path, holder.anchors, prompts, fingerprint))


def _fill_cache(context: RunContext, state: RunState) -> dict[str, Result]:
    """All that will be asked, asked now, and kept token by token; the start's answers."""
    model, cache, asking, settings = context.model, context.reference.cache, context.asking, context.settings
    assert cache is not None
    planned = range(len(settings.schedule.planned(context.last)))
    drawn = {probe.id for number in planned for probe in settings.drawn(number)}
    asked = [probe for probe in settings.pool if probe.id in drawn]
    with context.console.bar(work(asked, baseline=True), "AlignGuard asks the start") as asking.tick:
        found = ask_baseline(model, asked, asking, context.reference.said)
    everything = state.baseline | found
    items = items_of(asked, everything, asking.chat) + training_items(state.prompts, everything, asking.chat)
    remember(model, context.reference, items, asking, context.store.cache)
    context.on_first(lambda: context.store.write_baseline(state.about, everything))
    context.console.say(
        f"AlignGuard: {len(asked)} probes asked of the start; its cache takes {cache.bytes / 2**20:,.0f} MiB on disk"
    )
    return found


def hold(context: RunContext, anchors: dict[str, Anchored]) -> Holder:
    """
    A run's drift budget, put to work; its reference must be awake, or a cache.

    Raises:
        AlignGuardError: The policy's logits are not its LM head's.
    """
    with observing(context.model, autocast=context.asking.autocast):
        holdable_head(context.model)
    assert context.settings.budget is not None
    head = start_head(context.reference, context.asking.autocast).to(context.device)
    for anchor in anchors.values():
        anchor.hidden = anchor.hidden.to(context.device)
    return Holder(context.settings.budget, context.asking, anchors, head, context.settings.seed)
