"""One training run under audit: when an audit is due it is asked, compared, kept and shown. The callback says when."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from ..auditing.asking import Asking, work
from ..auditing.audit import Audit, audit
from ..auditing.context import check_fits
from ..auditing.figures import named
from ..auditing.forced import budget_advice
from ..auditing.pulse import pulse
from ..auditing.result import Result
from ..distributed import Ranks
from ..drift.reference import Reference
from ..model.chat import Chat
from ..model.observe import evaluated_weights, trainer_autocast
from ..probes.draw import draw
from ..records.store import Store
from ..verdicts.sides import sides_of
from ..verdicts.verdict import Verdict
from ..verdicts.watch import Watch
from .asked import asked_now
from .cause import check_traceable, trace_new
from .checks import check_floors, check_not_stopped, check_trainer, what_is_uploaded
from .chosen import check_chosen, chosen_figure, tell_lacking, with_evaluations
from .clock import Clock
from .console import Console
from .engine import find_engine
from .floor import floor_of
from .held import hold, keep_up
from .loop import training_loop
from .missed import missed
from .outlook import outlook
from .pace import AUDIT, NOTHING, Pace, told_failed
from .resume import bring_up_to_date, find_record, resume, run_id
from .settings import Settings, about, announcement, from_now_on
from .shown import Shown
from .start import RunContext, RunState, agree_on_start, ask_start, open_record, settle_tags, take_over

logger = logging.getLogger("alignguard")
_PULSE_DRAW = 4  # probes a dimension


class Run:
    """
    One run of `trainer.train()`.

    Args:
        settings ([`Settings`]):
            What people ask.
        reference ([`Reference`]):
            The frozen start.
        args (`TrainingArguments`), model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            The trainer's.
        last (`int`):
            Its last step.
        writes (`bool`):
            Whether this process keeps the record (rank 0).
        trainer (`Trainer`, *optional*):
            Where it is known: its trackers are found through it.
    """

    def __init__(
        self,
        settings: Settings,
        reference: Reference,
        args: Any,
        model: Any,
        tokenizer: Any,
        last: int,
        writes: bool,
        trainer: Any = None,
    ) -> None:
        asking = Asking(
            Chat.of(model, tokenizer, settings.template_kwargs, settings.tags),
            settings.tokens,
            settings.toxicity,
            settings.judge,
            seed=settings.seed,
            autocast=trainer_autocast(args),
            ranks=Ranks.of(model),
        )
        console = Console(writes, args.disable_tqdm)
        store, settings = Store.of_run(args.output_dir), with_evaluations(settings, args, last)
        self.context = RunContext(settings, reference, args, model, asking, store, console, last)
        self.settings, self.ranks, self.store, self.console = settings, asking.ranks, store, console
        self.trainer, self.shown = trainer, Shown(store, console, args.output_dir, settings.quote)
        self.verdict: Verdict | None = None
        self.to_act = self.just_aligned = False  # a regression was called that nothing was done about yet
        self.started = False  # the start has been asked all that only it can say
        self._untrained = True  # while this callback has watched no step of the policy
        self.pace = Pace.of(settings.schedule, last)
        self.failed: dict[int, str] = {} if self.pace is None else self.pace.failed  # audits and pulses, by step
        self._take(RunState(about(model.config, asking.chat, reference, settings, last)))
        self.clock = Clock()

    @property
    def audits(self) -> list[Audit]:
        """All so far."""
        return self.state.audits

    @property
    def baseline(self) -> dict[str, Result]:
        """The start's answers so far, by probe id."""
        return self.state.baseline

    def begin(self, step: int, dataset: Any, earlier: Run | None = None) -> None:
        """
        Everything that can be wrong is found here, and the start is asked what only it can say.

        Args:
            step (`int`):
                0, or where the run is resumed.
            dataset (`Dataset`):
                The training set.
            earlier (`Run`, *optional*):
                A run of the same callback before this one, whose start is this one's: a retry, or a second `train()`.

        Raises:
            AlignGuardError: A mistake of configuration.
        """
        context, settings, console = self.context, self.settings, self.console
        check_trainer(settings, context.args, self.ranks.sharded, context.model)
        chosen = check_chosen(context.args, console.tell_once)
        check_traceable(settings, context.reference, context.model, self.ranks.size, context.asking.autocast)
        check_fits(context.model, settings.pool, context.asking)
        context.asking.engine = find_engine(settings.engine, self.trainer, context)
        context.on_first(self.store.part)
        known = replace(agree_on_start(context, self.state.about), id=run_id(context, step))
        self._untrained = earlier is None or not earlier.audits
        begins = step == 0 or not find_record(context, step)
        if begins and earlier is None:
            known = settle_tags(context, known)
        elif earlier is not None:
            context.asking.chat.use(earlier.context.asking.chat.form, earlier.context.asking.chat.form.why)
            known = replace(known, tags=context.asking.chat.tags)
        if not begins:
            self._take(resume(context, known, step))
            check_not_stopped(self.verdict, settings.stop, context.args.output_dir)
        context.on_first(lambda: open_record(context, step, earlier is not None, begins))
        if not begins:
            context.on_first(lambda: bring_up_to_date(context, self.state, step))
        if console.writes:
            cost = chosen + announcement(context.asking.chat, context.reference, settings, context.last)
            console.say(cost + outlook(settings, context.last) + what_is_uploaded(context.args, self.store, settings))
            self.shown.begin(context.args, self.trainer, known if begins else self.state.about, step)
        if begins:
            state = ask_start(context, known, dataset) if earlier is None else take_over(context, known, earlier.state)
            self._take(state)
        self.started = True
        if step > 0:
            paced = self.ranks.told(lambda: self.store.lines("pace.jsonl"))
            self.clock.resume(self.audits, paced, step)
            if self.pace is not None:
                self.pace.resume(paced, step)
        if step == 0:
            self._audit_start(first=earlier is None)
            tell_lacking(context.args, self.audits, console.tell_once)
        elif begins:
            self.audit(step)
        if self.pace is not None:
            if begins:
                self.pace.expect(self.clock.latest)
            self.pace.begin()
        # from here on nothing of ours ends the run
        context.asking.failed = lambda error: console.report_once("a scorer", error)

    def due(self, step: int, stops: bool, evaluates: bool = False) -> str:
        """
        What is done after a step, on every process the same: `AUDIT`, `PULSE` or `NOTHING`.

        Args:
            step (`int`):
                Of the trainer.
            stops (`bool`):
                Whether training ends with it.
            evaluates (`bool`, *optional*, defaults to `False`):
                Whether the trainer evaluates after it, which calls for an audit where it chooses by one of our figures.
        """
        last, pace, must = self.context.last, self.pace, evaluates and bool(chosen_figure(self.context.args))
        if step == last or stops:
            return AUDIT
        if pace is None:
            return AUDIT if must or self.settings.schedule.due(step, last) else NOTHING
        if not (must or pace.asks(step)):
            return NOTHING
        did = pace.decided[step] = self.ranks.first(pace.decide(step, must))
        self._keep_pace(step)
        return did

    def owed(self, step: int) -> str:
        """What an evaluation in training still lacks: at the end of an epoch, say, it was not foreseen when the step ended."""
        there = step in self.failed or any(audit.step == step for audit in self.audits)
        wanted = chosen_figure(self.context.args) and training_loop()
        return self.due(step, False, True) if wanted and not there else NOTHING

    def look(self, step: int, optimizer: Any, what: str = AUDIT) -> None:
        """An audit or a pulse in training: one that fails fails on all processes, and training goes on."""

        def look() -> None:
            with evaluated_weights(optimizer):
                self.audit(step) if what == AUDIT else self.pulse(step)
            self.failed.pop(step, None)

        with self.pace.looking(step, what) if self.pace is not None else nullcontext():
            self.failed[step] = what  # until it is done
            self.console.guarded(f"the {what}", lambda: self.ranks.together(look))
        self._keep_pace(step)  # what it took, too
        verdict = self.verdict
        if self.settings.trace and verdict is not None and verdict.step == step:
            with self.pace.looking(-1, AUDIT) if self.pace is not None else nullcontext():  # none of an audit's time
                self.clock.spent += trace_new(self.context, self.state, verdict, self.shown)

    def also(self, step: int, seconds: float) -> None:
        """What is kept of training has taken so long: of the run's time it is a part as audits are."""
        self.clock.spent += seconds
        if self.pace is not None:
            self.pace.also(step, seconds)

    def catch_up(self, step: int, optimizer: Any) -> None:
        """Of a resumed run: what was due and is not on record is told of; the checkpoint's own step is asked now."""
        last = self.context.last
        if step > 0 and (lost := missed(self.settings.schedule, self.pace, self.audits, step, last)):
            steps = f"audits of steps {', '.join(map(str, lost))}"
            self.console.say(f"AlignGuard: not on record, though due before this run was resumed: {steps}")
            if lost[-1] == step < last:  # whose weights are here
                self.look(step, optimizer)

    def hold(self, step: int, optimizer: Any) -> None:
        """Before an optimizer step: add the gradient of the drift budget's penalty, where there is one."""
        hold(self.context, self.state, self.shown, step, optimizer)

    def keep_up(self, optimizer: Any) -> None:
        """Before an optimizer step: the start of what was unfrozen is kept, and a drift budget's pace taken."""
        keep_up(self.context, self.state, optimizer)

    def audit(self, step: int) -> Verdict:
        """Ask, compare, keep and show."""
        context, state = self.context, self.state
        mine = self.ranks.mine
        asked = asked_now(context, state, self.pace, step)
        missing = [probe for probe in asked if probe.id not in state.baseline]
        ticks = work(mine(missing), baseline=True) + work(mine(asked), baseline=False)
        bar = self.console.bar(ticks, f"AlignGuard audit, step {step}")
        with self.clock.auditing(), bar as context.asking.tick:
            found = context.asking.within_memory(
                lambda: audit(
                    context.model,
                    None,
                    asked,
                    context.reference,
                    baseline=state.baseline,
                    asking=context.asking,
                    step=step,
                    reverse=self.settings.reverse,
                    prompts=state.prompts,
                    last=self._last(),
                )
            )
        if found.figure("kl/raw") is None:
            text = f"at step {step} the policy's likelihoods are no finite numbers: what is read off them has no figure"
            self.console.tell_once("likelihoods", text)
        found.metrics |= named(self.clock.figures())
        if step == 0 and self._untrained:
            state.floor = floor_of(found, context)
        if state.floor is not None:
            found.metrics |= named({"kl/floor": state.floor})
        if self.pace is not None:
            found.metrics |= named({"cost/overhead": self.pace.share})
        for earlier in state.audits:  # their answers are on disk, and their figures kept
            if not self.shown.pending.holds(earlier):
                earlier.results = {}
        state.audits.append(found)
        if state.holder is not None and found.manner is not None:
            state.holder.take(found.manner)
        self.verdict = verdict = self.watch.look(found)
        found.metrics |= verdict.metrics() | (state.holder.metrics if state.holder is not None else {})
        if step == 0 and self._untrained:
            check_floors(self.settings.stop, verdict)  # before a start is told of as a regression
        self.to_act |= bool(verdict.new)
        self.just_aligned = verdict.last_aligned_step == step and not verdict.since
        if self.console.writes:
            self.shown.audit(found, state, verdict, asked_anew=bool(missing) or step == 0)
        return verdict

    def pulse(self, step: int) -> None:
        """A small look without generation: shown and kept, and no verdict rests on it."""
        context, state = self.context, self.state
        known = [probe for probe in self.settings.drawn(0) if probe.id in state.baseline]
        asked = draw(known, _PULSE_DRAW, self.settings.seed)
        context.asking.tick = lambda n: None
        figures = context.asking.within_memory(
            lambda: pulse(context.model, asked, context.reference, state.baseline, context.asking, self._last())
        )
        if self.console.writes:
            self.shown.pulse(step, figures)

    def close_trackers(self) -> None:
        """The trainer's own have closed."""
        self.console.guarded("the tracker", lambda: self.shown.tracker.end())

    def end(self) -> None:
        """Say where everything is, and let others write there."""
        if self.console.writes:
            self.shown.end(self.state, self.verdict)
        self.console.guarded("the store", self.store.let_go)
        did = (self.pace.told() if self.pace is not None else "") + told_failed(self.failed)
        self.console.say(
            f"AlignGuard: {len(self.audits)} audits{did}\n  report   {self.shown.report}\n"
            f"  figures  {self.store.root / 'audits.jsonl'}\n  answers  {self.store.private / 'answers'}"
        )

    # -----------------------------------------------------------------------------------------------------------------

    def _keep_pace(self, step: int) -> None:
        if self.pace is not None and step in self.pace.decided and self.console.writes:
            self.shown.line("pace.jsonl", self.pace.line(step) | self.clock.line())

    def _last(self) -> Audit | None:
        """The audit before, where it was taken by this process."""
        audits = self.state.audits
        return audits[-1] if audits and audits[-1].manner is not None else None

    def _take(self, state: RunState) -> None:
        """Go on from a state: evidence, patience and what was called follow from its audits."""
        settings = self.settings
        self.state = state
        self.watch = Watch(
            state.baseline,
            settings.stop,
            state.about.looks or 1,
            state.about.alpha_until,
            sides_of(settings.pool),
            settings.seed,
        )
        for earlier in state.audits:
            self.verdict = self.watch.look(earlier)

    def _audit_start(self, first: bool) -> None:
        """The audit of step 0, and what it will cost from now on."""
        self.audit(0)
        context, said = self.context, {probe.id: self.baseline[probe.id] for probe in self.settings.drawn(0)}
        model, asking = context.model, context.asking
        if first and (advice := self.console.guarded("advice", lambda: budget_advice(model, said, asking))):
            logger.warning(advice)
        self.console.say(from_now_on(context.model, self.settings, context.last, self.clock.latest))
