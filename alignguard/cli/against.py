"""What a served model is held against: a record, a model on this machine, another server, or nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from tqdm.auto import tqdm

from .. import __about__
from ..auditing.answers import ask_baseline, settle_form
from ..auditing.asking import Asking, work
from ..auditing.context import check_room, check_traces
from ..auditing.forced import budget_advice
from ..auditing.prompts import keep_prompts
from ..auditing.result import Result
from ..auditing.served import ask_served, askable, settle_served
from ..errors import RunError
from ..judging.scorers import scorer_name
from ..model.chat import Chat
from ..model.endpoint import Endpoint, host_of
from ..model.generation import context_size
from ..model.loading import check_place, check_tokenizers, device_of, load_model, load_tokenizer
from ..model.meeting import meet
from ..model.served import Served
from ..probes.probe import Probe
from ..records.about import APART
from ..records.record import Record, read_record
from ..records.store import MODELS
from ..trainer.settings import Settings
from .said import tell


@dataclass
class Against:
    """
    What a served model is held against, before it is asked.

    Args:
        asked (`list[Probe]`):
            What both can be asked.
        ask (`Callable[[], dict[str, Result]]`):
            Gives what it says, by probe id.
        name (`str`, *optional*):
            As it is told; empty for nothing.
        model (`str`, *optional*):
            Of another server, its name there.
        answered (`str`, *optional*):
            Who generates its answers.
        dtype (`str`, *optional*):
            Of a model on this machine.
        size (`int`, *optional*):
            Tokens that it reads at most, prompt and answer together.
        notes (`list[str]`, *optional*):
            What is to be known of it.
    """

    asked: list[Probe]
    ask: Callable[[], dict[str, Result]]
    name: str = ""
    model: str = ""
    answered: str = ""
    dtype: str = ""
    size: int = sys.maxsize
    notes: list[str] = field(default_factory=list)


def held_against(
    options: argparse.Namespace, settings: Settings, served: Served, asked: list[Probe], asking: Asking, size: int
) -> Against:
    """
    The reference that a call names, found and not asked yet.

    Args:
        options (`argparse.Namespace`), settings ([`Settings`]):
            Of the call.
        served ([`Served`]):
            The model.
        asked (`list[Probe]`):
            What it can be asked.
        asking (`Asking`):
            How.
        size (`int`):
            Tokens that MODEL's config says it reads.

    Raises:
        AlignGuardError: It cannot be had, is the model itself, was asked otherwise, or reads more or less than the model.
    """
    name = options.reference
    if name is None:
        found = Against(asked, lambda: _nothing(served, asked, asking), size=served.size)
    elif is_address(name):
        found = _on_server(options, served, asked, asking, size)
    elif (folder := _record_at(name)) is not None:
        found = _on_record(options, read_record(folder), settings, asked, asking)
    else:
        found = _here(options, served, asked, asking)
    served.check_tags()  # a record may have others
    check_room(served.size, served.endpoint.url, found.asked, asking)
    if cut := check_traces(served.endpoint.url, served.size, found.name, found.size, found.asked, asking):
        found.notes.append(cut)
    ours = served.server or "the server"
    if found.name and found.answered != ours:
        found.notes.append(
            f"two engines were used: {ours} for the model, and {found.answered} for the reference; their kernels round in ways of their "
            "own, most with bfloat16 or quantized weights, so that some answers may differ where the model does not"
        )
    return found


def is_address(name: str | None) -> bool:
    """Whether a reference is named by where it is served."""
    return name is not None and name.startswith(("http://", "https://"))


@contextmanager
def progress(asking: Asking, probes: Sequence[Probe], what: str) -> Iterator[None]:
    """A bar on stderr while these are asked."""
    samples = asking.sampling.samples if asking.sampling is not None else 1
    with tqdm(total=work(probes, True, samples), desc=what, file=sys.stderr) as bar:
        asking.tick = lambda n: bar.update(n) and None
        yield


def _nothing(served: Served, asked: list[Probe], asking: Asking) -> dict[str, Result]:
    settle_served(served, asked, asking)
    return {}


def _on_server(options: argparse.Namespace, served: Served, asked: list[Probe], asking: Asking, size: int) -> Against:
    """A model of another server, or another one of the same."""
    same_host = host_of(options.reference, "--reference") == host_of(options.engine, "--engine")
    key_env = options.reference_key_env or (options.engine_key_env if same_host else None)
    endpoint = Endpoint(options.reference, key_env, "--reference")
    other = meet(endpoint, options.reference_model, options.models[0], asking.chat, size, served.parallel, other=True)
    model = endpoint.shown(other.name, 80)
    if same_host and (endpoint.path, other.name) == (served.endpoint.path, served.name):
        raise RunError(
            f"--reference {endpoint.url}: its {model!r} is the model that is audited; give --reference-model the name of another one "
            "there, or the address of another server"
        )
    both = askable(other, asked)

    def ask() -> dict[str, Result]:
        settle_served(other, both, asking)
        served.check_tags()
        with progress(asking, both, "AlignGuard reference"):
            return ask_served(other, both, asking)

    notes = []
    if other.way is None:
        choices = f"{len(asked) - len(both)} choices are left out, and " * (len(both) < len(asked))
        notes.append(f"{choices}the reference has no leanings and refusal margins: at {endpoint.url}, {other.why_not}")
    name, answered = f"{model} at {endpoint.url}", other.server or "the other server"
    return Against(both, ask, name, model, answered, size=other.size, notes=notes)


def _here(options: argparse.Namespace, served: Served, asked: list[Probe], asking: Asking) -> Against:
    name, device = options.reference, device_of(options.device)
    check_place(name)
    if (theirs := load_tokenizer(name)) is not None:
        check_tokenizers(asking.chat.tokenizer, theirs)
    model = load_model(name, options.dtype, device)
    dtype = str(model.dtype).removeprefix("torch.")

    def ask() -> dict[str, Result]:
        settle_form(model, asked, asking)
        served.check_tags()
        with progress(asking, asked, "AlignGuard reference"):
            baseline = ask_baseline(model, asked, asking)
        if advice := budget_advice(model, baseline, asking):
            tell(advice)
        return baseline

    return Against(asked, ask, name, answered=f"transformers in {dtype}", dtype=dtype, size=context_size(model))


def _record_at(name: str) -> str | None:
    """The folder of a record, given by itself or by the JSON that an audit printed; `None` where it is none."""
    path = Path(name).expanduser()
    told_in = path / MODELS if (path / MODELS).is_file() else path
    if told_in.is_file() and told_in.suffix == ".json":
        try:
            told = json.loads(told_in.read_text(encoding="utf-8"))
            several = "models" in told
            record = str((told["models"][0] if several else told)["record"])
        except (ValueError, KeyError, TypeError, IndexError):
            raise RunError(
                f"--reference {name}: is not what `alignguard audit --json` prints; give that, or the folder of its record"
            ) from None
        if several:
            raise RunError(f"--reference {name}: is of several models; give the folder of one's record, e.g. {record}")
        return record
    folders = (path, path / "alignguard")
    return str(path) if any((folder / "baseline.json").is_file() for folder in folders) else None


def _on_record(
    options: argparse.Namespace, record: Record, settings: Settings, asked: list[Probe], asking: Asking
) -> Against:
    """The model that a record is of, or of a run and of a comparison the start that it is held against."""
    name, about, chat = options.reference, record.about, asking.chat
    ours: dict[str, Any] = {
        "tokenizer_fingerprint": chat.fingerprint(),
        "seed": settings.seed,
        "answer_tokens": settings.tokens.answer,
        "trace_tokens": settings.tokens.trace,
        "template_kwargs": settings.template_kwargs or None,
        "sampling": vars(settings.sampling) if settings.sampling is not None else None,
        "toxicity": scorer_name(settings.toxicity),
        "judge": scorer_name(settings.judge),
        **({"tags": tuple(chat.tags)} if settings.tags else {}),
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
    answered = engine.get("reference") or engine["server"] or "a server"
    both = [probe for probe in asked if probe.id in baseline]
    notes = [note for note in about.notes if note.startswith(APART)]
    if about.alignguard != __about__.__version__:
        notes.append(
            f"{APART}: {name} by AlignGuard {about.alignguard or 'of an unknown version'}, the model by {__about__.__version__}, whose "
            f"rules may be others; `alignguard rejudge {quote(options.output)}` judges both alike"
        )
    if left := len(asked) - len(both):
        notes.append(f"{left} choices are left out: the server that {name} is a record of could not be asked them")
    size = about.reads or sys.maxsize
    return Against(both, lambda: baseline, name, answered=answered, dtype=about.dtype, size=size, notes=notes)
