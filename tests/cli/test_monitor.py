"""Following a real server's registry with `auditkit monitor`, also when it lies or dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from auditkit.cli.registry_follower import Follower
from auditkit.client import AuditorClient
from auditkit.evidence import canonical, merkle
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.monitoring import EntriesWithheldError, Mark, MarkError
from auditkit.evidence.registry_head import REGISTRY_SUFFIX, RegistryKeyError
from auditkit.evidence.trust import sign_trust_root
from auditkit.evidence.trust_history import TrustHistory
from auditor_server import registry
from auditor_server.context import Auditor
from auditor_server.home import Home, create_home
from auditor_server.settings import ServerSettings
from auditor_server.trust_files import TrustFile
from schemas import ConsistencyProof, RegistryEntries, Role, TrustRoot
from tests.evidence.registries import KEYS, ORIGIN, Registry, digest_of, trust_root

KILLS = 3


def monitor(url: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(url, folder), "--once", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def command(url: str, folder: Path) -> list[str]:
    state, root = folder / "mark.json", folder / "trust-root.json"
    options = ("--trust-root", str(root), "--state", str(state))
    return [sys.executable, "-c", "from auditkit.cli import main; main()", "monitor", url, *options]


def mark_in(folder: Path) -> Mark:
    return Mark.from_bytes((folder / "mark.json").read_bytes(), ORIGIN + REGISTRY_SUFFIX)


# A real server


@dataclass
class RealServer:
    """`python -m auditor_server` in a process of its own, and its home."""

    home: Home
    process: subprocess.Popen[str] = field(init=False)
    url: str = field(init=False)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "auditor_server", "--home", str(self.home.path), "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        self.url = f"http://{ready['host']}:{ready['port']}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    path = tmp_path_factory.mktemp("auditor") / "home"
    server = RealServer(create_home(path, "The Auditor", ORIGIN, datetime.now(UTC)))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def auditor(server: RealServer) -> Iterator[Auditor]:
    """The same home, in this process: whatever it registers, the server shows."""
    auditor = Auditor.open(ServerSettings(home=server.home.path))
    yield auditor
    auditor.store.close()


def register(auditor: Auditor, *names: object) -> None:
    for name in names:
        registry.register(auditor, "verdict", digest_of(name), "session-1")


@pytest.fixture
def folder(server: RealServer, tmp_path: Path) -> Path:
    (tmp_path / "trust-root.json").write_bytes(server.home.trust_root_bytes)
    return tmp_path


def test_a_real_registry_is_followed(server: RealServer, auditor: Auditor, folder: Path) -> None:
    register(auditor, "a", "b", "c")
    first = monitor(server.url, folder)
    assert first.returncode == 0, first.stderr
    assert digest_of("b") in first.stdout
    assert "all checked" in first.stdout
    size = mark_in(folder).head.checkpoint.size
    register(auditor, "d")
    second = monitor(server.url, folder, "--json", "--session", "session-1", "--most-age", "600")
    assert second.returncode == 0, second.stderr
    report = json.loads(second.stdout)
    assert (report["size"], report["new"]) == (size + 1, 1)
    assert [entry["digest"] for entry in report["entries"]] == [digest_of("d")]
    third = monitor(server.url, folder, "--json", "--session", "another")
    assert json.loads(third.stdout)["new"] == 0


def test_the_mark_of_an_older_monitor_is_gone_on_from(
    server: RealServer, auditor: Auditor, folder: Path
) -> None:
    register(auditor, "before")
    assert monitor(server.url, folder).returncode == 0
    state = folder / "mark.json"
    kept = json.loads(state.read_bytes())
    del kept["counts"]
    state.write_text(json.dumps(kept))
    register(auditor, "since")
    done = monitor(server.url, folder, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [entry["digest"] for entry in report["entries"]] == [digest_of("since")]
    assert mark_in(folder).counts is not None


def test_a_monitor_that_is_killed_at_any_moment_has_checked_what_it_marks(
    server: RealServer, auditor: Auditor, folder: Path
) -> None:
    stop = threading.Event()

    def keep_registering() -> None:
        number = 0
        while not stop.is_set():
            register(auditor, ("growing", number))
            number += 1
            stop.wait(0.02)

    growing = threading.Thread(target=keep_registering)
    growing.start()
    sizes = [0]
    try:
        for _ in range(KILLS):
            process = subprocess.Popen(
                [*command(server.url, folder), "--every", "1"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            # Killed while it follows, or just after it has moved its mark, whichever comes.
            moved_at = (folder / "mark.json").stat().st_mtime_ns if sizes[-1] else 0
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                state = folder / "mark.json"
                if state.exists() and state.stat().st_mtime_ns != moved_at:
                    break
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=30)
            mark = mark_in(folder)
            rows = auditor.store.registry.entries(0, mark.head.checkpoint.size)
            assert (
                merkle.root([row.leaf for row in rows])
                == mark.head.checkpoint.root
                == mark.frontier.root()
            )
            sizes.append(mark.head.checkpoint.size)
    finally:
        stop.set()
        growing.join(timeout=30)
    assert sizes == sorted(sizes)
    assert monitor(server.url, folder).returncode == 0


def test_a_server_that_is_away_is_told_from_one_that_lies(folder: Path) -> None:
    done = monitor("http://127.0.0.1:9", folder)
    assert done.returncode == 1
    assert "was not reached" in done.stderr
    assert "ALARM" not in done.stderr
    assert not (folder / "mark.json").exists()


# A server that lies


@dataclass
class LyingServer:
    """Serves whatever registry and trust roots it is given, over HTTP."""

    registry: Registry
    head: bytes = b""
    trust_roots: list[bytes] = field(default_factory=list)
    proof: list[bytes] | None = None
    url: str = ""

    def answer(self, path: str) -> bytes | None:
        parts = urlsplit(path)
        asked = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
        route = parts.path.removeprefix("/v1")
        if route == "/registry/checkpoint":
            return self.head
        if route == "/registry/entries":
            leaves = self.registry.leaves[asked["start"] : asked["end"]]
            page = RegistryEntries(
                start=asked["start"],
                size=len(self.registry.leaves),
                leaves=tuple(leaf.decode() for leaf in leaves),
            )
            return canonical.to_bytes(page)
        if route == "/registry/proof/consistency":
            new = min(asked["new"], len(self.registry.leaves))
            proof = self.proof or self.registry.consistency(min(asked["old"], new), new)
            document = ConsistencyProof(
                old_size=asked["old"],
                new_size=asked["new"],
                proof=tuple(node.hex() for node in proof),
            )
            return canonical.to_bytes(document)
        if route == "/trust-root":
            return self.trust_roots[-1] if self.trust_roots else None
        if route.startswith("/trust-root/"):
            return self.trust_roots[int(route.rsplit("/", 1)[1]) - 1]
        return None


@pytest.fixture
def lying(tmp_path: Path) -> Iterator[LyingServer]:
    shown = LyingServer(Registry())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = shown.answer(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shown.url = f"http://127.0.0.1:{listener.server_address[1]}"
    serving = threading.Thread(target=listener.serve_forever, daemon=True)
    serving.start()
    root = sign_trust_root(trust_root(), [KEYS["root"]]).to_bytes()
    (tmp_path / "trust-root.json").write_bytes(root)
    shown.trust_roots.append(root)
    yield shown
    listener.shutdown()
    listener.server_close()


def now() -> datetime:
    return datetime.now(UTC)


def honest(shown: LyingServer, count: int = 5) -> None:
    shown.registry.grow(count, now() - timedelta(minutes=2))
    shown.head = shown.registry.head(now() - timedelta(seconds=90))


def follower_of(shown: LyingServer, folder: Path, **options: float) -> Follower:
    trust_file = TrustFile(folder / "trust-root.json")
    return Follower(
        AuditorClient(shown.url, retries=0), trust_file, folder / "mark.json", **options
    )


def show_fork(shown: LyingServer) -> None:
    shown.registry.leaves[2] = shown.registry.leaves[2].replace(b"session-1", b"session-2")
    shown.head = shown.registry.head(now())


def show_rollback(shown: LyingServer) -> None:
    shown.head = shown.registry.head(now(), size=3)


def show_unknown_key(shown: LyingServer) -> None:
    shown.registry.signer = SigningKey.generate()
    shown.head = shown.registry.head(now())


def show_dropped_entry(shown: LyingServer) -> None:
    shown.registry.grow(3, now() - timedelta(seconds=60))
    shown.head = shown.registry.head(now())
    shown.proof = shown.registry.consistency(5, 8)
    del shown.registry.leaves[-1]


def show_back_dated_entry(shown: LyingServer) -> None:
    shown.registry.add(digest_of("old"), now() - timedelta(hours=1))
    shown.head = shown.registry.head(now())


def show_malformed_entry(shown: LyingServer) -> None:
    shown.registry.leaves.append(b"{}")
    shown.head = shown.registry.head(now())


def show_second_seal(shown: LyingServer) -> None:
    """Each is in the one registry, so each is good for a bundle of its own."""
    for number in range(2):
        at, root = now() - timedelta(seconds=60), digest_of(number)
        shown.registry.add(root, at, "seal", "session-2", log_size=7, log_root=root)
    shown.head = shown.registry.head(now())


@pytest.mark.parametrize(
    ("show", "alarm"),
    [
        (show_fork, "RegistryForkError"),
        (show_rollback, "RegistryRollbackError"),
        (show_unknown_key, "RegistryKeyError"),
        (show_dropped_entry, "EntriesWithheldError"),
        (show_back_dated_entry, "EntryTimeError"),
        (show_malformed_entry, "RegistryEntryError"),
        (show_second_seal, "SurplusEntryError"),
    ],
)
def test_a_lie_raises_an_alarm_and_moves_no_mark(
    lying: LyingServer, tmp_path: Path, show: Callable[[LyingServer], None], alarm: str
) -> None:
    honest(lying)
    follower_of(lying, tmp_path).follow(now())
    before = (tmp_path / "mark.json").read_bytes()
    checked = lying.head
    show(lying)
    noted = tmp_path / "noted.txt"
    script = "import os,sys;open(sys.argv[1],'w').write(os.environ['AUDITKIT_ALARM'])"
    run = f'{sys.executable} -c "{script}" {noted}'
    done = monitor(lying.url, tmp_path, "--alarm-command", run)
    assert done.returncode == 1
    assert f"ALARM {alarm}" in done.stderr
    assert noted.read_text() == alarm
    assert (tmp_path / "mark.json").read_bytes() == before
    (kept,) = (tmp_path / "mark.json.alarms").iterdir()
    assert (kept / "found.note").read_bytes() == lying.head
    assert (kept / "mark.json").read_bytes() == before
    assert Mark.from_bytes(before, ORIGIN + REGISTRY_SUFFIX).note == checked
    assert (kept / "alarm.txt").read_text().startswith(alarm)


def successor(shown: LyingServer, registry_key: SigningKey) -> TrustRoot:
    known = TrustHistory.open(shown.trust_roots[0])
    before = known.current
    keys = {**KEYS, "registry": registry_key}
    return before.model_copy(
        update={
            "version": 2,
            "previous": known.versions[-1].digest,
            "issued_at": now() - timedelta(seconds=80),
            "keys": {key.public.keyid: key.public.hex for key in keys.values()},
            "roles": {role: Role(keyids=(key.public.keyid,)) for role, key in keys.items()},
        }
    )


def test_a_rotated_key_is_learnt_from_the_trust_root_that_follows(
    lying: LyingServer, tmp_path: Path
) -> None:
    honest(lying)
    follower = follower_of(lying, tmp_path)
    follower.follow(now())
    new_key = SigningKey.generate()
    lying.registry.signer = new_key
    lying.registry.grow(2, now() - timedelta(seconds=60))
    lying.head = lying.registry.head(now())
    with pytest.raises(RegistryKeyError):
        follower.follow(now())
    signed = sign_trust_root(successor(lying, new_key), [KEYS["root"]]).to_bytes()
    lying.trust_roots.append(signed)
    mark, entries = follower.follow(now())
    assert mark.head.checkpoint.size == 7
    assert [new.index for new in entries] == [5, 6]
    assert TrustFile(tmp_path / "trust-root.json").read().current.version == 2


def test_entries_that_are_withheld_are_an_alarm(lying: LyingServer, tmp_path: Path) -> None:
    honest(lying)
    lying.head = lying.registry.head(now())
    del lying.registry.leaves[3:]
    with pytest.raises(EntriesWithheldError, match="entries 3 to 4"):
        follower_of(lying, tmp_path).follow(now())
    assert not (tmp_path / "mark.json").exists()


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data[:-9],
        lambda data: data.replace(b'"frontier":"0000000000000005', b'"frontier":"0000000000000004'),
        lambda data: data.replace(b"audit.example.org", b"audit.example.com"),
        lambda _data: b"",
    ],
    ids=["cut off", "another size", "another registry", "empty"],
)
def test_a_damaged_mark_is_not_gone_on_from(
    lying: LyingServer, tmp_path: Path, edit: Callable[[bytes], bytes]
) -> None:
    honest(lying)
    follower = follower_of(lying, tmp_path)
    follower.follow(now())
    state = tmp_path / "mark.json"
    state.write_bytes(edit(state.read_bytes()))
    with pytest.raises(MarkError):
        follower.follow(now())


def test_an_older_head_of_the_same_tree_does_not_set_the_mark_back(
    lying: LyingServer, tmp_path: Path
) -> None:
    honest(lying)
    older, follower = lying.head, follower_of(lying, tmp_path)
    lying.head = lying.registry.head(now())
    follower.follow(now())
    before = (tmp_path / "mark.json").read_bytes()
    lying.head = older
    follower.follow(now())
    assert (tmp_path / "mark.json").read_bytes() == before
