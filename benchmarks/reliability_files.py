"""Wrong files, references, records, commands and recipes' options, as data; see `reliability_case.py`."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reliability_case import PROBE, Case, Ground

from alignguard import load_probes
from alignguard.cli import main

HERE = "mine.jsonl"
UTF8 = "save the file as UTF-8"
LIKE = '"id": ...'


def line(**change: Any) -> str:
    """A line of a probe file, with something changed; `None` leaves a field out."""
    return json.dumps({key: value for key, value in (PROBE | change).items() if value is not None})


CHOICE = {"judge": "choice", "expect": None, "options": ["a", "b"], "target": 0}
NUMBER = {"judge": "number", "expect": None}
# what a probe file holds, what must be told of it, and of what would be right
PROBE_FILES: list[tuple[str, str | bytes, str, str]] = [
    ("empty", "", HERE, "holds no probe"),
    ("white space", " \n\n\t\n", HERE, "holds no probe"),
    ("binary", bytes(range(255, 0, -1)), "line 1", UTF8),
    ("UTF-16", line().encode("utf-16"), "line 1", UTF8),
    ("Latin-1", line(prompt="caf").replace("caf", "café").encode("latin-1"), "line 1", UTF8),
    ("a list in one line", f"[{line()}]", "line 1", LIKE),
    ("indented JSON", json.dumps(PROBE, indent=1), "line 1: not JSON", "one JSON object a line"),
    ("cut off", line()[:-9], "line 1: not JSON", "one JSON object a line"),
    ("a comment", "# mine\n" + line(), "line 1: not JSON", "one JSON object a line"),
    ("a csv", "id,prompt\na,How?\n", "line 1: not JSON", "one JSON object a line"),
    ("a number", "5", "line 1", LIKE),
    ("brackets, very deep", "[" * 200_000, "line 1: not JSON", "one JSON object a line"),
    ("a number of 5,000 digits", '{"id": ' + "9" * 5000 + "}", "line 1", "one JSON object a line"),
    ("a huge line", b"x" * 2_000_000, "line 1: longer than", "one probe a line"),
    ("nothing in it", "{}", "line 1: the field 'id' is missing", LIKE),
    ("no prompt", line(prompt=None), "line 1", "give either 'prompt' or 'messages'"),
    ("the second line", line() + "\n" + line(id="b", dimension="safty"), "line 2", "did you mean 'safety'?"),
    ("after \\r\\n", line() + "\r\n" + line(id="b", judge="refuse"), "line 2", "did you mean 'refusal'?"),
    ("the same id", line() + "\n" + line(), "'a'", "ids must be unique"),
    ("an id that is a number", line(id=5), "'id'", "a non-empty string"),
    ("an id of two lines", line(id="a\nb\x1b[2J", dimension="x"), "no dimension 'x'", "there are: safety"),
    ("a dimension of two lines", line(dimension="safe\nty\x1b[31m"), "\\x1b[31m", "'safety'"),
    ("an empty family", line(family=""), "'family'", "a non-empty string"),
    ("a field with a slip", line(expet="refuse"), "'expet'", "did you mean 'expect'?"),
    ("expect", line(expect="block"), "'expect'", "'refuse' or 'comply'"),
    ("messages as text", line(prompt=None, messages="How?"), "'messages'", '"role", "content"'),
    ("a nested turn", line(prompt=None, messages=[[{"role": "user"}]]), "'messages'", '"role", "content"'),
    ("a role", line(prompt=None, messages=[{"role": "human", "content": "x"}]), "'human'", "system, user or assistant"),
    ("a role in a list", line(prompt=None, messages=[{"role": ["user"], "content": "x"}]), "['user']", "system, user or assistant"),
    ("the last turn", line(prompt=None, messages=[{"role": "assistant", "content": "x"}]), "the last turn", "the user's"),
    ("a prompt of objects", line(prompt={"text": "How?"}), "an empty prompt or turn", "give the question"),
    ("one option", line(**CHOICE | {"options": ["a"]}), "'options'", "two or more"),
    ("options as text", line(**CHOICE | {"options": "ab"}), "'options'", "two or more"),
    ("a target beyond", line(**CHOICE | {"target": 2}), "2", "0 to 1"),
    ("a target that is true", line(**CHOICE | {"target": True}), "True", "0 to 1"),
    ("secrets as text", line(judge="leak", expect=None, secrets="4711"), "'secrets'", "a list of non-empty strings"),
    ("a secret that is empty", line(judge="leak", expect=None, secrets=[" "]), "'secrets'", "a list of non-empty strings"),
    ("expected NaN", '{"id":"a","dimension":"reasoning","family":"f","prompt":"?","judge":"number","expected":NaN}', "nan", "a number"),
    ("expected infinity", line(**NUMBER, expected="1e999"), "'1e999'", "a number"),
    ("expected true", line(**NUMBER, expected=True), "True", "a number"),
    ("expected in words", line(**NUMBER, expected="seven"), "'seven'", "a number"),
    ("a secret of a book", line(judge="leak", expect=None, secrets=["x" * 5000]), "5,000", "2,000 characters at most"),
    ("half a character", line(prompt="How \ud800?"), "'\\ud800'", "write it whole"),
    ("a group in a list", line(group=["harmful"]), "'group'", "a string"),
]  # fmt: skip

PLACES: list[tuple[str, Callable[[Ground], Any], str, str]] = [
    ("probes: no such file", lambda g: load_probes(str(g.folder / "no.jsonl")), "no.jsonl", "give a JSONL file"),
    ("probes: a folder", lambda g: load_probes(_folder(g, "folder.jsonl")), "folder.jsonl", "give a JSONL file"),
    ("probes: a folder without a suffix", lambda g: load_probes(_folder(g, "pool")), "pool", ".jsonl"),
    ("probes: a broken link", lambda g: load_probes(_link(g, "broken.jsonl", "nowhere")), "broken.jsonl", "give a JSONL file"),
    ("probes: a link to itself", lambda g: load_probes(_link(g, "loop.jsonl", "loop.jsonl")), "loop.jsonl", "give a JSONL file"),
    ("probes: a csv", lambda g: load_probes(g.file("mine.csv", "id\n")), "mine.csv", "end in .jsonl"),
    ("probes: a name of a null byte", lambda g: load_probes("a\0b.jsonl"), "a\\x00b.jsonl", "give a JSONL file"),
]  # fmt: skip


def _folder(ground: Ground, name: str) -> str:
    (ground.folder / name).mkdir(exist_ok=True)
    return str(ground.folder / name)


def _link(ground: Ground, name: str, target: str) -> str:
    (ground.folder / name).unlink(missing_ok=True)
    (ground.folder / name).symlink_to(target)
    return str(ground.folder / name)


class Bomb:
    """A pickle that runs something when it is read: it makes a folder whose name would tell."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (EXPLODED,)


