"""Section `servers` of `reliability.py`: a tracker's own server, ended in the middle of a run, is no loss and no end of the run.

Servers are processes of this machine, ended by SIGKILL before step 3 of 8: to be back in a few seconds, after two audits, or never; or
there is one that takes connections and says nothing. What the server has in the end is held against the record on disk: every figure
once, at its step, and every row of the tables. How the run ends is held against the same run without us. MLflow's client tries again
for four minutes by default; where nobody will be back it is told to do so for seconds (`MLFLOW_HTTP_REQUEST_MAX_RETRIES`,
`MLFLOW_HTTP_REQUEST_TIMEOUT`), for both.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from reliability_found import Found, row
from reliability_servers_run import LAST, project

KILLED, BACK = 3, 5  # before these steps
MLFLOW = os.environ.get("MLFLOW_SERVER", str(Path(sys.executable).with_name("mlflow")))  # skinny has no server
_SOON = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
_LIMIT = 300  # seconds, for a run


class NotThere(RuntimeError):
    """No such server is installed."""


@dataclass
class Server:
    """A server that can be ended and started again: at the same port, on the same files."""

    name: str
    folder: Path
    port: int
    command: list[str]
    environment: dict[str, str]  # of the server
    client: dict[str, str]  # of who speaks to it
    ready: str  # a path that it answers
    process: Any = field(default=None, init=False)
    silent: socket.socket | None = field(default=None, init=False)

    def start(self) -> None:
        """Until it answers; nothing where it does."""
        if self.process is not None:
            return
        self.kill()
        log = open(self.folder / "server.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            self.command, env={**os.environ, **self.environment}, cwd=self.folder, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.ready}", timeout=2):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise NotThere(f"{self.name}: no server: {(self.folder / 'server.log').read_text('utf-8')[-500:]}")

    def kill(self) -> None:
        """It and what it has started, at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            while self._listens():  # one of those that it has started
                time.sleep(0.05)
        if self.silent is not None:
            self.silent.close()
            self.silent = None

    def _listens(self) -> bool:
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", self.port)) == 0

    def say_nothing(self) -> None:
        """In its place there is one that takes connections and never answers."""
        self.kill()
        self.silent = socket.create_server(("127.0.0.1", self.port))  # the queue of those who wait is long enough


