"""A server in a process of its own."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import requests
from hand_built import (
    WAIT_SECONDS,
    Client,
    HandBuiltAgent,
    make_order,
    make_request,
    opening,
    sign_order,
)
from pydantic import SecretStr

from auditkit.evidence import dsse, statements, trust
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.keys import SigningKey
from auditor_server.home import Home, create_home
from auditor_server.settings import BLOBS_VARIABLE, DATABASE_URL_VARIABLE, ServerSettings
from auditor_server.store import Store
from auditor_server.tokens import TokenRole
from schemas import SessionGrant

ORIGIN = "audit.example.org"
BROWSER = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}


def make_home(folder: Path, database_url: str | None = None) -> Home:
    return create_home(
        folder / "home",
        "The Auditor",
        ORIGIN,
        datetime.now(UTC),
        database_url=None if database_url is None else SecretStr(database_url),
    )


@dataclass
class LiveServer:
    """`python -m auditor_server` in a process of its own."""

    home: Home
    module: tuple[str, ...] = ("-m", "auditor_server")
    database_url: str | None = None
    workers: int = 1
    blobs: str | None = None
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] = field(init=False)
    url: str = field(init=False)
    ready: dict[str, Any] = field(init=False)

    def start(self, stderr: IO[bytes] | None = None) -> None:
        where = ["--home", str(self.home.path), "--port", "0"]
        several = ["--workers", str(self.workers)] if self.workers > 1 else []
        named = {DATABASE_URL_VARIABLE: self.database_url} if self.database_url else {}
        if self.blobs:
            named[BLOBS_VARIABLE] = self.blobs
        self.process = subprocess.Popen(
            [sys.executable, *self.module, *where, *several, *self.flags],
            env={**os.environ, **self.environment, **named},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())
        self.url = f"http://{self.ready['host']}:{self.ready['port']}"

    def stop(self) -> None:
        self.process.terminate()
        self._wait()

    def kill(self) -> None:
        """Stop it as a power cut would: SIGKILL, nothing is tidied up."""
        self.process.kill()
        self._wait()

    def _wait(self) -> None:
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def settings(self) -> ServerSettings:
        url = self.database_url
        return ServerSettings(
            home=self.home.path,
            database_url=None if url is None else SecretStr(url),
            blobs_url=self.blobs,
        )

    def open_store(self) -> Store:
        """The server's database, beside the server."""
        return self.home.open_store(self.settings.database_url)

    def revoke(self, session_key: str) -> None:
        """Have the auditor revoke a session's key, as `auditkit trust revoke` does."""
        root = self.home.trust_root(datetime.now(UTC))
        revoking = root.model_copy(
            update={"version": root.version + 1, "revoked_session_keys": (session_key,)}
        )
        signed = trust.sign_trust_root(revoking, [self.home.signing_key("root")])
        (self.home.path / "trust-root.json").write_bytes(signed.to_bytes())

    def client(self, role: TokenRole | None) -> Client:
        return Client(self.url, self.home.tokens[role] if role else None)

    def add_order(self, order_id: str, **changes: Any) -> str:
        """Issue an order and return its digest."""
        envelope = sign_order(self.home, make_order(order_id, datetime.now(UTC), **changes))
        response = self.client("auditor").post("/orders", data=envelope.to_bytes())
        assert response.status_code == 201, response.text
        return sha256_hex(envelope.payload)

    def open_session(self, order_id: str, order_digest: str, **changes: Any) -> HandBuiltAgent:
        """Open a session as a developer."""
        key = SigningKey.generate()
        client = self.client("developer")
        request = make_request(order_digest, key, **changes)
        response = client.post("/sessions", json=opening(order_id, request))
        assert response.status_code == 201, response.text
        payload = dsse.Envelope.from_bytes(response.content).payload
        grant = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
        return HandBuiltAgent(client, grant, sha256_hex(payload), key)


class Browser:
    """Requests as a browser makes them, one by one."""

    def __init__(self, server: LiveServer) -> None:
        self.url = server.url
        self.cookie = ""

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {**BROWSER, **options.pop("headers", {})}
        if self.cookie:
            headers["Cookie"] = self.cookie
        return requests.request(
            method,
            self.url + path,
            headers=headers,
            allow_redirects=False,
            timeout=WAIT_SECONDS,
            **options,
        )

    def sign_in(self, token: str) -> str:
        """Sign in, and return the token that forms of this sign-in carry."""
        found = self.send("POST", "/sign-in", data={"token": token, "next": "/"})
        assert found.status_code == 303, found.text
        self.cookie = found.headers["Set-Cookie"].partition(";")[0]
        match = re.search(r'name="form_token" value="([^"]+)"', self.send("GET", "/").text)
        assert match is not None
        return match[1]
