"""Where figures are shown: the trackers that the trainer reports to.

Never through the trainer: its log() averages and clears its own metrics. Runs are the user's: none is opened, renamed
or finished here. An audit is shown once, when it is taken; those that a resumed run finds on record are not shown again.

| tracker | figures | flips and sample answers | regression | the record |
|---|---|---|---|---|
| W&B | history on train/global_step, two charts, summary | tables | alert | artifact |
| Trackio | log, with train/global_step | tables | alert | |
| TensorBoard | scalars | | text | |
| MLflow | metrics | tables | tag and text | |
| any other of `report_to` | by its own `on_log` | | | |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..auditing.audit import Audit
from ..verdicts.verdict import Verdict


class Tracker(Protocol):
    """What a tracker can do."""

    name: str

    def begin(self, about: dict[str, Any]) -> None:
        """Put the configuration of the run on record."""

    def log(self, audit: Audit, history: Sequence[Audit], verdict: Verdict) -> None:
        """Show an audit's figures, each once, at its step, and the charts over all audits so far, this one included."""

    def keep(self, step: int, figures: Path, report: Path) -> None:
        """Keep the record as it is after the audit of a step: the folder of its figures, and its report."""

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        """Show a pulse's figures at its step."""

    def alert(self, name: str, title: str, text: str, bare: str) -> None:
        """Tell the owner of the run; `name` says of what, for files; `bare` is the text without what was said, for files that the trainer may upload."""

    def end(self) -> None:
        """The trainer's own trackers have closed. One audit may still come: of a run that a later callback stopped."""


@dataclass
class Trackers:
    """
    Several trackers as one; none of them is the null object.

    Args:
        trackers (`Sequence[Tracker]`, *optional*):
            What there is.
        guarded (`Callable[[str, Callable[[], Any]], Any]`, *optional*):
            How each is called, by its name: so that one that fails is told of once, and the others go on.
    """

    trackers: Sequence[Tracker] = ()
    guarded: Callable[[str, Callable[[], Any]], Any] = lambda name, do: do()
    name = "the trackers"

    def begin(self, about: dict[str, Any]) -> None:
        self._each(lambda tracker: tracker.begin(about))

    def log(self, audit: Audit, history: Sequence[Audit], verdict: Verdict) -> None:
        self._each(lambda tracker: tracker.log(audit, history, verdict))

    def keep(self, step: int, figures: Path, report: Path) -> None:
        self._each(lambda tracker: tracker.keep(step, figures, report))

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        self._each(lambda tracker: tracker.pulse(step, figures))

    def alert(self, name: str, title: str, text: str, bare: str) -> None:
        self._each(lambda tracker: tracker.alert(name, title, text, bare))

    def end(self) -> None:
        self._each(lambda tracker: tracker.end())

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for tracker in self.trackers:
            self.guarded(tracker.name, partial(do, tracker))
