"""What trackers are given in a long run: figures once an audit; what grows is not given whole each time, and is there in the end."""

import contextlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from reports import run_of

from alignguard.trackers.tables import shown_anew

AUDITS = 300


@pytest.fixture(scope="module")
def run():
    """An audit and a verdict with flips and answers, told again and again at other steps."""
    audits, verdict = run_of({0: 1.0, 1: 0.25})
    return [replace(audits[-1], step=step, time=1000.0 + step) for step in range(AUDITS)], replace(verdict, since={})


def told(tracker, run, audits):
    history, verdict = run
    for step in audits:
        tracker.log(history[step], history[: step + 1], replace(verdict, step=step))


def test_what_grows_is_shown_after_each_of_the_first_audits_and_then_when_a_twentieth_is_new():
    shown = [count for count in range(1, 10_001) if shown_anew(count)]
    assert shown[:20] == [*range(1, 21)]
    assert all(later <= 1.06 * count + 1 for count, later in itertools.pairwise(shown))
    assert sum(count for count in shown if count <= 500) < 25 * 500
    assert sum(shown) < 25 * 10_000


class Server:
    """As much of an MLflow client as is needed: what it was sent, and what is on it."""

    def __init__(self):
        self.metrics, self.files, self.tags, self.sent, self.away = {}, {}, {}, 0, False

    def _take(self, size):
        if self.away:
            raise ConnectionError("nobody\nthere")
        self.sent += size

    def log_batch(self, run_id, metrics=()):
        self._take(len(metrics))
        # of one time and step there is one value: the SQL stores' primary key
        self.metrics |= {(metric.key, metric.step, metric.timestamp): metric.value for metric in metrics}

    def log_table(self, run_id, data, artifact_file):
        old = json.loads(self.files.get(artifact_file, '{"data": []}'))
        rows = old["data"] + [list(row) for row in zip(*data.values(), strict=True)]
        self.log_text(run_id, json.dumps({"columns": list(data), "data": rows}), artifact_file)

    def log_text(self, run_id, text, artifact_file):
        self._take(len(text))
        self.files[artifact_file] = text

    def log_dict(self, run_id, about, artifact_file):
        self.log_text(run_id, json.dumps(about), artifact_file)

    def set_tag(self, run_id, key, value):
        self._take(1)
        self.tags[key] = value

    def list_artifacts(self, run_id, path=None):
        self._take(0)
        return [SimpleNamespace(path=file) for file in self.files]

    def download_artifacts(self, run_id, path, dst_path):
        Path(dst_path, "table").write_text(self.files[path])
        return str(Path(dst_path, "table"))

    def rows(self, name):
        table = json.loads(self.files[f"alignguard/{name}.json"])
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


@pytest.fixture
def server(monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    from alignguard.trackers import outbox as module

    server = Server()
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: server)
    monkeypatch.setattr(module, "_PATIENCE", 0)
    return server


def mlflow_run(quote=True):
    from alignguard.trackers.mlflow_run import MlflowRun

    tracker = MlflowRun("run", quote)
    tracker.begin({})
    return tracker


