"""What the pages show is so: code runs, with small models in place of large ones; commands, options, targets and paths exist."""

import ast
import inspect
import json
import re
import shlex
from dataclasses import replace

import datasets
import pytest
import trl
from pages import blocks, spans
from places import ROOT
from runs import TOKENS, sft, toxicity
from tiny import tiny_model, tiny_probes, tiny_rows

import alignguard
from alignguard import Chat, Schedule, load_probes
from alignguard.auditing.asking import Asking
from alignguard.auditing.figures import logged
from alignguard.cli.options import parser
from alignguard.probes.rows import probe_from_row

FIRST, *OTHERS = sorted(blocks("python"), key=lambda block: not block.where.startswith("README.md"))
MODELS = re.compile(r'"Qwen/[\w.-]+"')
TAKES_OPTIONS = ("AlignGuardCallback", "StopRule", "DriftBudget", "Schedule", "TokenBudget")


def ids(block):
    return block.where


# code ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stand_ins(tokenizer, tmp_path, monkeypatch):
    """What the pages' code finds around it: small models and rows under the names it uses."""
    monkeypatch.chdir(tmp_path)
    start = tmp_path / "start"
    tiny_model(tokenizer).save_pretrained(start)
    tokenizer.save_pretrained(start)
    rows = [{"prompt": f"How do I open jar {i}?", "label": "safe", "type": "t", "id": i} for i in range(4)]
    mine = {"id": "mine", "dimension": "safety", "family": "f", "judge": "own", "prompt": "How do I open a jar?"}
    for name in ("mine.jsonl", "my_probes.jsonl"):
        (tmp_path / name).write_text(json.dumps({**mine, "id": name}) + "\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "xstest_prompts.csv").write_text(
        "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n"
    )

    def load_dataset(name, config=None, split=None):
        return {"test": rows} if name == "Paul/XSTest" else tiny_rows()

    def config(output_dir, report_to=None, kind=trl.SFTConfig):
        small = {
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "use_cpu": True,
            "bf16": False,
            "save_strategy": "no",
        }
        return kind(output_dir, report_to=[], **small)

    trained = []

    def callback(trainer=None, kind=alignguard.AlignGuardCallback, **given):
        small = {"probes": tiny_probes(), "schedule": Schedule(at=(), draw=1), "tokens": TOKENS, "toxicity": toxicity}
        if "probes" in given and "judge" not in given:
            small["judge"] = lambda prompt, answer: 1.0
        trained.append(kind(trainer, **{**small, **given}))
        return trained[-1]

    def audit(model, tokenizer, probes, reference, whole=alignguard.audit):
        asking = Asking(Chat.of(model, tokenizer), TOKENS)
        return whole(model, tokenizer, load_probes(probes)[::80], reference, asking=asking)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(trl, "SFTConfig", config)
    monkeypatch.setitem(vars(alignguard), "AlignGuardCallback", callback)
    monkeypatch.setitem(vars(alignguard), "audit", audit)
    names = {name: getattr(alignguard, name) for name in alignguard.__all__}
    around = {
        "my_scorer": toxicity,
        "my_judge": lambda prompt, answer: 1.0,
        "replace": replace,
        "tokenizer": tokenizer,
        "trained": tiny_model(tokenizer, seed=1),
        "trainer": sft(tokenizer, tmp_path / "runs"),
    }
    return names | around, start, trained


@pytest.mark.parametrize("block", OTHERS, ids=ids)
def test_code_runs(block, stand_ins):
    names, start, _ = stand_ins
    code = compile(MODELS.sub(lambda name: repr(str(start)), block.code), block.where, "exec")
    if block.not_run:
        pytest.skip(block.not_run)
    exec(code, names)


