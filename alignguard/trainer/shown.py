"""Where what a run finds goes, on the process that keeps the record: on disk, to trackers, into the report, and to people."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from ..auditing.audit import Audit
from ..records.about import About
from ..records.pending import Pending
from ..records.store import Store
from ..report.alarm import alarms
from ..report.html import write_report
from ..report.terminal import format_table
from ..report.traced import format_trace
from ..tracing.found import Trace
from ..tracing.kept import read_traces, write_trace
from ..trackers.base import Trackers
from ..trackers.find import find_trackers
from ..trackers.late import Late
from ..verdicts.verdict import Verdict
from .console import Console
from .start import RunState

logger = logging.getLogger("alignguard")
_SECONDS = 60.0  # that a tracker may take for one thing it is told: they queue, or give up, much earlier


class Shown:
    """
    Where it goes. What fails is told once, and the others go on.

    Args:
        store ([`Store`]):
            The record.
        console ([`Console`]):
            A run's voice.
        output_dir (`str`):
            The trainer's.
        quote (`bool`):
            Whether prompts and answers are shown.
    """

    def __init__(self, store: Store, console: Console, output_dir: str, quote: bool) -> None:
        self.store, self.console, self.output_dir, self.quote = store, console, output_dir, quote
        self.report: Path = store.report(quote)
        self.pending = Pending(store)
        self.tracker = Trackers()
        self._late: Late | None = None  # trackers that are
        self._behind = False  # the report lacks the latest audit

    def begin(self, args: Any, trainer: Any, about: About, step: int) -> None:
        """
        Find the trackers, whose runs the trainer has opened or is about to open, and tell them what the run is.

        Args:
            args (`TrainingArguments`), trainer (`Trainer`, *optional*):
                The trainer's, and it, where it is known.
            about ([`About`]):
                What stands on record of the run.
            step (`int`):
                At which training begins.
        """
        guarded, told = self.console.guarded, about.to_dict()
        found = guarded("the tracker", lambda: find_trackers(args, trainer, self.quote)) or []
        self.tracker = Trackers(found, partial(guarded, seconds=_SECONDS))
        self._late = late = Late(args, trainer, self.quote, told, step)
        guarded("the tracker", lambda: late.await_those_without(found))
        guarded("the tracker", lambda: self.tracker.begin(told))

    def audit(self, found: Audit, state: RunState, verdict: Verdict, asked_anew: bool) -> None:
        """
        Keep and show an audit.

        Args:
            found ([`Audit`]):
                The latest.
            state ([`RunState`]):
                What the run goes on from, with all audits.
            verdict ([`Verdict`]):
                On all of them.
            asked_anew (`bool`):
                Whether the start was asked something for it that is not on record.
        """
        guarded, say = self.console.guarded, self.console.say
        self.pending.add(found, asked_anew)
        if (guarded("the store", lambda: self.pending.save(state.about, state.baseline)) or 0) > 1:
            say(f"AlignGuard: {self.store.root} can be written again, and nothing is missing in it")
        guarded("the tracker", lambda: self._come(found.step, found, verdict))
        guarded("the tracker", lambda: self.tracker.log(found, state.audits, verdict))
        guarded("the report", lambda: self._report(state, verdict))
        guarded("the tracker", lambda: self.tracker.keep(found.step, self.store.root, self.report))
        say(format_table(found, verdict))
        if verdict.new or verdict.newly_leaning:
            guarded("the alarm", lambda: self._alarm(verdict))

    def trace(self, found: Trace, state: RunState, verdict: Verdict) -> None:
        """Keep and show which rows a regression came from. Their texts are kept and not told: trackers read the terminal too."""
        guarded = self.console.guarded
        path = guarded("the trace's record", lambda: write_trace(self.store, found))
        guarded("the report", lambda: self._report(state, verdict))
        title = f"AlignGuard: where the regression of {found.side} came from"
        name = f"rows_{found.side.replace('/', '_')}"
        text = format_trace(found, quote=False)
        logger.warning(title)
        self.console.say(f"{text}\n\nrows with their texts  {path}" if path else text)
        guarded("the alert", partial(self.tracker.alert, name, title, text, text))

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        """Keep and show a pulse."""
        self.line("pulses.jsonl", {"step": step, "metrics": figures})
        self.console.guarded("the tracker", lambda: self._come(step))
        self.console.guarded("the tracker", lambda: self.tracker.pulse(step, figures))

    def line(self, name: str, line: dict[str, Any]) -> None:
        """Keep a line of another file."""
        self.console.guarded("the store", lambda: self.pending.line(name, line))

    def end(self, state: RunState, verdict: Verdict | None) -> None:
        """What could not be written before is tried once more, and else told of; what became of the weights goes on record."""
        waits = self.pending
        if state.about.put_back:
            waits.baseline = self._behind = True
        if waits.audits or waits.baseline:
            self.console.guarded("the store", lambda: waits.save(state.about, state.baseline))
        self.console.guarded("the store", waits.save_lines)
        if waits.audits:
            steps = ", ".join(str(audit.step) for audit in waits.audits)
            logger.warning(
                f"AlignGuard: {self.store.root} could not be written: audits of steps {steps} are not on record"
            )
        if self._behind and verdict is not None:
            self.console.guarded("the report", lambda: self._report(state, verdict))
        if state.about.put_back:
            last = state.audits[-1].step
            self.console.guarded("the tracker", lambda: self.tracker.keep(last, self.store.root, self.report))

    def _come(self, step: int, found: Audit | None = None, verdict: Verdict | None = None) -> None:
        """Trackers that are late: before training begins they miss an audit, and the first look in training brings them in."""
        late = self._late
        if late is not None and step > late.step:
            self._late = None
            late.come(self.tracker)
        elif late is not None and found is not None and verdict is not None:
            late.keep(found, verdict)

    def _report(self, state: RunState, verdict: Verdict) -> None:
        self._behind = True
        # trackers may take the report, and what was trained on is told to none
        pulses, traces = self.store.lines("pulses.jsonl"), [trace.bare for trace in read_traces(self.store)]
        write_report(self.report, state.about, state.audits, verdict, pulses, traces)
        self._behind = False

    def _alarm(self, verdict: Verdict) -> None:
        for name, title, text, bare in alarms(verdict, self.output_dir, self.quote):
            logger.warning(title)
            self.console.say(text)
            self.console.guarded("the alert", partial(self.tracker.alert, name, title, text, bare))