def whole(server, steps):
    """Every figure of every audit, and every row of the tables, once."""
    found = sorted(step for key, step, _ in server.metrics if key == "alignguard/kl/answer")
    rows = server.rows("answers")
    assert found == [*steps] and [step for step in steps for _ in range(len(rows) // len(found))] == [
        row["step"] for row in rows
    ]
    assert [*dict.fromkeys(row["step"] for row in server.rows("flips"))] == [*steps]


def test_mlflow_is_sent_its_tables_about_twenty_times_not_once_an_audit(run, server):
    sent = {}
    for audits in (AUDITS // 3, AUDITS):
        tracker = mlflow_run()
        told(tracker, run, range(audits))
        tracker.end()
        whole(server, range(audits))
        sent[audits] = server.sent
        server.__init__()
    assert sent[AUDITS] < 4 * sent[AUDITS // 3]  # in the square of audits it would be nine times as much


def test_what_mlflow_missed_while_its_server_was_away_is_sent_when_it_is_back(run, server, caplog):
    tracker = mlflow_run()
    told(tracker, run, range(3))
    server.away = True
    for step in (3, 4):
        with pytest.raises(ConnectionError):
            told(tracker, run, [step])
        with pytest.raises(ConnectionError):
            tracker.alert("regression", "title", "text", "bare")
    with pytest.raises(ConnectionError):
        tracker.alert("rows_safety", "other", "text", "bare")  # of the same step
    server.away = False
    told(tracker, run, [5])
    whole(server, range(6))
    assert server.tags == {"alignguard.regression": "title", "alignguard.rows_safety": "other"}
    assert "alignguard/rows_safety_step_00004.txt" in server.files
    assert {"alignguard/regression_step_00003.txt", "alignguard/regression_step_00004.txt"} < server.files.keys()
    tracker.end()
    whole(server, range(6))
    assert not caplog.text


def test_a_server_that_is_away_is_not_asked_at_each_audit_where_each_try_takes_minutes(run, server, monkeypatch):
    from alignguard.trackers import outbox as module

    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, time=lambda: clock.now)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_PATIENCE", 20)
    tries, take = [], server._take

    def patient(size):
        if server.away:
            tries.append(clock.now)
            clock.now += 240
        take(size)

    server._take = patient
    tracker = mlflow_run()
    server.away = True
    for step in range(100):
        clock.now += 100
        with contextlib.suppress(ConnectionError):
            told(tracker, run, [step])
    assert len(tries) == 3 and sum(240 for _ in tries) <= clock.now / 13
    server.away = False
    tracker.end()
    whole(server, range(100))


def test_a_place_for_files_that_is_shut_keeps_no_figures_back(run, server, caplog):
    def shut(*what):
        raise PermissionError("no files here")

    tracker = mlflow_run()
    server.log_table = shut
    for step in range(3):
        with pytest.raises(PermissionError):
            told(tracker, run, [step])
    assert sorted(step for key, step, _ in server.metrics if key == "alignguard/kl/answer") == [0, 1, 2]
    with pytest.raises(PermissionError):
        tracker.end()
    assert "MLflow lacks the figures of 0 audits, and 2 files" in caplog.text


def test_what_mlflow_lacks_at_the_end_is_told(run, server, caplog):
    tracker = mlflow_run()
    told(tracker, run, range(2))
    server.away = True
    for step in (2, 3):
        with pytest.raises(ConnectionError):
            told(tracker, run, [step])
    with pytest.raises(ConnectionError):
        tracker.end()
    assert [record.getMessage() for record in caplog.records] == [
        "AlignGuard: MLflow lacks the figures of 2 audits, and 2 files; the record on disk has them"
    ]


def test_a_table_of_which_nobody_knows_whether_it_arrived_is_not_there_twice(run, server):
    tracker = mlflow_run()
    for step in range(4):
        write = server.log_text

        def drop(run_id, text, artifact_file, write=write):
            write(run_id, text, artifact_file)
            raise ConnectionError("reset")

        server.log_text = drop
        with pytest.raises(ConnectionError):
            told(tracker, run, [step])
        server.log_text = write
    tracker.end()
    whole(server, range(4))


def test_a_resumed_run_adds_to_the_tables_that_are_there(run, server):
    told(mlflow_run(), run, range(3))
    tracker = mlflow_run(quote=False)
    told(tracker, run, range(3, 5))
    whole(server, range(5))
    rows = server.rows("answers")
    assert rows[0]["answer"] and rows[-1]["answer"] is None


class Wandb:
    """A run that keeps what it is given."""

    def __init__(self):
        self.logged, self.summary = [], {}

    def log(self, shown):
        self.logged.append(shown)

    def define_metric(self, *args, **kwargs):
        pass


def test_wandb_charts_and_tables_grow_without_being_logged_once_an_audit(run):
    wandb = pytest.importorskip("wandb")
    from alignguard.trackers.wandb_run import WandbRun

    kept = Wandb()
    tracker = WandbRun(kept, True, SimpleNamespace(end=lambda: None))
    told(tracker, run, range(AUDITS))
    assert [shown["train/global_step"] for shown in kept.logged] == [*range(AUDITS)]
    assert all("alignguard/kl/answer" in shown for shown in kept.logged)
    tables = [shown["alignguard/answers"] for shown in kept.logged if "alignguard/answers" in shown]
    charts = [shown for shown in kept.logged if "alignguard/chart/score_vs_drift" in shown]
    assert len(tables) == len(charts) == sum(map(shown_anew, range(1, AUDITS + 1)))
    tracker.end()
    *_, last = kept.logged
    assert "alignguard/kl/answer" not in last and isinstance(last["alignguard/flips"], wandb.Table)
    assert len(last["alignguard/chart/toxicity_vs_drift"].table.data) == AUDITS
    assert {row[0] for row in last["alignguard/answers"].data} == {*range(AUDITS)}
    tracker.end()
    assert kept.logged[-1] is last  # nothing is new
