"""The relay: the only way out of the closed container.

A process of its own on the host, between a Unix socket, which the container has mounted, and the
auditor's server. It MUST pass on exactly the requests that one training needs (`relay_routes`), and
MUST answer every other one itself, with a refusal. It MUST set the developer's bearer token on what
it passes on, and MUST NOT let the token be seen: not inside the container, not in a command line,
not in an environment. It MUST NOT hold a signing key: the session key is made inside the container
and stays there, so the relay can delay or drop records, which shows, and can change or forge none.
It MUST NOT read ahead: it answers nothing in the server's place, and keeps nothing but which
session was opened.

`Relay` is the launcher's side: it starts the process, and starts it again when it dies. The process
ends when its standard input does, so a launcher that is killed leaves no relay behind.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Self

from developer_agent.disk import write_atomically
from developer_agent.errors import AgentError
from developer_agent.relay_server import RelayServer, RelaySettings, read_opened_session

if TYPE_CHECKING:  # its schema is made of much that the relay process has no use for
    from developer_agent.launch_document import LaunchDocument

SOCKET_NAME = "relay.sock"
# Others may pass through, and list nothing that matters; the folder above is private.
SOCKET_FOLDER_MODE = 0o755

FIRST_RESTART_SECONDS = 0.1
LONGEST_RESTART_SECONDS = 5.0
# A relay that lived for so long was well; the next one is started at once again.
HEALTHY_SECONDS = 30.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.1
_MOST_LOG_BYTES = 2000


class RelayStartError(AgentError):
    """The relay process did not start to listen."""


class Relay:
    """A relay process, kept alive from `__enter__` to `__exit__`."""

    def __init__(
        self,
        folder: Path,
        *,
        server_url: str,
        token: str,
        order_id: str,
        session_id: str | None = None,
    ) -> None:
        """Say what to relay; nothing is started yet.

        Args:
            folder: a private folder (mode 0700) with a short path, as a socket's must be.
            server_url: the auditor's server, for example `https://audit.example.org`.
            token: the developer's bearer token.
            order_id: the order that may be fetched.
            session_id: the session to go on with; None: one may be opened.
        """
        self.socket_folder = folder / "socket"
        """What the container mounts, as a folder: the socket in it is a new one after a restart."""
        self._launch_document = folder / "launch.json"
        self._opened_session = folder / "session.json"
        self._log = folder / "relay.log"
        self._settings = RelaySettings(
            socket=str(self.socket_folder / SOCKET_NAME),
            server_url=server_url,
            token=token,
            order_id=order_id,
            session_id=session_id,
            launch_document=str(self._launch_document),
            opened_session=str(self._opened_session),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._changing = threading.Lock()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="auditkit-relay", daemon=True)

    def __enter__(self) -> Self:
        """Start the process and wait until it listens.

        Raises:
            RelayStartError: it ended at once.
        """
        self.socket_folder.mkdir(exist_ok=True)
        self.socket_folder.chmod(SOCKET_FOLDER_MODE)
        self._process = self._start()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process; its socket goes with it."""
        self._closing.set()
        with self._changing:
            if self._process is not None:
                _end(self._process)
        self._watcher.join()

    @property
    def socket(self) -> Path:
        """Where the relay listens, on the host."""
        return Path(self._settings.socket)

    @property
    def pid(self) -> int | None:
        """The process; another one after a restart, None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def session_id(self) -> str | None:
        """The session that is relayed; None before it was granted."""
        if self._settings.session_id is not None:
            return self._settings.session_id
        opened = read_opened_session(self._opened_session)
        return None if opened is None else opened.session_id

    def publish(self, document: "LaunchDocument") -> None:
        """Hand the agent inside its launch document, which it has been asking for.

        Raises:
            DiskWriteError: the document could not be written.
        """
        # As in the TOML file, a setting that is None is left out: some accept no explicit null.
        content = document.model_dump_json(exclude_none=True)
        write_atomically(self._launch_document, content.encode())

    def _start(self) -> subprocess.Popen[bytes]:
        # A token may have come in a variable; children inherit those.
        token = self._settings.token
        environment = {
            name: value for name, value in os.environ.items() if not token or token not in value
        }
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                # -P: no module of the working folder may stand in for one of ours.
                [sys.executable, "-P", "-m", "developer_agent.relay"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                # Ctrl-C in the terminal is for the training, which then has much to send still.
                start_new_session=True,
            )
        if process.stdin is None or process.stdout is None:
            raise RelayStartError("the relay process has no standard input or output")
        with contextlib.suppress(BrokenPipeError):  # it is gone; its log says why
            process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        with process.stdout:
            listening = process.stdout.readline()
        if listening:
            return process
        _end(process)
        raise RelayStartError(
            f"the relay process ended with exit code {process.returncode} and did not listen: "
            f"{self._last_words()}"
        )

    def _last_words(self) -> str:
        return self._log.read_bytes()[-_MOST_LOG_BYTES:].decode(errors="replace").strip()

    def _watch(self) -> None:
        delay, started = FIRST_RESTART_SECONDS, time.monotonic()
        while self._process is not None:
            self._process.wait()
            if time.monotonic() - started > HEALTHY_SECONDS:
                delay = FIRST_RESTART_SECONDS
            if self._closing.wait(delay):
                return
            delay = min(2 * delay, LONGEST_RESTART_SECONDS)
            started = time.monotonic()
            with self._changing:
                if self._closing.is_set():
                    return
                with contextlib.suppress(RelayStartError, OSError):  # tried again after a while
                    dead, self._process = self._process, self._start()
                    _end(dead)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, which may be dead already, and leave nothing of it."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def main() -> None:
    """Relay until standard input ends, or until SIGTERM or SIGINT.

    Standard input: one line of JSON (`RelaySettings`), and then nothing until the end. Standard
    output: one line of JSON as soon as the relay listens.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    settings = RelaySettings.from_bytes(sys.stdin.buffer.readline())
    with RelayServer(settings) as server:
        threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True).start()
        threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
        sys.stdout.write(json.dumps({"listening": settings.socket}) + "\n")
        sys.stdout.flush()
        stop.wait()
        server.shutdown()


def _await_end_of_input(stop: threading.Event) -> None:
    # Not through sys.stdin, whose lock this thread would still hold when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    stop.set()


if __name__ == "__main__":
    main()
