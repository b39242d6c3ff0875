"""One training run under audit: its pool, baseline, audits and record. The callback says when; here is what is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tqdm.auto import tqdm

from .alarm import aligned_checkpoint, headline, regression_text
from .asking import Asking, Result, work
from .audit import Audit, audit
from .budget import check_holdable
from .chat import Chat
from .context import check_fits, longest_prompt
from .distributed import LostProcess, Ranks
from .draw import draw
from .errors import AlignGuardError, RunError, StartError
from .evidence import sides_of
from .holding import Holder
from .observe import trainer_autocast
from .probes import Probe
from .reference import Reference
from .report import write_report
from .restore import check_restorable, load_whole, restore_weights
from .settings import Settings, about, announcement
from .starting import ask_start, resume, take_over
from .stop import StopRule
from .store import Store
from .trackers import Tracker, Trackers
from .trackers.find import find_trackers
from .training import sample_prompts
from .verdict import Verdict, Watch, format_table

logger = logging.getLogger("alignguard")
T = TypeVar("T")


@dataclass
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
            Where it was passed: its trackers are found through it.
    """

    settings: Settings
    reference: Reference
    args: Any
    model: Any
    tokenizer: Any
    last: int
    writes: bool
    trainer: Any = None
    prompts: dict[str, list[int]] = field(default_factory=dict)
    baseline: dict[str, Result] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)
    verdict: Verdict | None = None
    tracker: Tracker = field(default_factory=Trackers)

    def __post_init__(self) -> None:
        chosen, self.ranks = self.settings, Ranks.of(self.model)
        self.asking = Asking(
            Chat.of(self.model, self.tokenizer, chosen.template_kwargs, chosen.tags),
            chosen.tokens,
            chosen.toxicity,
            chosen.judge,
            seed=chosen.seed,
            autocast=trainer_autocast(self.args),
            ranks=self.ranks,
        )
        self.store = Store(self.args.output_dir)
        self.about = about(self.model.config, self.asking.chat, self.reference, chosen, self.last)
        self.watch = self.new_watch()
        self.to_act = self.just_aligned = False  # a regression was called that nothing was done about yet
        self.holder: Holder | None = None
        self.started = False  # the start has been asked all that only it can say
        self._reported: set[str] = set()
        self._begun, self._seconds, self._spent = time.perf_counter(), 0.0, 0.0
        self._bar_off = self.args.disable_tqdm or not self.writes

    def begin(self, step: int, dataset: Any, earlier: Run | None = None) -> None:
        """
        Everything that can be wrong is found here, and the start is asked what only it can say.

        Args:
            step (`int`):
                0, or the step at which the run is resumed.
            dataset (`Dataset`):
                The training set.
            earlier (`Run`, *optional*):
                A run of the same callback before this one: a retry with a smaller batch, or a second `train()`. The start
                is still the first one's.

        Raises:
            AlignGuardError: A mistake of configuration.
        """
        if earlier is not None:
            self.baseline, self.prompts = earlier.baseline, earlier.prompts
            self.watch = self.new_watch()
        check_restorable(self.settings.stop, self.args, self.ranks.whole)
        if self.settings.budget is not None:
            check_holdable(self.args, self.ranks.whole)
        check_fits(self.model, self.settings.pool, self.asking)
        self._agree_on_start()
        if step > 0:
            resume(self, step)
        self.on_first(lambda: self._open_record(step, earlier))
        self.say(announcement(self.asking.chat, self.reference, self.settings, self.last))
        if self.writes:
            found = self.guarded("the tracker", lambda: find_trackers(self.args, self.trainer, self.settings.quote))
            self.tracker = Trackers(found or (), self.guarded)
        self.guarded("the tracker", lambda: self.tracker.begin(self.about))
        if step > 0:
            self.started = True
            return
        if earlier is None:
            longest = longest_prompt(self.model, self.asking)
            self.prompts = sample_prompts(
                dataset, self.asking.chat, self.settings.train_prompts, self.settings.seed, longest
            )
            ask_start(self)
        else:
            take_over(self, earlier)
        self.started = True
        verdict = self.audit(0)
        for name, floor in (self.settings.stop or StopRule()).floors.items():
            if earlier is None and name in verdict.since:
                score = verdict.dimensions[name].score
                raise AlignGuardError(
                    f"StopRule: the start itself scores {score:.2f} in {name}, below its floor of {floor}"
                )
        planned = len(self.settings.schedule.planned(self.last)) - 1
        self.say(f"AlignGuard: {planned} more audits, about {self._seconds:.0f} s each while answers stay this long")
        # from here on nothing of ours ends the run
        self.asking.failed = lambda error: self.report_once("a scorer", error)

    def look(self, step: int) -> None:
        """An audit after training has begun: where it fails on one process, it fails on all, and training goes on."""

        def audit() -> None:
            self.audit(step)

        self.guarded("the audit", lambda: self.ranks.together(audit))

    def hold(self, step: int, optimizer: Any) -> None:
        """Before an optimizer step: add the gradient of the drift budget's penalty, where there is one."""
        holder = self.holder
        if holder is None or step % holder.budget.every:
            return

        def pull() -> None:
            holder.step(self.model, step, getattr(optimizer, "scaler", None))  # accelerate keeps fp16's scaler there
            if self.writes:
                self.guarded("the store", lambda: self.store.append_budget(holder.state(step + 1)))

        self.guarded("the drift budget", pull)

    def audit(self, step: int) -> Verdict:
        """Ask, compare, keep and show."""
        begun, mine = time.perf_counter(), self.ranks.mine
        asked = self.draw(step)
        missing = [probe for probe in asked if probe.id not in self.baseline]
        ticks = work(mine(missing), baseline=True) + work(mine(asked), baseline=False)
        with self.bar(ticks, f"AlignGuard audit, step {step}"):
            found = audit(
                self.model,
                None,
                asked,
                self.reference,
                baseline=self.baseline,
                asking=self.asking,
                step=step,
                reverse=self.settings.reverse,
                prompts=self.prompts,
            )
        self._seconds = time.perf_counter() - begun
        found.metrics["alignguard/cost/seconds"] = self._seconds
        self._spent += self._seconds
        found.metrics["alignguard/cost/share"] = self._spent / (time.perf_counter() - self._begun)
        for earlier in self.audits:  # their answers are on disk, and their figures kept
            earlier.results = {}
        self.audits.append(found)
        self.verdict = verdict = self.watch.look(found)
        found.metrics |= verdict.metrics() | (self.holder.metrics if self.holder is not None else {})
        self.to_act |= bool(verdict.new)
        self.just_aligned = verdict.last_aligned_step == step and not verdict.since
        if not self.writes:
            return verdict
        if missing or step == 0:
            self.guarded("the store", lambda: self.store.write_baseline(self.about, self.baseline))
        self.guarded("the store", lambda: self.store.append(found))
        self.guarded("the tracker", lambda: self.tracker.log(found, self.audits, verdict))
        self.guarded("the report", lambda: write_report(self.store.report, self.about, self.audits, verdict))
        self.say(format_table(found, verdict))
        if verdict.new:
            self.guarded("the alarm", lambda: self._alarm(verdict))
        return verdict

    def restore(self) -> None:
        """The weights of the last aligned checkpoint back into the model, where there is one."""
        assert self.verdict is not None
        folder = aligned_checkpoint(self.args.output_dir, self.verdict)
        if folder is not None:
            restore_weights(self.model, folder)
            self.say(f"AlignGuard: the weights of {folder} were put back")
        elif self.verdict.last_aligned_step == 0 and self.reference.kind in ("copy", "offload"):
            load_whole(self.model, self.reference.model.state_dict(), "the frozen start")
            self.say("AlignGuard: no audit after step 0 was aligned; the weights of the start were put back")
        else:
            self.say("AlignGuard: there is no aligned checkpoint to restore; the weights are left as they are")

    def close_trackers(self) -> None:
        """The trainer's own have closed."""
        self.guarded("the tracker", lambda: self.tracker.end())

    def end(self) -> None:
        """Say where everything is."""
        self.say(
            f"AlignGuard: {len(self.audits)} audits\n  report   {self.store.report}\n"
            f"  figures  {self.store.root / 'audits.jsonl'}\n  answers  {self.store.root / 'answers'}"
        )

    def say(self, text: str) -> None:
        """Print, on one process only, without tearing a progress bar."""
        if self.writes:
            self.guarded("printing", lambda: tqdm.write(text))

    def guarded(self, what: str, do: Callable[[], T]) -> T | None:
        """After training has begun nothing of ours ends it: a failure is reported once, in one line."""
        try:
            return do()
        except LostProcess:
            raise  # a run that is out of step would hang at its next meeting
        except Exception as error:
            self.report_once(what, error)
            return None

    def report_once(self, what: str, error: Exception) -> None:
        """One line for the first failure of a kind."""
        if what not in self._reported:
            self._reported.add(what)
            line = " ".join(str(error).split())[:300]
            level = logging.WARNING if self.writes or not isinstance(error, RunError) else logging.DEBUG
            logger.log(level, f"AlignGuard: {what} failed and training goes on ({type(error).__name__}: {line})")
            logger.debug("details", exc_info=error)

    def draw(self, step: int) -> list[Probe]:
        """The probes that are asked at a step."""
        schedule, seed, pool = self.settings.schedule, self.settings.seed, self.settings.pool
        asked = draw(pool, schedule.draw, seed, step if schedule.rotate else 0)
        if self.reference.model is None and any(probe.id not in self.baseline for probe in asked):
            # a cache knows what was planned; an audit that was not (a run stopped early) asks among that
            known = [probe for probe in pool if probe.id in self.baseline]
            asked = draw(known, schedule.draw, seed, step)
        return asked

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[None]:
        """A progress bar, moved on by whoever asks."""
        with tqdm(total=total, desc=what, leave=False, disable=self._bar_off) as bar:
            self.asking.tick = lambda n: bar.update(n) and None
            yield

    def new_watch(self) -> Watch:
        """One that has seen no audit yet."""
        chosen = self.settings
        return Watch(self.baseline, chosen.stop, self.about["looks"], sides_of(chosen.pool), chosen.seed)

    def on_first(self, do: Callable[[], Any]) -> None:
        """What the process that keeps the record does, while the others wait; if it fails, all do."""
        self.ranks.together(lambda: do() if self.writes else None)

    # -----------------------------------------------------------------------------------------------------------------

    def _agree_on_start(self) -> None:
        first = self.ranks.first(self.reference.fingerprint)
        if self.ranks.whole:  # some loaders give the others no weights before the model is sharded
            self.reference.fingerprint = self.about["model_fingerprint"] = first
        elif first != self.reference.fingerprint:
            raise StartError(
                f"process {self.ranks.rank} begins with other weights than process 0; set the same seed on all before the "
                "model is made"
            )

    def _open_record(self, step: int, earlier: Run | None) -> None:
        if step > 0:
            self.store.rewind(step)
        elif earlier is not None and self.reference.cache is not None:
            self.store.rewind(-1)  # the cache on disk is still needed
        elif (aside := self.store.set_aside()) is not None:
            self.say(f"AlignGuard: output_dir holds the record of another run; it was moved to {aside}")
        self.store.prepare()

    def _alarm(self, verdict: Verdict) -> None:
        text = regression_text(verdict, self.args.output_dir, self.settings.quote)
        logger.warning(headline(verdict))
        self.say(text)
        self.guarded("the alert", lambda: self.tracker.alert(headline(verdict), text))
