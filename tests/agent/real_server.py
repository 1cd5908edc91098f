"""The auditor's server in a process of its own, with an order, and sessions under that order."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from auditkit.client import AuditorClient
from auditkit.evidence import canonical, dsse
from auditkit.evidence.keys import SigningKey
from auditor_server.home import Home, create_home
from developer_agent.client import ServerClient
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from schemas import GrantRecord
from tests.server.hand_built import (
    DIGEST,
    ENVIRONMENT,
    POOL_SIZE,
    TEST_SIZE,
    make_leaves,
    make_order,
    make_request,
    sign_order,
)

ORDER = "digits-2026"


@dataclass(frozen=True)
class Server:
    home: Home
    url: str
    order_digest: str

    def client(self, role: str) -> ServerClient:
        return ServerClient(self.url, self.home.tokens[role])


@contextmanager
def serving(home: Home) -> Iterator[str]:
    """The address of a server that runs until the end of the block."""
    command = [sys.executable, "-m", "auditor_server", "--home", str(home.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            yield f"http://{ready['host']}:{ready['port']}"
        finally:
            process.terminate()


@contextmanager
def real_server(folder: Path) -> Iterator[Server]:
    """A server that has published one order."""
    now = datetime.now(UTC)
    home = create_home(folder / "home", "The Auditor", "audit.example.org", now)
    order = sign_order(home, make_order(ORDER, now))
    with serving(home) as url:
        server = Server(home, url, canonical.sha256_hex(order.payload))
        with AuditorClient(url, home.tokens["auditor"]) as auditor:
            auditor.add_order(order)
        yield server


def open_session(client: ServerClient, folder: RunFolder, server: Server) -> str:
    """Open a session, write its grant record, and return the session's identifier."""
    key = SigningKey.generate()
    folder.session_key.write(key.to_pem())
    request = make_request(server.order_digest, key)
    folder.request.write(canonical.to_bytes(request))
    leaves = (make_leaves(POOL_SIZE, b"pool"), make_leaves(TEST_SIZE, b"test"))
    opening = (ORDER, folder.request.read(), *map(b"".join, leaves))
    grant = client.open_session(*opening)
    assert client.open_session(*opening) == grant, "asked again, as after a lost answer"
    folder.grant.write(grant)
    payload = dsse.Envelope.from_bytes(grant).payload
    with Spool.open(folder.spool_path) as spool:
        Recorder(spool).record(
            GrantRecord,
            grant_digest=canonical.sha256_hex(payload),
            code_digest=DIGEST,
            image_digest=None,
            mode="process",
            environment=ENVIRONMENT,
        )
    return str(json.loads(payload)["predicate"]["session_id"])
