"""What quotes answers its owner alone can read; secrets reach no record; nothing asks for a network without a hub id."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from places import HELPERS
from recorded import recorded
from runs import guard, sft
from tracker_records import INSTALLED

from alignguard import DriftBudget, RunError
from alignguard.cli import main
from alignguard.files import make_folder, write_text, write_whole
from alignguard.records.record import read_record
from alignguard.records.store import Store

ANCHORS = ["Name a colour of the sky.", "Count from one to five."]
SECRETS = ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD")


@pytest.fixture
def open_to_all():
    """The least careful umask there is."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder):
    return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", ["copy", "cache"])
def test_what_quotes_answers_its_owner_alone_can_read(kind, tokenizer, tmp_path, open_to_all):
    budget = DriftBudget(max_kl=0.05, batch=2, anchors=ANCHORS)
    sft(tokenizer, tmp_path, [guard(reference=kind, budget=budget)]).train()
    found = modes(tmp_path / "_alignguard")
    assert {"probes.jsonl", "anchors.safetensors", "report.html", "answers/baseline.parquet"} <= found.keys()
    assert ("reference.safetensors" in found) == (kind == "cache")
    folders = {name: found.pop(name) for name in ("answers", "rows")}
    assert set(folders.values()) == {0o700} and set(found.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "_alignguard").stat().st_mode) == 0o700
    assert set(modes(tmp_path / "alignguard").values()) <= {0o644, 0o666}  # figures may be shared


def test_what_is_made_of_a_record_and_quotes_it_is_private_too(tmp_path, open_to_all):
    recorded(tmp_path / "run")
    made = tmp_path / "made"
    made.mkdir()
    main(["report", str(tmp_path / "run"), "--output", str(made / "report.html")])
    main(["report", str(tmp_path / "run"), "--no-quote", "--output", str(made / "bare.html")])
    for to in ("inspect", "lm-eval"):
        main(["export", str(tmp_path / "run"), "--to", to, "--quote", "--output", str(made / to)])
    found = {name: mode for name, mode in modes(made).items() if (made / name).is_file()}
    assert found.pop("bare.html") == 0o666
    assert len(found) > 6 and {mode for name, mode in found.items() if "results_" not in name} == {0o600}


def test_a_matched_audit_keeps_its_texts_to_its_owner(tmp_path, open_to_all):
    store = Store(tmp_path / "audit")
    store.prepare()
    store.write_prompts({"a": [1, 2]})
    assert modes(tmp_path / "audit") == {"train_prompts.json": 0o600}


def test_a_private_file_is_so_from_its_first_byte_on(tmp_path, open_to_all):
    seen = []
    write_whole(tmp_path / "a", lambda beside: seen.append(stat.S_IMODE(beside.stat().st_mode)), private=True)
    write_whole(tmp_path / "b", lambda beside: seen.append(stat.S_IMODE(beside.stat().st_mode)))
    assert seen == [0o600, 0o666]
    make_folder(tmp_path / "x" / "y", private=True)
    assert stat.S_IMODE((tmp_path / "x" / "y").stat().st_mode) == 0o700
    (tmp_path / "c").write_text("shared")
    write_text(tmp_path / "c", "quoted", private=True)
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o600


def test_texts_of_an_earlier_version_become_private_when_they_are_moved(tmp_path, open_to_all):
    store = Store.of_run(tmp_path)
    store.prepare()
    (tmp_path / "_alignguard").rmdir()
    (store.root / "probes.jsonl").write_text("{}\n")
    store.part()
    assert modes(tmp_path / "_alignguard") == {"probes.jsonl": 0o600}
    assert stat.S_IMODE((tmp_path / "_alignguard").stat().st_mode) == 0o700


# ---------------------------------------------------------------------------------------------------------------------


def test_a_link_beside_a_file_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "report.html.part").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "report.html").symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "report.html", "ours")
    assert (tmp_path / "elsewhere").read_text() == "mine" and (tmp_path / "report.html").read_text() == "ours"


@pytest.mark.parametrize("name", ["_alignguard", "_alignguard/answers/step_00008.parquet", "alignguard/audits.jsonl"])
def test_a_record_leads_nowhere_else(tmp_path, name):
    recorded(tmp_path / "run")
    path = tmp_path / "run" / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=f"{name}: a link that leads out of the record, to .*/elsewhere; put there what"):
        read_record(str(tmp_path / "run"))
    path.unlink()
    (tmp_path / "elsewhere").rename(path)
    (tmp_path / "link").symlink_to(tmp_path / "run")  # one that people give is theirs
    assert read_record(str(tmp_path / "link")).audits


# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[[], INSTALLED], ids=["alone", "with trackers"])
def run(request, tmp_path_factory):
    """The main job in a process that may reach nobody, with secrets in its environment, its arguments and its model's config."""
    root = tmp_path_factory.mktemp("offline")
    out = root / "run"
    out.mkdir()
    env = os.environ | {name: f"SECRET-{name}-4711" for name in SECRETS} | {
        "WANDB_MODE": "offline", "WANDB_DIR": str(root), "WANDB_DATA_DIR": str(root / "data"), "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(root / "trackio"), "MLFLOW_TRACKING_URI": (root / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    env = {name: value for name, value in env.items() if name != "HF_HUB_OFFLINE"} | {"HF_HUB_OFFLINE": "0"}
    trackers = json.dumps([name for name in request.param if name != "trackio"])  # its dashboard is a server of its own
    command = [sys.executable, HELPERS / "offline_run.py", out, trackers]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, done.stdout + done.stderr


@pytest.mark.slow
def test_the_main_job_asks_for_no_network(run):
    root, said = run
    assert json.loads((root / "run" / "network.json").read_text()) == []
    assert (root / "run" / "_alignguard" / "report.html").exists() and "failed and training goes on" not in said


@pytest.mark.slow
def test_secrets_reach_neither_record_nor_tracker_nor_terminal(run):
    root, said = run
    files = {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}
    assert len(files) > 5 and "SECRET-" not in said
    leaks = {str(path) for path, content in files.items() if b"SECRET-" in content}
    assert not [path for path in leaks if "alignguard" in path]
    # what the trainer's own reporters tell of a model is its whole config; nothing else of it, and nothing of ours
    assert all("wandb" in path or "mlruns" in path or "tfevents" in path for path in leaks), leaks
    for content in files.values():
        assert not [name for name in (*SECRETS, "args", "tokenizer") if f"SECRET-{name}-".encode() in content]
