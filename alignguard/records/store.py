"""What is on disk, and how a run resumes: figures in OUTPUT_DIR/alignguard/, texts in `_alignguard/` beside.

A trainer that pushes to the hub uploads all of its output_dir but checkpoints and what begins with `_`. What texts are in, or can be
told from, its owner alone can read.

| file | what it holds |
|---|---|
| alignguard/baseline.json | what was asked of whom: hashes, scorers, seed, the baseline's scores |
| alignguard/audits.jsonl | one line an audit, appended whole or not at all |
| alignguard/budget.jsonl | one line a step at which a drift budget was looked after |
| alignguard/pulses.jsonl | one line a pulse |
| alignguard/pace.jsonl | one line a step at which it was decided whether to audit, with the seconds that rests on |
| _alignguard/probes.jsonl | what has been asked so far |
| _alignguard/answers/baseline.parquet | the reference's answers, and what it was asked as token ids |
| _alignguard/answers/step_00080.parquet | the policy's at a step |
| _alignguard/rows/ | which rows of the training set went into which steps, and their tokens (see `rows.py`) |
| _alignguard/said/ | the same of completions that the model gave in training |
| _alignguard/traces/ | which rows regressions came from (see `tracing/kept.py`) |
| _alignguard/anchors.safetensors | what the start says to a drift budget's anchors |
| _alignguard/train_prompts.json | the training prompts drift is measured on |
| _alignguard/reference.safetensors | what the start said, token by token, where the reference is a cache |
| _alignguard/report.html | the report; in alignguard/ where it quotes nothing |
| _alignguard/.lock | held by the process that writes: two runs in one output_dir are refused |

Matched audits, and runs of earlier versions, have all of it in one folder.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..auditing.audit import Audit
from ..auditing.result import Result
from ..errors import RunError, one_line
from ..files import append_line, make_folder, write_text
from ..probes.probe import Probe
from .about import About, as_json
from .held import hold_record, let_go
from .lines import audit_of, probe_of, read_lines
from .results import read_results, write_results

MODELS = "models.json"  # of several models that were audited together, beside the folder of each one's record
# with texts in them, or what texts can be told from: of a run's audits and training, and what its start wrote before
_OF_AUDITS = ("answers/*", "rows/*", "said/*", "traces/*", "probes.jsonl")
_OF_START = ("train_prompts.json", "*.safetensors")
_TEXTS = (*_OF_AUDITS, *_OF_START)
_LINES = ("audits.jsonl", "budget.jsonl", "pulses.jsonl", "pace.jsonl")


class Store:
    """
    The record of one run.

    Args:
        root (`str` or `Path`):
            The folder of what may be shared: figures, hashes, scores.
        private (`str` or `Path`, *optional*):
            The folder of texts, and of what texts can be told from; the same one by default.
    """

    def __init__(self, root: str | Path, private: str | Path | None = None) -> None:
        self.root, self.private = Path(root), Path(root if private is None else private)
        self.cache = self.private / "reference.safetensors"
        self.anchors = self.private / "anchors.safetensors"
        self.prompts = self.private / "train_prompts.json"
        self.rows, self.said = self.private / "rows", self.private / "said"

    @classmethod
    def of_run(cls, output_dir: str | Path) -> Store:
        """The record of a training run."""
        return cls(Path(output_dir) / "alignguard", Path(output_dir) / "_alignguard")

    def report(self, quote: bool) -> Path:
        """Where the report is: among the texts, if it quotes them."""
        return (self.private if quote else self.root) / "report.html"

    def prepare(self) -> None:
        """
        Make the folders, and prove that they can be written to.

        Raises:
            RunError: They cannot.
        """
        for folder in (self.root, self.private):
            try:
                make_folder(folder, private=folder != self.root)
                trial = folder / ".trial"
                trial.write_text("")
                trial.unlink()
            except OSError as error:
                raise RunError(f"output_dir: {folder} cannot be written ({error.strerror}); choose another") from None

    def hold(self) -> None:
        """
        Write this record alone, until `let_go`, or the end of this process.

        Raises:
            RunError: Another process writes it.
        """
        if self.private.is_dir():
            hold_record(self.private.resolve())

    def let_go(self) -> None:
        """Others may write it now."""
        let_go(self.private.resolve())

    def part(self) -> None:
        """Records of earlier versions, this one's and those that were set aside, have texts among the figures: they are moved."""
        for root in (self.root, *self.root.parent.glob(f"{self.root.name}.*")):
            if found := [path for pattern in _TEXTS for path in root.glob(pattern)]:
                for path in [*root.glob("report.html"), *found]:
                    target = root.with_name(f"_{root.name}") / path.relative_to(root)
                    make_folder(root.with_name(f"_{root.name}"), private=True)
                    make_folder(target.parent, private=True)
                    path.chmod(0o600)
                    path.replace(target)

    def set_aside(self, keep: str = "") -> Path | None:
        """
        Move the record of an earlier run out of the way, or what is left of it in either folder; where to, or `None` where there was none.

        Args:
            keep (`str`, *optional*):
                Which of the files of texts are needed on, as a pattern: copies of them stay.

        Raises:
            RunError: Another process is still writing it.
        """
        if not self._is_there():
            return None
        self.hold()
        self.let_go()  # what is held is moved
        folders, number = {self.root, self.private}, 1
        while any(folder.with_name(f"{folder.name}.{number}").exists() for folder in folders):
            number += 1
        for folder in folders:
            if folder.exists():
                folder.rename(folder.with_name(f"{folder.name}.{number}"))
        for path in self.private.with_name(f"{self.private.name}.{number}").glob(keep) if keep else ():
            make_folder(self.private, private=True)
            shutil.copy2(path, self.private / path.name)
        aside = [folder.with_name(f"{folder.name}.{number}") for folder in (self.root, self.private)]
        return aside[0] if aside[0].exists() else aside[1]

    def _is_there(self) -> bool:
        """Whether there is anything of a record; in its folder of texts too, which people who remove the other may not see."""
        figures = any((self.root / name).exists() for name in (*_LINES, "baseline.json", MODELS))
        return figures or (self.private != self.root and any(self._texts(*_OF_AUDITS)))

    def _texts(self, *patterns: str) -> Iterator[Path]:
        return (path for pattern in patterns for path in self.private.glob(pattern))

    def begin_empty(self, keep: str = "") -> None:
        """
        Nothing of what is kept of training, or of a start, is there yet: an earlier attempt may have left some of it.

        Args:
            keep (`str`, *optional*):
                Which of the files of texts are needed on, as a pattern.
        """
        kept = set(self._texts(keep)) if keep else set()
        for path in {*self._texts("rows/*", "said/*", "traces/*", *_OF_START)} - kept:
            if not path.is_dir():
                path.unlink()

    def copy(self, other: Store) -> None:
        """Take over another record, whole."""
        for ours, theirs in ((self.root, other.root), (self.private, other.private)):
            if theirs.exists():
                shutil.copytree(theirs, ours, dirs_exist_ok=True)
        self.part()

    @property
    def baseline(self) -> Path:
        """Where the reference's answers are kept."""
        return self.private / "answers" / "baseline.parquet"

    # baseline ----------------------------------------------------------------------------------------------------

    def write_baseline(self, about: About, baseline: dict[str, Result]) -> None:
        """Write what was asked of whom, and the reference's answers and scores."""
        write_results(self.baseline, baseline)
        asked = [result.probe for result in baseline.values() if result.probe.judge != "none"]
        lines = "".join(json.dumps(asdict(probe)) + "\n" for probe in asked)
        write_text(self.private / "probes.jsonl", lines, private=True)
        scores = {probe.id: baseline[probe.id].score.value for probe in asked}
        leaning = {probe.id: value for probe in asked if (value := baseline[probe.id].leaning) is not None}
        told = {**about.to_dict(), "scores": scores, **({"leaning": leaning} if leaning else {})}
        text = json.dumps(told, indent=1, ensure_ascii=False, default=as_json)
        write_text(self.root / "baseline.json", text)

    def says(self, about: About, baseline: dict[str, Result]) -> bool:
        """Whether all of it is written down: the two are files of their own, and a run that was killed may have written one alone."""
        told = json.loads(json.dumps(about.to_dict(), default=as_json))
        return self.read_about() == About.from_dict(told) and self._tells_of(baseline)

    def _tells_of(self, baseline: dict[str, Result]) -> bool:
        try:
            told = {probe.id for probe in self.read_probes()}
        except (ValueError, TypeError):
            return False
        return told >= {id for id, result in baseline.items() if result.probe.judge != "none"}

    def read_about(self) -> About | None:
        """`baseline.json` without its scores, or `None` where there is none."""
        path = self.root / "baseline.json"
        if not path.exists():
            return None
        try:
            return About.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunError(f"{path}: is no record of a run ({one_line(error)})") from None

    def read_probes(self) -> list[Probe]:
        """What has been asked so far; nothing in a record of before it was kept."""
        return [probe_of(line) for line in read_lines(self.private / "probes.jsonl")]

    def read_baseline(self, pool: Sequence[Probe]) -> dict[str, Result]:
        """The reference's answers so far."""
        return read_results(self.baseline, pool) if self.baseline.exists() else {}

    def write_prompts(self, prompts: dict[str, list[int]]) -> None:
        """Write which training prompts drift is measured on, as token ids."""
        text = json.dumps(prompts)
        write_text(self.prompts, text, private=True)

    def read_prompts(self) -> dict[str, list[int]]:
        """The training prompts of this run."""
        return json.loads(self.prompts.read_text(encoding="utf-8")) if self.prompts.exists() else {}

    # audits ------------------------------------------------------------------------------------------------------

    def append(self, audit: Audit) -> None:
        """Add an audit: its answers first, then its line, so that a line always has its answers."""
        write_results(self.answers(audit.step), audit.results)
        line = json.dumps(
            {
                "step": audit.step,
                "time": audit.time,
                "scores": audit.scores,
                "metrics": audit.metrics,
                "profile": audit.profile,
                **({"unsure": audit.unsure} if audit.unsure else {}),
                **({"leaning": audit.leaning} if audit.leaning else {}),
            }
        )
        append_line(self.root / "audits.jsonl", line)

    def add(self, name: str, line: dict[str, Any]) -> None:
        """Add a line to one of the other files of lines: budget.jsonl, pulses.jsonl or pace.jsonl, which are written at any step."""
        append_line(self.root / name, json.dumps(line), durable=False)

    def answers(self, step: int) -> Path:
        """Where the answers of a step are kept."""
        return self.private / "answers" / f"step_{step:05d}.parquet"

    def lines(self, name: str = "audits.jsonl") -> list[dict[str, Any]]:
        """The lines of audits.jsonl, or of another file of lines; a last line cut off by a crash is left out."""
        return read_lines(self.root / name)

    def read_audits(self, pool: Sequence[Probe], last: int, answers: bool = True) -> list[Audit]:
        """All audits up to a step; only the last with its results, which would fill the memory of a long run, or none."""
        audits = [audit for line in self.lines() if (audit := audit_of(line)).step <= last]
        if audits and answers:
            audits[-1].results = read_results(self.answers(audits[-1].step), pool)
        return audits

    def rewind(self, step: int) -> list[str]:
        """
        Drop audits after `step`: they belong to a future that a run resumed at `step` will not have. What was cut off in the
        writing goes too.

        Returns:
            `list[str]`: which files had lines that cannot be read, and how many.
        """
        for path in (*self.root.glob("*.part"), *self.private.rglob("*.part")):
            path.unlink()
        for path in (*self.private.glob("answers/step_*.parquet"), *self.private.glob("traces/*-*.jsonl")):
            last = re.search(r"\d+$", path.stem)
            if last is not None and int(last[0]) > step:
                path.unlink()
        # what was decided, when to look, stays decided
        untouched = "pace.jsonl" if step >= 0 else ""
        return [note for name in _LINES if (note := self._rewind(name, None if name == untouched else step))]

    def _rewind(self, name: str, step: int | None) -> str:
        path = self.root / name
        if not path.exists():
            return ""
        lines = [line for line in self.lines(name) if isinstance(line.get("step"), int)]
        written = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        kept = [line for line in lines if step is None or line["step"] <= step]
        torn = len(written) - len(lines)
        if torn or len(kept) < len(lines):
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        return f"{name} ({torn})" if torn else ""