def mlflow_server(folder: Path) -> Server:
    """MLflow's own, on SQLite."""
    port = free_port()
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    command = [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    url = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return Server("MLflow", folder, port, command, {"MLFLOW_DISABLE_TELEMETRY": "true"}, url, "/health")


def trackio_server(folder: Path) -> Server:
    """`trackio show`, which others log to."""
    port = free_port()
    own = {"TRACKIO_DIR": str(folder / "server"), "TRACKIO_WRITE_TOKEN": "token", "GRADIO_NUM_PORTS": "1"}
    own |= {"GRADIO_SERVER_PORT": str(port), "BROWSER": "true"}
    url = {"TRACKIO_SERVER_URL": f"http://127.0.0.1:{port}", "TRACKIO_WRITE_TOKEN": "token"}
    url |= {"TRACKIO_DIR": str(folder / "client"), "HF_HUB_OFFLINE": "1"}
    return Server("Trackio", folder, port, [sys.executable, "-m", "trackio.cli", "show"], own, url, "/")


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def back_in_seconds(server: Server) -> None:
    """Killed, and started again while the run goes on."""
    server.kill()
    threading.Timer(3, server.start).start()


@dataclass(frozen=True)
class Case:
    """What is done to a server before which steps, and whether it is there again before the run has ended."""

    name: str
    done: dict[int, Callable[[Server], None]]
    back: bool
    client: dict[str, str] = field(default_factory=dict)


ALONE = Case("left alone", {}, True)
CASES = (
    Case("killed, back in seconds", {KILLED: back_in_seconds}, True),
    Case("killed, back after two audits", {KILLED: Server.kill, BACK: Server.start}, True, _SOON),
    Case("silent for two audits", {KILLED: Server.say_nothing, BACK: Server.start}, True, _SOON),
    Case("killed for good", {KILLED: Server.kill}, False, _SOON),
    Case("silent for good", {KILLED: Server.say_nothing}, False, _SOON),
)
SERVERS = {"mlflow": mlflow_server, "trackio": trackio_server}


def run(quick: bool) -> Found:
    """Every case of every server that is installed, servers side by side; `quick`: killed, and back after two audits."""
    cases = [case for case in CASES if not quick or case.name == "killed, back after two audits"]
    with ThreadPoolExecutor() as pool:  # most of the time is waited
        parts = [*pool.map(lambda tracker: all_of(tracker, cases), SERVERS)]
    rows = [row for part in parts for row in part.rows]
    figures = {"server_audits": sum(r["injected"] for r in rows), "server_audits_lost": sum(r["lost"] for r in rows)}
    servers = sum(bool(part.rows) for part in parts)
    return Found(rows, {"servers": servers, **figures}, [line for part in parts for line in part.wrong])


def all_of(tracker: str, cases: Sequence[Case]) -> Found:
    """The cases of one server; none, which is said, where it is not installed."""
    rows, wrong = [], []
    try:
        with served(tracker) as server:
            plain = trained(server, tracker, ALONE, watched=False)
            for case in cases:
                audits, lost, why = tried(server, tracker, case, plain)
                rows.append(row(f"{tracker}, {case.name}", audits, audits - bool(why), lost, audits - lost))
                wrong += [f"{tracker}, {case.name}: {line}" for line in why]
    except NotThere as error:
        print(f"not run: {error}", file=sys.stderr)
    return Found(rows, {}, wrong)


@contextmanager
def served(tracker: str) -> Iterator[Server]:
    """A server, for as long as it is needed; its files go with it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = SERVERS[tracker](Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


def tried(server: Server, tracker: str, case: Case, plain: dict[str, Any]) -> tuple[int, int, list[str]]:
    """
    A case, with us.

    Args:
        server ([`Server`]), tracker (`str`), case ([`Case`]):
            Which.
        plain (`dict[str, Any]`):
            How the run ends without us, its server left alone.

    Returns:
        `tuple[int, int, list[str]]`: audits on disk, how many of them are not on the server although it was there, and what does not hold.
    """
    alone = plain if case.back else trained(server, tracker, case, watched=False)
    ended = trained(server, tracker, case, watched=True)
    kept = ended["audits"]
    why = [f"{key} {ended[key]!r}, alone {alone[key]!r}" for key in ("steps", "raised") if ended[key] != alone[key]]
    why += ["other losses"] if ended["losses"] != plain["losses"] else []
    why += [f"audits on disk: {[a['step'] for a in kept]}"] if len(kept) != LAST + 1 else []
    why += [f"told {count} times: {line}" for line, count in ended["told"].items() if count > 1]
    server.start()  # to ask it what it has
    found, rows = (
        on_mlflow(server, ended["name"]) if tracker == "mlflow" else on_trackio(server, ended["name"], case.back)
    )
    expected = {(name, a["step"]): value for a in kept for name, value in a["metrics"].items()}
    twice = [key for key, values in found.items() if len(values) > 1] + [
        key for key, count in rows.items() if count > 1
    ]
    why += [f"twice on the server: {twice[:3]}"] if twice else []
    other = [key for key, (value, *_) in found.items() if abs(value - expected.get(key, inf)) > 1e-6]
    why += [f"other on the server: {other[:3]}"] if other else []
    missing = {step for name, step in expected if (name, step) not in found}
    missing |= {a["step"] for a in kept} - {step for name, step, _ in rows if name == "answers"}
    if tracker == "mlflow" and not case.back:
        missing -= {*range(KILLED, LAST + 1)}  # nobody was there
    if (case.back or tracker == "trackio") and rows["alert", KILLED, ""] != 1:
        why += ["the alert is not on the server"]
    return len(kept), len(missing), why + ([f"not on the server: audits of steps {sorted(missing)}"] if missing else [])


def trained(server: Server, tracker: str, case: Case, watched: bool) -> dict[str, Any]:
    """A run from its beginning to its end, and what was done to its server meanwhile."""
    server.start()
    name = f"{case.name} {'watched' if watched else 'alone'}"
    options = json.dumps({"tracker": tracker, "watched": watched, "gates": [*case.done], "name": name})
    script = Path(__file__).with_name("reliability_servers_run.py")
    env = {**os.environ, **server.client, **case.client, "MLFLOW_EXPERIMENT_NAME": name}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as where, open(Path(where) / "said", "w") as said:
        folder = Path(where)
        child = subprocess.Popen(
            [sys.executable, str(script), where, options], env=env, cwd=where, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        begun = time.monotonic()
        try:
            for step, do in case.done.items():
                _await(folder / f"at_{step}", child, begun)
                do(server)
                (folder / f"go_{step}").touch()
            _await(folder / "ended.json", child, begun)
            with suppress(subprocess.TimeoutExpired):  # threads of a tracker may go on
                child.wait(10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        told = Counter(
            re.findall(r"AlignGuard: [^\n]*(?:failed|lacks|not there)[^\n]*", (folder / "said").read_text("utf-8"))
        )
        record = folder / "run" / "alignguard" / "audits.jsonl"
        audits = [json.loads(line) for line in record.read_text("utf-8").splitlines()] if watched else []
        return {**json.loads((folder / "ended.json").read_text()), "told": told, "audits": audits, "name": name}


def _await(path: Path, child: Any, begun: float) -> None:
    while not path.exists():
        if child.poll() is not None or time.monotonic() - begun > _LIMIT:
            raise RuntimeError(f"no {path.name}: {(path.parent / 'said').read_text('utf-8')[-1500:]}")
        time.sleep(0.05)


_Figures = dict[tuple[str, int], list[float]]  # by name and step, as often as they are there
_Rows = Counter[tuple[str, int, str]]  # tables, steps and probes; and the alert, as "alert"


def on_mlflow(server: Server, name: str) -> tuple[_Figures, _Rows]:
    """What an MLflow server has of a run, as its client reads it."""
    os.environ.update(server.client, MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=server.client["MLFLOW_TRACKING_URI"])
    (ran,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    found: _Figures = {}
    for key in ran.data.metrics:
        if key.startswith("alignguard/"):
            for metric in client.get_metric_history(ran.info.run_id, key):
                found.setdefault((key, metric.step), []).append(metric.value)
    rows: _Rows = Counter()
    there = {file.path for file in client.list_artifacts(ran.info.run_id, "alignguard")}
    rows["alert", KILLED, ""] = int(f"alignguard/regression_step_{KILLED:05d}.txt" in there)
    for table in ("flips", "answers"):
        if f"alignguard/{table}.json" in there:
            path = client.download_artifacts(ran.info.run_id, f"alignguard/{table}.json", str(server.folder))
            held = json.loads(Path(path).read_text("utf-8"))
            at, probe = held["columns"].index("step"), held["columns"].index("probe")
            rows.update((table, cells[at], cells[probe]) for cells in held["data"])
    return found, rows


def on_trackio(server: Server, name: str, back: bool) -> tuple[_Figures, _Rows]:
    """
    What a Trackio server has of a run, as it keeps it, and what its client has kept on this machine: all of it, where the server is not
    back, and otherwise alerts, which it sends no second time.
    """
    found: _Figures = {}
    rows: _Rows = Counter()
    for side in ("server", "client"):
        path = server.folder / side / f"{project(name)}.db"
        if not path.exists():
            continue
        with closing(sqlite3.connect(path)) as database:
            logged = [json.loads(text) for (text,) in database.execute("SELECT metrics FROM metrics ORDER BY id")]
            rows["alert", KILLED, ""] += database.execute("SELECT COUNT(*) FROM alerts").fetchone()[0]
        for line in logged if side == "server" or not back else ():
            for key, value in line.items():
                if key in ("alignguard/flips", "alignguard/answers"):
                    rows.update((key.rpartition("/")[2], row["step"], row["probe"]) for row in value["_value"])
                elif key.startswith("alignguard/"):
                    found.setdefault((key, line["train/global_step"]), []).append(value)
    return found, rows