EXPLODED = "/tmp/alignguard-exploded"


def pickled(there: Path) -> None:
    """Weights as a pickle that runs something, in place of safetensors."""
    (there / "model.safetensors").unlink()
    (there / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Bomb()}))


def cut(there: Path) -> None:
    """Weights that end half way."""
    path = there / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def adapter(there: Path, base: str | None = "./nowhere") -> None:
    """An adapter whose base is not there."""
    for path in there.iterdir():
        path.unlink()
    (there / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))


def told_in_config(there: Path, **change: Any) -> None:
    """A config with something else in it."""
    path = there / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


# of a model's folder: what is done to it, and the message's two parts
MODELS: list[tuple[str, Callable[[Path], Any], str, str]] = [
    ("no weights", lambda there: (there / "model.safetensors").unlink(), "model.safetensors", "cannot be loaded"),
    ("weights cut off", cut, "cannot be loaded", "save_pretrained"),
    ("a pickle alone", pickled, "cannot be loaded", "save_pretrained"),
    ("weights that are text", lambda there: (there / "model.safetensors").write_text("no"), "cannot be loaded", "save_pretrained"),
    ("another shape", lambda there: told_in_config(there, hidden_size=48), "cannot be loaded", "save_pretrained"),
    ("another layer", lambda there: told_in_config(there, num_hidden_layers=3), "lacks weights of the model", "layers.2"),
    ("a kind that is none", lambda there: told_in_config(there, model_type="lama"), "lama", "cannot be loaded"),
    ("a config that is no JSON", lambda there: (there / "config.json").write_text("{"), "cannot be loaded", "save_pretrained"),
    ("a config that is a list", lambda there: (there / "config.json").write_text("[1]"), "cannot be loaded", "save_pretrained"),
    ("code of its own", lambda there: told_in_config(there, model_type="mine", auto_map={"AutoConfig": "x.X"}), "cannot be loaded", "save_pretrained"),
    ("an adapter without its base", adapter, "nowhere", "no such folder"),
    ("an adapter that names no base", lambda there: adapter(there, None), "names no base", "base_model_name_or_path"),
    ("an empty folder", lambda there: [path.unlink() for path in there.iterdir()], "holds no model", "config.json"),
]  # fmt: skip
TOKENIZERS: list[tuple[str, Callable[[Path], Any], str, str]] = [
    ("a tokenizer that is cut off", lambda there: (there / "tokenizer.json").write_text('{"version"'), "cannot be loaded", "save_pretrained"),
    ("a template that is none", lambda there: (there / "chat_template.jinja").write_text("{% for %}"), "chat template", "mend the template"),
    ("a template that reaches out", lambda there: (there / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}"), "chat template", "mend the template"),
]  # fmt: skip


def lines_of(there: Path, change: Callable[[str], str], name: str = "alignguard/audits.jsonl") -> None:
    """A file of the record, changed."""
    (there / name).write_text(change((there / name).read_text()))


def about(there: Path, **change: Any) -> None:
    """What the record says of itself, changed."""
    lines_of(there, lambda text: json.dumps(json.loads(text) | change), "alignguard/baseline.json")


READ, COPY = "its record cannot be read", "take it from a copy, or audit anew"
PARQUET = "_alignguard/answers/baseline.parquet"
# of a record: what is done to it, and the message's two parts
RECORDS: list[tuple[str, Callable[[Path], Any], str, str]] = [
    ("no record", shutil.rmtree, "no such folder", "output_dir"),
    ("an empty folder", lambda there: shutil.rmtree(there / "alignguard"), "no record is in it", "output_dir"),
    ("half a baseline.json", lambda there: lines_of(there, lambda text: text[: len(text) // 2], "alignguard/baseline.json"), "baseline.json: is no record of a run", COPY),
    ("a baseline.json of something else", lambda there: (there / "alignguard/baseline.json").write_text("[1, 2]"), "baseline.json: is no record of a run", COPY),
    ("a baseline.json in Latin-1", lambda there: (there / "alignguard/baseline.json").write_bytes(b'{"seed": "\xe9"}'), "baseline.json: is no record of a run", COPY),
    ("a rule that is none", lambda there: about(there, stop={"alpha": 7}), "alpha", "between 0 and 1"),
    ("a rule of a newer version", lambda there: about(there, stop={"alpha": 0.05, "newer": 1}), "newer", COPY),
    ("a rule that is a list", lambda there: about(there, stop=[1]), "stop is [1]", COPY),
    ("tags that are a number", lambda there: about(there, tags=5), "baseline.json: is no record of a run", COPY),
    ("a seed in words", lambda there: about(there, seed="zero"), "seed is 'zero'", COPY),
    ("looks in words", lambda there: about(there, looks="many"), "looks is 'many'", COPY),
    ("no audit", lambda there: (there / "alignguard/audits.jsonl").unlink(), "no audit is on record", "/m"),
    ("lines cut off", lambda there: lines_of(there, lambda text: "".join(part[:40] + "\n" for part in text.splitlines())), "no audit is on record", "/m"),
    ("lines that are lists", lambda there: lines_of(there, lambda text: "[1]\n"), "no audit is on record", "/m"),
    ("lines that are numbers", lambda there: lines_of(there, lambda text: "5\n"), "no audit is on record", "/m"),
    ("a step that is a path", lambda there: lines_of(there, lambda text: text.replace('"step": 5', '"step": "../../../etc/passwd"')), "step", COPY),
    ("a step below 0", lambda there: lines_of(there, lambda text: text.replace('"step": 5', '"step": -5')), "step", COPY),
    ("a time beyond all calendars", lambda there: lines_of(there, lambda text: text.replace('"time": 0.0', '"time": 1e300')), "time", COPY),
    ("a time in words", lambda there: lines_of(there, lambda text: text.replace('"time": 0.0', '"time": "now"')), "time", COPY),
    ("metrics that are a list", lambda there: lines_of(there, lambda text: text.replace('"metrics": {', '"metrics": [5], "m": {')), "metrics", COPY),
    ("a metric in words", lambda there: lines_of(there, lambda text: text.replace('"metrics": {', '"metrics": {"alignguard/kl/odd": "low", ')), "metrics", COPY),
    ("a score of 7", lambda there: lines_of(there, lambda text: text.replace('"scores": {"s1": 1.0', '"scores": {"s1": 7.0')), "scores", COPY),
    ("mixed runs", lambda there: lines_of(there, lambda text: text.replace('"s1"', '"other"')), "other", COPY),
    ("no answers of the start", lambda there: (there / PARQUET).unlink(), "baseline.parquet is missing", "_alignguard"),
    ("answers cut off", lambda there: (there / PARQUET).write_bytes((there / PARQUET).read_bytes()[:200]), READ, COPY),
    ("answers that are empty", lambda there: (there / PARQUET).write_bytes(b""), READ, COPY),
    ("no answers of the last audit", lambda there: (there / "_alignguard/answers/step_00005.parquet").unlink(), "step_00005.parquet", COPY),
    ("probes of a newer version", lambda there: lines_of(there, lambda text: text.replace('"id"', '"newer": 1, "id"'), "_alignguard/probes.jsonl"), "newer", COPY),
]  # fmt: skip

# of the command line: START, FOLDER and RUN stand for what is right
COMMANDS: list[tuple[list[str], str, str]] = [
    ([], "COMMAND", "required"),
    (["adit", "START"], "'adit'", "audit"),
    (["--loud"], "COMMAND", "required"),
    (["audit"], "MODEL", "required"),
    (["audit", "START"], "--reference", "required"),
    (["report"], "RUN", "required"),
    (["report", "RUN", "--output", "FOLDER/no/page.html"], "no such folder as", "a file in a folder that is there"),
    (["report", "RUN", "--output", "FOLDER"], "a folder", "give a file"),
    (["report", "RUN", "--max-missed-drop", "15"], "15", "between 0 and 1"),
    (["report", "RUN", "--max-missed-drop", "much"], "much", "between 0 and 1"),
    (["report", "FOLDER/right.jsonl"], "right.jsonl", "output_dir"),
    (["compare"], "RUN", "required"),
    (["compare", "RUN", "FOLDER/nowhere"], "nowhere", "output_dir"),
    (["card", "RUN", "--json", "--metadata"], "--metadata", "not allowed with"),
    (["card", "RUN", "--into", "FOLDER/no.md"], "no.md", "give a model card"),
    (["card", "RUN", "--into", "FOLDER/README.md", "--json"], "--into", "--output"),
    (["card", "RUN", "--output", "FOLDER/no/card.md"], "no such folder as", "a file in a folder that is there"),
    (["export", "RUN"], "--to", "required"),
    (["export", "RUN", "--to", "csv"], "csv", "inspect"),
    (["export", "RUN", "--to", "inspect", "--output", "FOLDER/right.jsonl"], "right.jsonl", "a folder"),
    (["probes"], "WHAT", "required"),
    (["probes", "show", "core", "--size", "-1"], "-1", "1 or more"),
    (["probes", "show", "core", "--size", "few"], "few", "1 or more"),
    (["probes", "check", "safty"], "safty", "did you mean 'safety'?"),
    (["probes", "check", "xstest", "--path", "FOLDER/no.csv"], "no.csv", "give a csv"),
    (["probes", "check", "mine", "--path", "FOLDER/right.jsonl"], "no benchmark 'mine'", "there are: xstest"),
]
# options of `alignguard audit`, on a model that is right
AUDITS: list[tuple[list[str], str, str]] = [
    (["--draw", "0"], "not 0", "1 or more"),
    (["--draw", "many"], "many", "1 or more"),
    (["--draw", "2.5"], "2.5", "1 or more"),
    (["--seed", "-1"], "-1", "0 or more"),
    (["--seed", "x"], "x", "0 or more"),
    (["--alpha", "0"], "0", "between 0 and 1"),
    (["--alpha", "nan"], "nan", "between 0 and 1"),
    (["--alpha", "small"], "small", "between 0 and 1"),
    (["--min-drop", "3"], "3", "between 0 and 1"),
    (["--temperature", "-1"], "-1", "0 or more"),
    (["--temperature", "hot"], "hot", "0 or more"),
    (["--temperature", "1", "--top-p", "7"], "7", "up to 1"),
    (["--samples", "3"], "--samples", "--temperature"),
    (["--top-p", "0.9"], "--top-p", "--temperature"),
    (["--looks", "0"], "0", "1 or more"),
    (["--dtype", "int8"], "int8", "float32"),
    (["--device", "tpu:9000"], "tpu:9000", "auto"),
    (["--tags", "<think>"], "--tags", "2 arguments"),
    (["--tags", "", "</think>"], "'</think>'", "two thinking tags"),
    (["--template-kwargs", "{"], "not JSON", "--template-kwargs"),
    (["--template-kwargs", "[1]"], "[1]", "a JSON object"),
    (["--probes", "safty"], "safty", "did you mean 'safety'?"),
    (["--probes", "FOLDER/no.jsonl"], "no.jsonl", "give a JSONL file"),
    (["--probes", "xstest=FOLDER/no.csv"], "no.csv", "give a csv"),
    (["--probes"], "--probes", "at least one argument"),
    (["--toxicity", "./no/guard"], "./no/guard", "hub id"),
    (["--judge", "./no/guard"], "./no/guard", "hub id"),
    (["--output", "FOLDER"], "in use", "choose a new one"),
    (["--output", "FOLDER/right.jsonl"], "right.jsonl", "a folder"),
    (["--output", "/proc/nowhere"], "/proc/nowhere", "choose another"),
    (["--html", "FOLDER/no/page.html"], "no such folder as", "a file in a folder that is there"),
    (["--html", "FOLDER"], "a folder", "give a file"),
    (["--max-missed-drop", "nan"], "nan", "between 0 and 1"),
    (["--frobnicate"], "--frobnicate", "unrecognized"),
]

# options of recipes/sft.py
RECIPES: list[tuple[list[str], str, str]] = [
    (["--draw", "0"], "0", "1 or more"),
    (["--draw", "few"], "few", "int"),
    (["--audit_at", "0"], "0", "steps from 1 on"),
    (["--audit_every", "-1"], "-1", "0 or more"),
    (["--overhead", "5"], "5", "between 0 and 1"),
    (["--answer_tokens", "0"], "0", "at least 1"),
    (["--alpha", "2", "--stop"], "2", "between 0 and 1"),
    (["--max_kl", "-1"], "-1", "above 0"),
    (["--mix_anchors", "-5"], "-5", "0 or more"),
    (["--train_rows", "0"], "0", "1 or more"),
    (["--adit_at", "5"], "--adit_at", "--audit_at"),
]


def _recipe(ground: Ground, options: list[str]) -> None:
    import auditing
    from trl import SFTConfig

    before = sys.argv
    sys.argv = ["sft.py", "--output_dir", str(ground.folder / "trained"), "--model_name_or_path", "x", *options]
    sys.argv += ["--report_to", "none"]

    def parse() -> None:
        _, _, _, audits = auditing.parse(SFTConfig)
        audits.settings()

    try:
        auditing.run(parse)
    finally:
        sys.argv = before


def _filled(ground: Ground, text: str) -> str:
    if "START" in text:
        return text.replace("START", ground.start)
    return text.replace("RUN", str(ground.record) if "RUN" in text else "").replace("FOLDER", str(ground.folder))


def _commanded(ground: Ground, options: list[str]) -> int:
    ground.probes()
    return main([_filled(ground, option) for option in options])


CASES = [
    Case(f"probe file: {how}", lambda g, c=content: load_probes(g.file(HERE, c)), *said, "probe files")
    for how, content, *said in PROBE_FILES
]
CASES += [Case(*place, "probe files") for place in PLACES]
CASES += [
    Case(f"model: {how}", lambda g, do=do: g.audit(model=g.copied("m", do, "start")), *said, "models")
    for how, do, *said in [*MODELS, *TOKENIZERS]
]
CASES += [
    Case(f"reference: {how}", lambda g, do=do: g.audit(reference=g.copied("m", do, "start")), *said, "references")
    for how, do, *said in MODELS
]
CASES += [
    Case(f"record: {how}", lambda g, do=do: main(["report", g.copied("m", do)]), *said, "records")
    for how, do, *said in RECORDS
]
CASES += [
    Case(f"alignguard {' '.join(given)}", lambda g, o=given: _commanded(g, o), *said, "options")
    for given, *said in COMMANDS
]
CASES += [
    Case(
        f"alignguard audit {' '.join(given)}", lambda g, o=given: g.audit(*(_filled(g, x) for x in o)), *said, "options"
    )
    for given, *said in AUDITS
]
CASES += [
    Case(f"sft.py {' '.join(given)}", lambda g, o=given: _recipe(g, o), *said, "recipes") for given, *said in RECIPES
]