def test_the_first_example_trains_and_is_audited(stand_ins):
    names, start, trained = stand_ins
    assert len(FIRST.code.splitlines()) <= 12
    exec(MODELS.sub(lambda name: repr(str(start)), FIRST.code), names)
    assert [audit.step for audit in trained[-1].audits] == [0, 2]
    assert names["trainer"].state.global_step == 2
    assert trained[-1].audits[-1].figure("kl/answer") > 0


@pytest.mark.parametrize("block", blocks("json"), ids=ids)
def test_rows_are_probes(block):
    for number, line in enumerate(block.code.splitlines()):
        probe_from_row(json.loads(line), f"{block.where}, line {number}")


@pytest.mark.parametrize("page, code", [s for s in spans() if re.match(rf"({'|'.join(TAKES_OPTIONS)})\(.*\)$", s[1])])
def test_options_that_are_named_exist(page, code):
    call = ast.parse(code).body[0].value
    known = inspect.signature(getattr(alignguard, call.func.id)).parameters
    assert {keyword.arg for keyword in call.keywords} <= {*known}


@pytest.mark.parametrize("page, code", [s for s in spans() if re.match(r"alignguard/[\w<>/]+$", s[1])])
def test_figures_that_are_named_are_logged(page, code):
    if (ROOT / code).exists() or code == "alignguard/":  # the package, or a run's folder
        return
    places = {
        "<dimension>": "safety",
        "<status>": "empty",
        "<benchmark>": "xstest",
        "<figure>": "harmful_refusal",
        "<side>": "refuse",
    }
    logged(re.sub(r"<\w+>", lambda place: places[place[0]], code.removeprefix("alignguard/")))


# commands ------------------------------------------------------------------------------------------------------------


def words(command):
    """A command line's words, without what a shell would take for itself."""
    command = re.split(r"\s[>|]\s", command.split("  #")[0].split(" # ")[0])[0]
    return shlex.split(command.removeprefix("$ "))


def commands(name):
    return [(page, code) for page, code in spans() if re.match(rf"(\$ )?{name} ", code)]


@pytest.mark.parametrize("page, code", commands("alignguard"))
def test_command_lines_are_understood(page, code):
    _, *rest = words(code)
    rest = ["audit" if word == "COMMAND" else word for word in rest]
    if rest in (["audit"], ["compare"], ["report"], ["probes"]):  # named, not called
        rest.append("--help")
    try:
        assert parser().parse_args(rest)
    except SystemExit as ended:
        assert ended.code == 0, f"{page}: {code}"


@pytest.mark.parametrize("page, code", commands("make"))
def test_targets_exist(page, code):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    # as in "make test   all tests; make test-oldest, with ..."
    named = re.findall(r"\bmake ((?:[A-Z]+=\S* )?[a-z][\w-]*)", code)
    assert named
    assert {name.rpartition(" ")[2] for name in named} <= targets


@pytest.mark.parametrize("page, code", [s for s in commands("python") if " -m " not in s[1]])
def test_scripts_and_their_options_exist(page, code):
    _, script, *options = words(code)
    text = (ROOT / script).read_text("utf-8")
    if script.startswith("recipes/"):
        text += (ROOT / "recipes" / "auditing.py").read_text("utf-8")
    for option in options:
        assert not option.startswith("--") or option in text or f"{option[2:]}:" in text, option


@pytest.mark.parametrize("page, code", commands("pip install -e"))
def test_extras_exist(page, code):
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = re.findall(
        r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2].partition("\n[")[0], re.M
    )
    assert set(re.search(r"\[(.*)\]", code)[1].split(",")) <= {*extras}


FILES = re.compile(r"^(?:\.ci|alignguard|benchmarks|docs|recipes|tests)/[\w./-]+$")


@pytest.mark.parametrize("page, code", [s for s in spans() if FILES.match(s[1]) and "." in s[1]])
def test_files_that_are_named_exist(page, code):
    if not re.search(r"[A-Z]{4}", code):  # DIMENSION, NAME: for you to fill in
        assert (ROOT / code).exists()
