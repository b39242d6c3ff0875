"""What a served model is held against: a record, a model on this machine, another server, or nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..auditing.answers import ask_baseline, settle_form
from ..auditing.asking import Asking, work
from ..auditing.forced import trace_advice
from ..auditing.prompts import keep_prompts
from ..auditing.result import Result
from ..auditing.served import ask_served, askable, settle_served
from ..errors import RunError
from ..judging.scorers import scorer_name
from ..model.chat import Chat
from ..model.endpoint import Endpoint
from ..model.loading import check_place, check_tokenizers, device_of, load_model, load_tokenizer
from ..model.meeting import meet
from ..model.served import Served
from ..probes.probe import Probe
from ..records.record import Record, read_record
from ..trainer.settings import Settings
from .said import tell


@dataclass
class Against:
    """
    What a served model is held against.

    Args:
        name (`str`, *optional*):
            As it is told; empty for nothing.
        baseline (`dict[str, Result]`, *optional*):
            What it has said, by probe id.
        answered (`str`, *optional*):
            Who generated that.
        dtype (`str`, *optional*):
            Of a model on this machine.
    """

    name: str = ""
    baseline: dict[str, Result] = field(default_factory=dict)
    answered: str = ""
    dtype: str = ""

    def notes(self, served: Served) -> list[str]:
        """That two engines have answered, where two have."""
        ours = served.server or "the server"
        if not self.name or self.answered == ours:
            return []
        return [
            f"two engines were used: {ours} for the model, and {self.answered} for the reference; their kernels round in ways of their own, "
            "most with bfloat16 or quantized weights, so that some answers may differ where the model does not"
        ]


def held_against(
    options: argparse.Namespace, settings: Settings, served: Served, asked: Sequence[Probe], asking: Asking
) -> Against:
    """
    The reference that a call names, asked what the model will be asked.

    Args:
        options (`argparse.Namespace`), settings ([`Settings`]):
            Of the call.
        served ([`Served`]):
            The model.
        asked (`Sequence[Probe]`):
            What it can be asked; another server may be able to answer less of it.
        asking (`Asking`):
            How.

    Raises:
        AlignGuardError: It cannot be had, or was asked otherwise.
    """
    name = options.reference
    if name is None:
        return Against()
    if name.startswith(("http://", "https://")):
        return _on_server(options, served, asked, asking)
    if (folder := _record_at(name)) is not None:
        return _on_record(name, read_record(folder), settings, asked, asking)
    return _here(options, asked, asking)


@contextmanager
def progress(asking: Asking, probes: Sequence[Probe], what: str) -> Iterator[None]:
    """A bar on stderr while these are asked."""
    samples = asking.sampling.samples if asking.sampling is not None else 1
    with tqdm(total=work(probes, True, samples), desc=what, file=sys.stderr) as bar:
        asking.tick = lambda n: bar.update(n) and None
        yield


def _on_server(options: argparse.Namespace, served: Served, asked: Sequence[Probe], asking: Asking) -> Against:
    endpoint = Endpoint(options.reference, options.engine_key_env)
    other = meet(endpoint, None, options.models[0], asking.chat, served.size, served.parallel)
    both = askable(other, asked)
    settle_served(other, both, asking)
    with progress(asking, both, "AlignGuard reference"):
        baseline = ask_served(other, both, asking)
    return Against(endpoint.url, baseline, other.server or "the other server")


def _here(options: argparse.Namespace, asked: Sequence[Probe], asking: Asking) -> Against:
    name, device = options.reference, device_of(options.device)
    check_place(name)
    if (theirs := load_tokenizer(name)) is not None:
        check_tokenizers(asking.chat.tokenizer, theirs)
    model = load_model(name, options.dtype, device)
    settle_form(model, asked, asking)
    with progress(asking, asked, "AlignGuard reference"):
        baseline = ask_baseline(model, list(asked), asking)
    if advice := trace_advice(model, baseline, asking):
        tell(advice)
    dtype = str(model.dtype).removeprefix("torch.")
    return Against(name, baseline, f"transformers in {dtype}", dtype)


def _record_at(name: str) -> str | None:
    """The folder of a record, given by itself or by the JSON that an audit printed; `None` where it is none."""
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".json":
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return str(told["record"])
        except (ValueError, KeyError, TypeError):
            raise RunError(
                f"--reference {name}: is not what `alignguard audit --json` prints; give that, or the folder of its record"
            ) from None
    folders = (path, path / "alignguard")
    return str(path) if any((folder / "baseline.json").is_file() for folder in folders) else None


def _on_record(name: str, record: Record, settings: Settings, asked: Sequence[Probe], asking: Asking) -> Against:
    """The model that a record is of, or of a run and of a comparison the start that it is held against."""
    about, chat = record.about, asking.chat
    ours: dict[str, Any] = {
        "tokenizer_fingerprint": chat.fingerprint(),
        "seed": settings.seed,
        "answer_tokens": settings.tokens.answer,
        "trace_tokens": settings.tokens.trace,
        "template_kwargs": settings.template_kwargs or None,
        "sampling": vars(settings.sampling) if settings.sampling is not None else None,
        "toxicity": scorer_name(settings.toxicity),
        "judge": scorer_name(settings.judge),
    }
    differ = [
        f"{key} {getattr(about, key)}, here {value}" for key, value in ours.items() if getattr(about, key) != value
    ]
    if differ:
        raise RunError(
            f"--reference {name}: was asked otherwise ({'; '.join(differ)}); give the options that it was asked with"
        )
    baseline = {
        p.id: record.baseline[p.id] for p in asked if p.id in record.baseline and record.baseline[p.id].probe == p
    }
    # what its server could not be asked, and this one can, is left out of both
    missing = [p for p in asked if p.id not in baseline and not ("choices" in about.left_out and p.judge == "choice")]
    if missing:
        raise RunError(
            f"--reference {name}: has no answer to {len(missing)} of {len(asked)} probes, {missing[0].id!r} for one; it was asked with "
            f"--draw {about.draw} --seed {about.seed}: give these, and the same --probes"
        )
    if tuple(about.tags) != tuple(chat.tags):
        chat.use(Chat(chat.tokenizer, chat.template_kwargs, (about.tags[0], about.tags[1])).form, "as on record")
    keep_prompts(baseline.values(), chat)
    engine = about.engine or {"reference": f"transformers in {about.dtype or 'the dtype of its training'}"}
    return Against(name, baseline, engine.get("reference") or engine["server"] or "a server", about.dtype)
