"""Everything that the API is for, done once: what was asked and answered makes its examples.

    PYTHONPATH=.:tests/server python tests/server/api_story.py

writes `auditor_server/api/examples.json` anew.
"""

import copy
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import requests
from described import operation_of
from hand_built import DIGEST, PURPOSE, Client, HandBuiltAgent
from live import LiveServer, make_home
from submitted import Submission, as_png, flat_calibration, make_submission, noise_image
from test_granting_continuations import ORDER_ID as RESUMABLE
from test_granting_continuations import go_on, start
from test_membership_codes_endpoint import CODED
from test_membership_codes_endpoint import ask as ask_codes
from test_replays import answer, drawn, hand_in, log_states
from test_replays import ask as ask_draw

from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.code_delivery import CodesReceiver
from auditor_server.api import description
from auditor_server.tokens import TokenRole
from schemas import PartResult
from tests.evidence import contained

ORDER = "digits-2026"
EXAMPLES = Path(description.__file__).with_name(description.EXAMPLES)


@dataclass(frozen=True)
class RecordingClient(Client):
    """Keeps the first exchange of each kind, by route: parameters, request, answers by status."""

    exchanges: dict[str, Any] = field(default_factory=dict)

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        response = super().send(method, path, **options)
        url = urlsplit(str(response.request.url))
        operation = operation_of(method, url.path)
        if operation is not None:
            kept = self.exchanges.setdefault(operation.name, {"answers": {}})
            matched = operation.path.fullmatch(url.path)
            parameters = (matched.groupdict() if matched else {}) | dict(parse_qsl(url.query))
            if response.ok:
                keep(kept, "parameters", {name: plain(text) for name, text in parameters.items()})
                keep(kept, "request", read(response.request.body))
            keep(kept["answers"], str(response.status_code), read(response.content))
        return response


def keep(kept: dict[str, Any], name: str, value: Any) -> None:
    if value:
        kept.setdefault(name, value)


def plain(text: str) -> float | str:
    """A number where it is one, as parameters have it."""
    if text.isdecimal():
        return int(text)
    return float(text) if text.replace(".", "", 1).isdecimal() else text


def read(data: bytes | str | None) -> Any:
    """A document, or a line of text; None for files, forms and pages."""
    try:
        text = data.decode() if isinstance(data, bytes) else data or ""
    except UnicodeDecodeError:  # even if it begins like JSON, as random bytes sometimes do
        return None
    if text.startswith(("{", "[")):
        return json.loads(text)
    return text if text.isprintable() or text.startswith("audit.") else None


@dataclass
class StoryServer(LiveServer):
    """A real server, whose exchanges are kept, and what became of the story."""

    exchanges: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    submitted: str = ""
    open: str = ""

    def client(self, role: TokenRole | None) -> RecordingClient:
        token = self.home.tokens[role] if role else None
        return RecordingClient(self.url, token, self.exchanges)


def tell(server: StoryServer) -> None:
    """Order, session, log, submission, replay, query, and whatever can be read of it."""
    auditor, officer = server.client("auditor"), server.client("compliance-officer")
    digest = server.add_order(ORDER)
    agent = server.open_session(ORDER, digest)
    server.submitted = agent.grant.session_id
    submission = make_submission(server.submitted, flat_calibration(np.float32(0.0)))
    log_training(agent, submission)
    assert submission.send(agent).status_code == 200
    found, draw_digest = drawn(ask_draw(server, agent))
    scores = PartResult(outcome="exact", digest=sha256_hex(submission.scores))
    replayed = hand_in(server, agent, answer(found, draw_digest, scores=scores))
    assert replayed.status_code == 201, replayed.text
    images = [("images", ("face.png", as_png(noise_image(1)), "image/png"))]
    officer.post(f"{agent.path}/queries?false_positive_rate=0.1", data=PURPOSE, files=images)
    asked = officer.post(
        "/inquiries",
        data={**PURPOSE, "model": server.submitted, "false_positive_rate": "0.1"},
        files=[("pictures", ("face.png", as_png(noise_image(1)), "image/png"))],
    ).json()
    officer.get(f"/inquiries/{asked['inquiry']['id']}")
    (answered,) = asked["inquiry"]["models"][0]["answers"]
    officer.get(f"{agent.path}/verdicts/{answered['verdict_id']}")
    for part in ("", "/draws", "/verification", "/bundle", "/report"):
        officer.get(f"{agent.path}{part}")

    coded = server.open_session(ORDER, digest, config=CODED)
    assert ask_codes(coded, CodesReceiver()).status_code == 200
    continued = start(server, server.add_order(RESUMABLE, images=(contained.IMAGE,)))
    server.open = continued.grant.session_id
    continued.sent(continued.flush(0))
    go_on(continued)

    for path in ("/health", "/ready", "/trust-root", "/trust-root/1", "/registry/checkpoint"):
        server.client(None).get(path)
    for path in (
        "/registry/entries?start=1&end=3",
        "/registry/entries/1",
        f"/registry/proof/inclusion?digest={digest}",
        "/registry/proof/consistency?old=1&new=5",
    ):
        server.client(None).get(path)
    auditor.get(f"/orders/{ORDER}")
    auditor.get("/audit-trail?limit=2")
    for path in ("/orders?limit=1", "/sessions?limit=1"):
        auditor.get(path)
    refuse(server, agent)
    server.told = copy.deepcopy(server.exchanges)


def log_training(agent: HandBuiltAgent, submission: Submission) -> None:
    """The log of a training that nobody did, sealed with a model that nobody trained."""
    weights, description_digest, scores = (
        sha256_hex(data) for data in (submission.weights, submission.description, submission.scores)
    )
    agent.log_grant()
    agent.log_step(1)
    agent.sent(agent.flush(0))
    log_states(agent, weights)
    agent.log_seal(weights, description_digest, scores)
    agent.sent(agent.flush(2))


def refuse(server: StoryServer, agent: HandBuiltAgent) -> None:
    """One error of each kind that a program has to know."""
    developer = server.client("developer")
    server.client(None).get("/orders")
    developer.get("/orders/missing")
    developer.post("/orders", data=b"{}")
    server.client("auditor").post("/orders", data=b"{}")
    agent.log_step(2)
    developer.post(f"{agent.path}/records", json=agent.flush(len(agent.lines) - 1).as_json())
    server.client("compliance-officer").post(
        f"{agent.path}/queries", files=[("images", ("face.png", as_png(noise_image(1))))]
    )
    developer.get("/sessions/missing")
    server.client(None).get("/registry/entries/1000")
    server.client(None).get(f"/registry/proof/inclusion?digest={DIGEST}")


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = StoryServer(make_home(Path(folder)))
        server.start()
        try:
            tell(server)
        finally:
            server.stop()
    text = json.dumps(server.told, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    EXAMPLES.write_text(text, encoding="utf-8", newline="\n")
    sys.stdout.write(f"wrote {EXAMPLES}\n")


if __name__ == "__main__":
    write()
