"""Wrong input, and what is told of it: `reliability_arguments.py` and `reliability_files.py` hold the cases, as data.

A case says how something wrong is given, what of it must stand in the message, and what of that which would be right. It is clear
where both do, in one line, by an error of `alignguard.errors`, or by an exit code: 1 with a line, or argparse's 2.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import environment  # noqa: F401  (no network, no account: before anything reads it)
from audited import save
from reports import judged, run_of
from runs import guard, sft
from tiny import tiny_model, tiny_probes, tiny_tokenizer
from transformers import logging

from alignguard.cli import main
from alignguard.errors import AlignGuardError
from alignguard.records.about import About
from alignguard.records.store import Store

logging.set_verbosity_error()  # what is told is told by us
PROBE = {"id": "a", "dimension": "safety", "family": "f", "judge": "refusal", "expect": "refuse", "prompt": "How?"}


@dataclass(frozen=True)
class Case:
    """
    Something wrong that is given.

    Args:
        how (`str`):
            How it is given, in a line of code or words.
        give (`Callable[[Ground], Any]`):
            Gives it; what it returns, if anything, is an exit code.
        found (`str`), right (`str`):
            What must stand in the message: of what was found, and of what would be right.
        kind (`str`, *optional*, defaults to `"arguments"`):
            What sort of thing is wrong.
    """

    how: str
    give: Callable[[Ground], Any]
    found: str
    right: str
    kind: str = "arguments"


@dataclass(frozen=True)
class Told:
    """What was told of a case: its line, and why that is not clear; empty where it is."""

    line: str
    wrong: str = ""


class Ground:
    """A folder to be wrong in: what is right beside it is made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def tokenizer(self) -> Any:
        return tiny_tokenizer()

    @cached_property
    def model(self) -> Any:
        return tiny_model(self.tokenizer)

    @cached_property
    def start(self) -> str:
        """A model's folder, with its tokenizer."""
        return save(self.model, self.tokenizer, self.folder / "start")

    @cached_property
    def record(self) -> Path:
        """The record of a run, as it is right."""
        store = Store.of_run(self.folder / "run")
        store.prepare()
        audits, _ = run_of({0: 1.0, 5: 1.0})
        store.write_baseline(About(pool_hash="x", max_steps=5), judged(1.0, "kind"))
        for audit in audits:
            store.append(audit)
        return store.root.parent

    def copied(self, name: str, give: Callable[[Path], Any], of: str = "record") -> str:
        """A copy of the record, or of the model, with something done to it."""
        there = self.folder / name
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(getattr(self, of), there)
        give(there)
        return str(there)

    def file(self, name: str, content: str | bytes) -> str:
        """A file that holds this."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def probes(self) -> str:
        """A probe file that is right."""
        return self.file("right.jsonl", json.dumps(PROBE) + "\n")

    def audit(self, *options: str, model: str = "", reference: str = "") -> int:
        """`alignguard audit` with something wrong."""
        given = ["audit", model or self.start, "--reference", reference or self.start, "--probes", self.probes()]
        return main([*given, "--output", str(self.folder / "out"), *options])

    def train(self, config: dict[str, Any] | None = None, **settings: Any) -> None:
        """A run that must not come to its first step."""
        sft(self.tokenizer, self.folder / "trained", [guard(**settings)], **(config or {})).train()
        raise AssertionError("it trained")


def told(case: Case, ground: Ground) -> Told:
    """Give it, and see what is told."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = case.give(ground)
    except AlignGuardError as error:
        line, code = str(error), 1
    except SystemExit as stop:
        said = [text for text in err.getvalue().splitlines() if "error: " in text] or [str(stop.code)]
        line, code = said[-1], stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        return Told("", f"a traceback: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    else:
        said = [text for text in err.getvalue().splitlines() if text.startswith("alignguard: ")]
        line = said[-1] if said else ""
    return Told(line, _unclear(case, line, code))


def _unclear(case: Case, line: str, code: Any) -> str:
    if code not in (1, 2):
        return "it was accepted"
    if "\n" in line or not line:
        return "it is not one line"
    missing = [text for text in (case.found, case.right) if text not in line]
    return f"it does not say {missing[0]!r}: {line}" if missing else ""


def callback(**settings: Any) -> Any:
    """`AlignGuardCallback` of tiny settings, with something wrong."""
    return guard(**({"probes": tiny_probes()} | settings))
