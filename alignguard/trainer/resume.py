"""How a run is taken up again: its record is found, held against what is given now, and told to every process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import pyarrow as pa

from ..auditing.audit import Audit
from ..auditing.unjudged import training_probes
from ..errors import AlignGuardError, RunError, one_line
from ..holding.anchored import read_anchors
from ..model.checkpoints import checkpoints, run_of, run_on_record
from ..model.forms import form_in
from ..records.about import About
from ..records.same_run import check_prompts, check_same_run
from ..records.store import Store
from ..verdicts.rule import StopRule
from .loop import training_loop
from .start import RunContext, RunState, hold

T = TypeVar("T")
_DEEDS = ("checkpoint", "stop", "restore")  # what a rule has done, and not what it calls


def find_record(context: RunContext, step: int) -> bool:
    """
    Whether there is a record of the run that is resumed: in its output_dir, or beside its checkpoint, from where it is copied.

    Args:
        context ([`RunContext`]):
            What the run works with.
        step (`int`):
            At which it is resumed.

    Raises:
        RunError: There is none, and the start is not given either.
    """
    store, say = context.store, context.console.say
    if not context.asking.ranks.told(lambda: _find(context)):
        if context.reference.kind != "given":
            raise RunError(
                f"the run is resumed at step {step}, but {store.root} holds no baseline.json of it; put the record back, or, if "
                "it began without AlignGuard, give reference= the model it began with"
            )
        say(
            f"AlignGuard: nothing is on record of the run before step {step}; its start is asked now, as reference= gives it"
        )
        return False
    return True


def _find(context: RunContext) -> bool:
    store, checkpoint, say = context.store, _checkpoint(), context.console.say
    there = _own_record(store, checkpoint)
    if there is None:
        return False
    if checkpoint is not None and not run_of(checkpoint):
        say(
            f"AlignGuard: {checkpoint} does not say which run it is of (it is an earlier version's, or was saved without AlignGuard); it is "
            f"taken for one of the record in {there.root}"
        )
    if there.root.resolve() != store.root.resolve():
        if (aside := store.set_aside()) is not None:
            say(f"AlignGuard: output_dir holds the record of another run; it was moved to {aside}")
        store.copy(there)
        say(f"AlignGuard: the record of the run that is resumed was copied from {there.root} to {store.root}")
    return True


def _own_record(store: Store, checkpoint: Path | None) -> Store | None:
    """The record of the run that a checkpoint is of: beside it, else in output_dir; `None` where there is none at all."""
    places = [store] if checkpoint is None else [Store.of_run(checkpoint.parent), store]
    run, another = "" if checkpoint is None else run_of(checkpoint), None
    for place in places:
        if (then := place.read_about()) is None:
            continue
        if not run or then.id in ("", run):
            return place
        another = another or (place, then.id)
    if another is None or checkpoint is None:
        return None
    root, folder = another[0].root, another[0].root.parent
    own = [path for path in checkpoints(folder).values() if run_of(path) == another[1]]
    aside = next((path for path in sorted(folder.glob(f"{root.name}.*")) if run_on_record(path) == run), None)
    what = (
        f"resume from one of its own, as resume_from_checkpoint={str(own[-1])!r}"
        if own
        else "that one has saved none: begin it anew, by train() without resume_from_checkpoint"
    )
    other = (
        f"; or go on with the other run, whose record is {aside.name}: put it and _{aside.name} in their place"
        if aside
        else ""
    )
    raise RunError(f"{checkpoint} is of another run than the record in {root}; {what}{other}")


def run_id(context: RunContext, step: int) -> str:
    """A run's own, on every process the same: drawn where it begins, and told by the checkpoint that it is resumed from."""

    def find() -> str:
        checkpoint = _checkpoint()
        return token_hex(8) if step == 0 else run_of(checkpoint) if checkpoint is not None else ""

    return context.asking.ranks.told(find)


def _audits(context: RunContext, step: int) -> list[Audit]:
    """Those on record; the answers of the latest, which a report quotes, can be done without."""
    store, pool = context.store, context.settings.pool
    try:
        return store.read_audits(pool, step)
    except (OSError, pa.ArrowException) as error:
        context.console.say(
            f"AlignGuard: the answers of the latest audit cannot be read, its figures stand ({one_line(error)})"
        )
        return store.read_audits(pool, step, answers=False)


