"""How a run begins: a new one asks its start what only that can say, a resumed one takes up its record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .alarm import aligned_checkpoint, headline
from .ask import ask_baseline
from .asking import work
from .errors import RunError
from .forward import read_head
from .holding import Anchored, Holder, ask_anchors, holdable_head, read_anchors, start_head, write_anchors
from .measure import items_of, remember
from .observe import observing
from .same_run import check_same_run
from .training import ask_training, training_items, training_probes

if TYPE_CHECKING:
    from .run import Run


def ask_start(run: Run) -> None:
    """
    The start's answers to training prompts and a budget's anchors and, for a cache, to all probes that will be asked.

    Args:
        run ([`Run`]):
            A new one; its baseline is filled, and its holder made.
    """
    model, reference, asking = run.model, run.reference, run.asking
    if run.prompts:
        with reference.awake(next(model.parameters()).device), reference.loaded() as frozen:
            run.baseline |= ask_training(frozen, run.prompts, asking)
        if run.writes:
            run.store.write_prompts(run.prompts)
    if reference.cache is not None:
        _fill_cache(run)
    if run.settings.budget is not None:
        with reference.awake(next(model.parameters()).device):
            hold_to(run, ask_anchors(run.settings.anchors, reference, run.settings.budget, asking))
        _write_anchors(run)
    if reference.cache is not None:
        reference.model = None  # from here on the policy goes its own way


def take_over(run: Run, earlier: Run) -> None:
    """
    What the start told an earlier run of the same callback, into this one's record too.

    Args:
        run ([`Run`]), earlier ([`Run`]):
            A second `train()`, and the first; or a retry with a smaller batch.
    """
    if run.prompts and run.writes:
        run.store.write_prompts(run.prompts)
    if earlier.holder is not None:
        hold_to(run, earlier.holder.anchors)
        _write_anchors(run)


def _write_anchors(run: Run) -> None:
    assert run.holder is not None
    anchors, prompts, fingerprint = run.holder.anchors, run.settings.anchors, run.reference.fingerprint
    run.on_first(lambda: write_anchors(run.store.anchors, anchors, prompts, fingerprint))


def _fill_cache(run: Run) -> None:
    model, cache, asking = run.model, run.reference.cache, run.asking
    assert cache is not None
    with observing(model, autocast=asking.autocast):
        head, module = read_head(model), model.get_output_embeddings()
    plain = head.weight is not None and head.scale == 1.0 and not head.softcap
    cache.frozen_head = plain and not any(p.requires_grad for p in module.parameters())
    drawn = {probe.id for step in run.settings.schedule.planned(run.last) for probe in run.draw(step)}
    asked = [probe for probe in run.settings.pool if probe.id in drawn]
    with run.bar(work(asked, baseline=True), "AlignGuard asks the start"):
        run.baseline |= ask_baseline(model, asked, asking)
    items = items_of(asked, run.baseline, asking.chat) + training_items(run.prompts, run.baseline, asking.chat)
    remember(model, run.reference, items, asking, run.store.cache)
    run.on_first(lambda: run.store.write_baseline(run.about, run.baseline))
    run.say(
        f"AlignGuard: {len(asked)} probes asked of the start; its cache takes {cache.bytes / 2**20:,.0f} MiB on disk"
    )


def hold_to(run: Run, anchors: dict[str, Anchored]) -> None:
    """
    Put a run's drift budget to work.

    Args:
        run ([`Run`]):
            Its reference must be awake, or a cache.
        anchors (`dict[str, Anchored]`):
            What the start says to them.

    Raises:
        AlignGuardError: The policy's logits are not its LM head's.
    """
    with observing(run.model, autocast=run.asking.autocast):
        holdable_head(run.model)
    assert run.settings.budget is not None
    head, device = start_head(run.reference), next(run.model.parameters()).device
    for anchor in anchors.values():
        anchor.hidden = anchor.hidden.to(device)
    head = None if head is None else head.to(device)
    run.holder = Holder(run.settings.budget, run.asking, anchors, head, run.settings.seed)


def resume(run: Run, step: int) -> None:
    """
    Take up the record of a run, if it can be proven to be this run's.

    Args:
        run ([`Run`]):
            The one that is resumed.
        step (`int`):
            At which.

    Raises:
        RunError: There is no record, or another run's, or one that was stopped for a regression.
    """
    about = run.store.read_about()
    if about is None:
        raise RunError(
            f"the run is resumed at step {step}, but {run.store.root} holds no baseline.json of it; "
            "put the record back, or begin anew without resume_from_checkpoint"
        )
    if run.reference.cache is not None:  # the start is on disk: whatever model was given, it is not needed
        run.reference.cache.open(run.store.cache, str(about["model_fingerprint"]))
        run.reference.model, run.reference.fingerprint = None, str(about["model_fingerprint"])
        run.about["model_fingerprint"] = run.reference.fingerprint
    check_same_run(Path(run.store.root / "baseline.json"), about, run.about)
    # alpha stays spread as it was, whatever the run is prolonged to
    run.about["looks"] = about.get("looks", run.about["looks"])
    pool = run.settings.pool
    run.prompts = run.store.read_prompts()
    run.baseline = run.store.read_baseline([*pool, *training_probes(run.prompts, run.asking.chat)])
    if about.get("quote") != run.about["quote"]:  # what may be quoted is as it was said last
        run.on_first(lambda: run.store.write_baseline(run.about, run.baseline))
    run.audits = run.store.read_audits(pool, step)
    run.watch = run.new_watch()
    for earlier in run.audits:  # evidence, patience and what was called follow from the record
        run.verdict = run.watch.look(earlier)
    rule = run.settings.stop
    if run.verdict is not None and run.verdict.since and rule is not None and rule.stop:
        raise RunError(
            f"{headline(run.verdict).removeprefix('AlignGuard: ')}: this run is resumed after it. Resume from "
            f"{aligned_checkpoint(run.args.output_dir, run.verdict) or 'an earlier checkpoint'}, or go on with "
            "StopRule(stop=False)"
        )
    if run.settings.budget is not None:
        with run.reference.awake(next(run.model.parameters()).device):
            hold_to(run, read_anchors(run.store.anchors, run.settings.anchors, str(about["model_fingerprint"])))
        states = [line for line in run.store.lines("budget.jsonl") if line["step"] <= step]
        if states and run.holder is not None:
            run.holder.resume(states[-1])
    run.asking.failed = lambda error: run.report_once("a scorer", error)
