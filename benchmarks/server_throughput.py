"""How many records a second the auditor's server takes, beside MLflow's tracking server.

    PYTHONPATH=. python benchmarks/server_throughput.py --mlflow OTHER_ENVIRONMENT/bin/mlflow

Fifty agents send optimisation steps at the same time, as fast as the server answers, while twenty
people turn pages. The agents are the product's own: each step is a record of nine numbers and the
digest of its batch, each flush a signed checkpoint that the server checks against every record,
keeps on disk, cosigns and sends back. MLflow gets the same nine numbers of the same steps, as many
in one call, into the same kind of database; it signs and checks nothing. Its readers ask for what
its pages ask for. MLflow is installed in an environment of its own; PostgreSQL is a private one
that is started here, with commits on disk, as is SQLite's.

One machine runs everything, so seconds on the clock are those of agents, readers and server
together. Records per second of processor time are the server's alone: of all its processes, and
those of its database.

In the end every session is read back: the records that agents have sent, each once, in their order,
under checkpoints that all fit into the last one.

What it printed is in benchmarks/results/server_throughput.md.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from itertools import cycle
from pathlib import Path

import requests
from pydantic import SecretStr

from auditkit.client import AuditorClient
from auditkit.evidence import merkle, notes, trust
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.canonical import sha256_hex
from auditor_server.home import create_home
from auditor_server.settings import DATABASE_URL_VARIABLE
from developer_agent.committer import Committer
from developer_agent.patience import patiently
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from schemas import StepRecord
from tests.agent.real_server import ORDER, Server, open_session
from tests.postgresql import PostgreSQL, private_postgresql
from tests.server.hand_built import make_order, sign_order

sys.path.insert(0, str(Path(__file__).parent))
from record_latency import step_fields  # the numbers of a step, all digits in use

# A person looks at a page before turning to the next.
LOOK_SECONDS = 1.0
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 180
# MLflow refuses calls when its database is busy; so does the agent's own client wait and go on.
MOST_ATTEMPTS = 50
RETRY_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """Who does what."""

    agents: int
    readers: int
    flushes: int
    steps: int

    @property
    def records(self) -> int:
        """Steps that all agents send together."""
        return self.agents * self.flushes * self.steps


@dataclass(frozen=True)
class Measured:
    """What one server did."""

    name: str
    steps: int
    per_second: float
    per_processor_second: float
    flush_milliseconds: list[float]
    page_milliseconds: list[float]


def main() -> None:
    """Measure each server with each database, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mlflow", type=Path, required=True, help="the program of that name")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--flushes", type=int, default=20, help="of each agent")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 100], help="in one flush")
    parser.add_argument("--workers", type=int, default=4, help="on PostgreSQL")
    arguments = parser.parse_args()
    version = subprocess.run(
        [arguments.mlflow, "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"{version}; {arguments.agents} agents, {arguments.readers} readers, "
        f"{arguments.flushes} flushes of each agent.\n"
    )
    print(
        "| server | steps a flush | steps/s | steps/s per core of the server | ratio "
        "| flush, median / p99 ms | page, median / p99 ms |\n|---|---|---|---|---|---|---|"
    )
    with private_postgresql() as postgresql:
        for steps in arguments.steps:
            load = Load(arguments.agents, arguments.readers, arguments.flushes, steps)
            for workers, database in ((1, None), (arguments.workers, postgresql)):
                ours = measure_auditkit(load, workers, database)
                peer = measure_mlflow(load, workers, database, arguments.mlflow)
                show(ours, ours.per_processor_second / peer.per_processor_second)
                show(peer, 1.0)


def show(measured: Measured, ratio: float) -> None:
    """Print a line of the table."""
    print(
        f"| {measured.name} | {measured.steps} | {measured.per_second:,.0f} "
        f"| {measured.per_processor_second:,.0f} | {ratio:.2f} "
        f"| {spread(measured.flush_milliseconds)} | {spread(measured.page_milliseconds)} |",
        flush=True,
    )


def spread(milliseconds: list[float]) -> str:
    """Return median and 99th percentile."""
    percentiles = statistics.quantiles(milliseconds, n=100)
    return f"{percentiles[49]:,.0f} / {percentiles[98]:,.0f}"


def measure_auditkit(load: Load, workers: int, postgresql: PostgreSQL | None) -> Measured:
    """Run the load against `auditor_server`, and read everything back."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        url = None if postgresql is None else new_database(postgresql, f"auditkit_{load.steps}")
        home = create_home(
            folder / "home",
            "The Auditor",
            "audit.example.org",
            datetime.now(UTC),
            database_url=None if url is None else SecretStr(url),
        )
        order = sign_order(home, make_order(ORDER, datetime.now(UTC)))
        command = [sys.executable, "-m", "auditor_server", "--home", str(home.path), "--port", "0"]
        command += ["--workers", str(workers)] if workers > 1 else []
        with running(command, {} if url is None else {DATABASE_URL_VARIABLE: url}) as process:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            address = f"http://{ready['host']}:{ready['port']}"
            server = Server(home, address, sha256_hex(order.payload))
            with AuditorClient(server.url, home.tokens["auditor"]) as auditor:
                auditor.add_order(order)
            agents = [Agent(folder / f"run{number}", server) for number in range(load.agents)]
            readers = [PageReader(server, agents[number]) for number in range(load.readers)]
            measured = measure(
                f"auditkit, {title(postgresql, workers)}",
                load,
                lambda: processor_seconds(process, postgresql),
                [agent.flush for agent in agents],
                [reader.look for reader in readers],
            )
            for agent in agents:
                agent.check_kept(server)
        return measured


class Agent:
    """One training: a session, its spool, and what brings it to the auditor."""

    def __init__(self, path: Path, server: Server) -> None:
        """Open a session, and send its first record."""
        self.folder = folder = RunFolder.create(path)
        self.client = server.client("developer")
        self.session_id = open_session(self.client, folder, server)
        root = trust.open_trust_root(self.client.trust_root(), datetime.now(UTC))
        self.spool = Spool.open(folder.spool_path)
        self.recorder = Recorder(self.spool)
        self.committer = Committer.open(folder, self.spool, self.client, root)
        self.step = 0
        self.committer.commit_next()

    def flush(self, steps: int) -> None:
        """Record steps and bring them to the auditor."""
        for _ in range(steps):
            self.step += 1
            self.recorder.record(StepRecord, **step_fields(self.step))
        patiently(self.committer.commit_next)

    def check_kept(self, server: Server) -> None:
        """Check that the server has exactly these records, under consistent checkpoints."""
        file = BytesIO()
        with AuditorClient(server.url, server.home.tokens["auditor"]) as auditor:
            auditor.bundle(self.session_id, file)
        bundle = read_bundle(file)
        kept = list(bundle.records)
        if kept != self.folder.records_path.read_bytes().splitlines():
            raise SystemExit(f"{self.session_id}: the server's records are not the agent's")
        steps = [json.loads(line)["step"] for line in kept if b'"kind":"step"' in line]
        if steps != list(range(1, self.step + 1)):
            raise SystemExit(f"{self.session_id}: steps are lost or doubled")
        for note in bundle.checkpoints:
            checkpoint = notes.parse_checkpoint(notes.parse(note).text)
            if checkpoint.root != merkle.root(kept[: checkpoint.size]):
                raise SystemExit(f"{self.session_id}: a checkpoint is of another log")
        self.committer.close()
        self.spool.close()
        self.client.close()


class PageReader:
    """A person who follows one session in a browser."""

    def __init__(self, server: Server, agent: Agent) -> None:
        """Sign in."""
        self.server = server
        self.browser = requests.Session()
        self.browser.headers.update({"Accept": "text/html", "Sec-Fetch-Site": "same-origin"})
        form = {"token": server.home.tokens["auditor"], "next": "/"}
        answer = self.browser.post(f"{server.url}/sign-in", data=form, allow_redirects=False)
        # The cookie is for TLS alone, which a proxy would add here.
        self.browser.headers["Cookie"] = answer.headers["Set-Cookie"].partition(";")[0]
        session = f"/sessions/{agent.session_id}"
        self.pages = cycle(["/", session, f"{session}/live", f"{session}/records", "/registry"])

    def look(self) -> None:
        """Turn to the next page."""
        self.browser.get(self.server.url + next(self.pages)).raise_for_status()


def measure_mlflow(
    load: Load, workers: int, postgresql: PostgreSQL | None, program: Path
) -> Measured:
    """Run the same load against MLflow's tracking server."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        url = f"sqlite:///{folder}/mlflow.sqlite3"
        if postgresql is not None:
            url = new_database(postgresql, f"mlflow_{load.steps}").replace(
                "+psycopg:", "+psycopg2:"
            )
        port = free_port()
        command = [str(program), "server", "--backend-store-uri", url, "--port", str(port)]
        command += ["--workers", str(workers), "--artifacts-destination", f"{folder}/artifacts"]
        with running(command, {"MLFLOW_DISABLE_TELEMETRY": "true"}) as process:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/health")
            api = f"{address}/api/2.0/mlflow"
            made = requests.post(f"{api}/experiments/create", json={"name": "load"}, timeout=60)
            experiment = made.json()["experiment_id"]
            runs = [Run(api, experiment) for _ in range(load.agents)]
            readers = [RunReader(runs[number]) for number in range(load.readers)]
            measured = measure(
                f"MLflow, {title(postgresql, workers)}",
                load,
                lambda: processor_seconds(process, postgresql),
                [run.flush for run in runs],
                [reader.look for reader in readers],
            )
            refused = sum(run.refused for run in runs)
            if refused:
                print(f"MLflow refused {refused} calls, which were sent again.", file=sys.stderr)
            return measured


class Run:
    """One training as MLflow's client logs it."""

    def __init__(self, api: str, experiment: str) -> None:
        """Begin a run."""
        self.api, self.experiment, self.step, self.refused = api, experiment, 0, 0
        self.http = requests.Session()
        begun = self.http.post(f"{api}/runs/create", json={"experiment_id": experiment})
        self.id = begun.json()["run"]["info"]["run_id"]

    def flush(self, steps: int) -> None:
        """Log steps in one call."""
        metrics = []
        for _ in range(steps):
            self.step += 1
            now = time.time_ns() // 1_000_000
            metrics += [
                {"key": key, "value": value, "timestamp": now, "step": self.step}
                for key, value in step_fields(self.step).items()
                if key not in {"step", "batch"}
            ]
        body = {"run_id": self.id, "metrics": metrics}
        for _ in range(MOST_ATTEMPTS):
            answer = self.http.post(f"{self.api}/runs/log-batch", json=body)
            if answer.ok:
                return
            self.refused += 1
            time.sleep(RETRY_SECONDS)
        raise SystemExit(f"refused {MOST_ATTEMPTS} times: {answer.text[:500]}")


class RunReader:
    """What MLflow's own pages ask for: the list of runs, one run, and one of its curves."""

    def __init__(self, run: Run) -> None:
        """Look at one run."""
        self.run = run
        self.http = requests.Session()
        self.turn = cycle([self.runs, self.one, self.curve, self.curve, self.one])

    def look(self) -> None:
        """Turn to the next page."""
        answer = next(self.turn)()
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:  # below: no such metric yet
            answer.raise_for_status()

    def runs(self) -> requests.Response:
        """Ask for the list."""
        body = {"experiment_ids": [self.run.experiment], "max_results": 100}
        return self.http.post(f"{self.run.api}/runs/search", json=body)

    def one(self) -> requests.Response:
        """Ask for one run."""
        return self.http.get(f"{self.run.api}/runs/get", params={"run_id": self.run.id})

    def curve(self) -> requests.Response:
        """Ask for one metric's history, as many points as the pages of auditkit show."""
        asked: dict[str, str | int] = {
            "run_id": self.run.id,
            "metric_key": "objective",
            "max_results": 500,
        }
        return self.http.get(f"{self.run.api}/metrics/get-history", params=asked)


def measure(
    name: str,
    load: Load,
    processor: Callable[[], float],
    flushes: list[Callable[[int], None]],
    looks: list[Callable[[], None]],
) -> Measured:
    """Let everybody work until the agents are done."""
    done = threading.Event()

    def send(flush: Callable[[int], None]) -> list[float]:
        return [milliseconds(lambda: flush(load.steps)) for _ in range(load.flushes)]

    def read(look: Callable[[], None]) -> list[float]:
        times = []
        while not done.is_set():
            times.append(milliseconds(look))
            done.wait(LOOK_SECONDS)
        return times

    used, started = processor(), time.perf_counter()
    with ThreadPoolExecutor(load.agents + load.readers) as pool:
        reading = [pool.submit(read, look) for look in looks]
        try:
            sent = [time for times in pool.map(send, flushes) for time in times]
            seconds, used = time.perf_counter() - started, processor() - used
        finally:
            done.set()
        seen = [time for each in reading for time in each.result()]
    return Measured(name, load.steps, load.records / seconds, load.records / used, sent, seen)


def milliseconds(work: Callable[[], None]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def title(postgresql: PostgreSQL | None, workers: int) -> str:
    """Say what a server runs on."""
    return "SQLite" if postgresql is None else f"PostgreSQL, {workers} workers"


def new_database(postgresql: PostgreSQL, name: str) -> str:
    """Make an empty database and return its URL."""
    postgresql.execute(f"CREATE DATABASE {name}")
    return postgresql.url(name)


def processor_seconds(process: subprocess.Popen[str], postgresql: PostgreSQL | None) -> float:
    """Return what a server's processes, and its database's, have used of the processor so far."""
    used = of_family(process.pid)
    if postgresql is not None:
        used += of_family(
            int((postgresql.folder / "data" / "postmaster.pid").read_text().split()[0])
        )
    return used


def of_family(parent: int) -> float:
    """Return the processor seconds of a process and its descendants, ended ones included."""
    fields = Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()
    used = sum(map(int, fields[11:15])) / TICKS
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            used += of_family(int(child))
    return used


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a server until the end of the block."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE if sys.executable in command else log,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def free_port() -> int:
    """Return a port that nobody uses at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(url: str) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            requests.get(url, timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"{url} did not answer in {START_SECONDS} s")


if __name__ == "__main__":
    main()