def _whole(read: Callable[[], T], path: Path) -> T:
    """What is read from a file of the record; libraries raise many kinds where it is broken."""
    try:
        return read()
    except AlignGuardError:
        raise
    except Exception as error:
        raise RunError(
            f"{path}: cannot be read ({type(error).__name__}: {one_line(error)}); put it back from a copy, or begin the run anew"
        ) from None


def _checkpoint() -> Path | None:
    """The checkpoint a trainer resumes from."""
    given = training_loop().get("resume_from_checkpoint")
    return Path(given) if given else None


def resume(context: RunContext, about: About, step: int) -> RunState:
    """
    Take up the record of a run, if it can be proven to be this run's. The first process reads it, and tells the others: nodes
    may share no folder.

    Args:
        context ([`RunContext`]), about ([`About`]):
            This run's.
        step (`int`):
            At which it is resumed.

    Raises:
        RunError: It is another run's.
    """
    store, settings, reference, told = context.store, context.settings, context.reference, context.asking.ranks.told
    then = told(store.read_about)
    assert then is not None
    if reference.cache is not None:  # the start is on disk: whatever model was given, it is not needed
        reference.cache.open(store.cache, then.model_fingerprint)
        reference.model, reference.fingerprint = None, then.model_fingerprint
        about = replace(about, model_fingerprint=then.model_fingerprint)
    chat = context.asking.chat
    if then.tags and then.tags != about.tags and chat.form.assumed:  # the start's own, seen at step 0
        chat.use(form_in(then.tags[0], chat.form) or chat.form, "as the start itself thinks")
        about = replace(about, tags=chat.tags)
    check_same_run(store.root / "baseline.json", then, about)
    # alpha is spent as it was planned, whatever the run is prolonged to
    prompts = told(lambda: _whole(store.read_prompts, store.prompts))
    about = replace(about, looks=about.looks or then.looks, alpha_until=then.alpha_until, id=then.id or about.id)
    state = RunState(about, prompts)
    asked = [*settings.pool, *training_probes(state.prompts, chat)]
    state.baseline = told(lambda: _whole(lambda: store.read_baseline(asked), store.baseline))
    state.audits = told(lambda: _whole(lambda: _audits(context, step), store.root / "audits.jsonl"))
    check_prompts(store.root / "baseline.json", state.baseline.values(), chat)
    state.floor = state.audits[0].figure("kl/floor") if state.audits else None
    if settings.budget is not None:
        anchors = told(
            lambda: _whole(lambda: read_anchors(store.anchors, settings.anchors, then.model_fingerprint), store.anchors)
        )
        lines = told(lambda: [line for line in store.lines("budget.jsonl") if line["step"] <= step][-1:])
        with reference.awake(context.device):
            state.holder = hold(context, anchors)
        for line in lines:
            state.holder.resume(line)
    return state


def bring_up_to_date(context: RunContext, state: RunState, step: int) -> None:
    """
    What stands on record of a resumed run is what holds of it now, so that who reads it comes to the verdict that the run has: its rule
    and its last step, what may be quoted, and that weights which were put back are trained on. Another rule is told of.

    Args:
        context ([`RunContext`]), state ([`RunState`]):
            Of the run.
        step (`int`):
            At which it is resumed.
    """
    store = context.store
    then, now = store.read_about(), state.about.stop_rule
    assert then is not None
    before = _whole(lambda: then.stop_rule, store.root / "baseline.json")
    if not store.says(state.about, state.baseline):
        store.write_baseline(state.about, state.baseline)
    if changed := _changes(before, now):
        text = f"AlignGuard: from step {step} on the rule is another: {changed}; all audits on record are judged by it, those before too"
        if now.alpha > before.alpha or now.min_drop < before.min_drop:
            text += " (looser, and chosen after looking: it calls a regression in more sound runs than its alpha says)"
        context.console.say(text)


def _changes(then: StopRule, now: StopRule) -> str:
    """In what two rules differ, of what counts as a regression or is warned of."""
    pairs = [(f.name, getattr(then, f.name), getattr(now, f.name)) for f in fields(StopRule) if f.name not in _DEEDS]
    return ", ".join(f"{name} {_in_words(was)} -> {_in_words(value)}" for name, was, value in pairs if was != value)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name} {floor}" for name, floor in value.items()]
    return (
        (" and ".join(value) or "none") if isinstance(value, (list, tuple)) else "none" if value is None else str(value)
    )
