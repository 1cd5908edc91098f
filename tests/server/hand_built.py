"""An agent built by hand from the evidence primitives, and a plain client: no agent code."""

import base64
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from auditkit.evidence import canonical, dsse, merkle, notes, statements
from auditkit.evidence.keys import SigningKey
from auditor_server.home import Home
from schemas import (
    AppendReceipt,
    AppendRequest,
    AuditOrder,
    ContinuationRecord,
    Environment,
    GrantRecord,
    ModelConfig,
    OptimiserConfig,
    ReceiptRecord,
    Record,
    SampleCommitment,
    SealRecord,
    SessionGrant,
    SessionRequest,
    SplitFractions,
    StateRecord,
    StepRecord,
    TrainingConfig,
    WeightRange,
)
from schemas.wire import SessionOpening

DEVELOPER = "Example Imaging Ltd"
POOL_SIZE = 64
TEST_SIZE = 8
DIGEST = "ab" * 32
# For an answer. On a loaded machine several workers take a minute to start, and calls wait.
WAIT_SECONDS = 240
PURPOSE = {"purpose": "complaint 2026/7"}
"""Form of a query: whoever is no auditor must say what it is for."""
ENVIRONMENT = Environment(
    python="3.11.7",
    torch="2.15.0",
    torchvision="0.29.2",
    timm="1.0.31",
    auditkit="0.1.0",
    platform="Linux x86_64",
    cpu_capability="AVX2",
    threads=1,
    device="cpu",
)
CONFIG = TrainingConfig(
    name="digits",
    model=ModelConfig(architecture="resnet18", classes=10, channels=1, height=8, width=8),
    optimiser=OptimiserConfig(learning_rate=0.1),
    epochs=2,
    batch_size=16,
    external_batch_size=4,
)


@dataclass(frozen=True)
class Client:
    """Requests with one token."""

    url: str
    token: str | None = None

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.send("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.send("POST", path, **options)

    def put(self, path: str, **options: Any) -> requests.Response:
        return self.send("PUT", path, **options)

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return requests.request(
            method, f"{self.url}/v1{path}", headers=headers, timeout=WAIT_SECONDS, **options
        )


def is_problem(response: requests.Response, status: int, error: str) -> bool:
    """Is the answer this error, in problem details? Says what came when it is not."""
    found = (response.status_code, response.headers["content-type"], response.json().get("type"))
    expected = (status, "application/problem+json", f"urn:auditkit:error:{error}")
    assert found == expected, f"{found}: {response.text}"
    return True


def make_order(order_id: str, now: datetime, **changes: Any) -> AuditOrder:
    return AuditOrder(
        **{
            "order_id": order_id,
            "auditor": "The Auditor",
            "developer": DEVELOPER,
            "purpose": "check a classifier of handwritten digits",
            "issued_at": now,
            "expires_at": now + timedelta(days=30),
            "split": SplitFractions(external=0.25, calibration=0.25),
            "least_calibration_samples": 10,
            "mint_weight": WeightRange(least=0.0, most=10.0),
            "allow_without_container": True,
            "false_positive_rate": 0.1,
            "most_sessions": 1000,
            **changes,
        }
    )


def sign_order(home: Home, order: AuditOrder) -> dsse.Envelope:
    payload = statements.make(
        statements.ORDER_PREDICATE, order, statements.subject("order", order.order_id, order)
    )
    return dsse.sign(payload, [home.signing_key("order")])


def make_leaves(count: int, domain: bytes) -> list[bytes]:
    return [
        bytes.fromhex(canonical.sha256_hex(domain + index.to_bytes(4, "big")))
        for index in range(count)
    ]


def commit(leaves: list[bytes]) -> SampleCommitment:
    return SampleCommitment(root=merkle.root(leaves).hex(), size=len(leaves))


def make_request(order_digest: str, key: SigningKey, **changes: Any) -> SessionRequest:
    return SessionRequest(
        **{
            "order_digest": order_digest,
            "developer": DEVELOPER,
            "config": CONFIG,
            "code_digest": DIGEST,
            "container": None,
            "pool": commit(make_leaves(POOL_SIZE, b"pool")),
            "test": commit(make_leaves(TEST_SIZE, b"test")),
            "session_key": key.public.hex,
            "environment": ENVIRONMENT,
            "requested_at": datetime.now(UTC),
            **changes,
        }
    )


def opening(order_id: str, request: SessionRequest, **changes: Any) -> dict[str, Any]:
    return SessionOpening(
        **{
            "order_id": order_id,
            "request": canonical.to_bytes(request).decode(),
            "pool_leaves": base64.b64encode(b"".join(make_leaves(POOL_SIZE, b"pool"))).decode(),
            "test_leaves": base64.b64encode(b"".join(make_leaves(TEST_SIZE, b"test"))).decode(),
            **changes,
        }
    ).as_json()


@dataclass
class HandBuiltAgent:
    """The log of one session, as an honest agent keeps it."""

    client: Client
    grant: SessionGrant
    grant_digest: str
    key: SigningKey
    lines: list[bytes] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/sessions/{self.grant.session_id}"

    def _common(self, offset: int = 0) -> dict[str, int]:
        return {"sequence": len(self.lines) + offset, "time_ms": int(time.time() * 1000)}

    def log(self, record: Record) -> None:
        self.lines.append(canonical.to_bytes(record))

    def log_grant(self, **changes: Any) -> None:
        common = {**self._common(), "grant_digest": self.grant_digest, **changes}
        self.log(
            GrantRecord(
                **{
                    "code_digest": DIGEST,
                    "image_digest": None,
                    "mode": "process",
                    "environment": ENVIRONMENT,
                    **common,
                }
            )
        )

    def log_continuation(self, digest: str) -> None:
        self.log(ContinuationRecord(continuation_digest=digest, **self._common()))

    def log_step(self, step: int, **changes: Any) -> None:
        self.log(
            StepRecord(
                **{
                    **self._common(),
                    "step": step,
                    "epoch": (step - 1) // 2,
                    "batch": DIGEST,
                    "task_loss": 2.3,
                    "mint_loss": 0.69,
                    "objective": 2.0,
                    "task_accuracy": 0.1,
                    "mint_accuracy": 0.5,
                    "learning_rate": 0.1,
                    "task_weight": 1.0,
                    "mint_weight": 1.0,
                    **changes,
                }
            )
        )

    def log_state(self, weights: str) -> None:
        self.log(StateRecord(step=0, state_digest=DIGEST, weights_digest=weights, **self._common()))

    def log_receipt(self, cosigned: str) -> None:
        note = cosigned.encode()
        checkpoint = notes.parse_checkpoint(notes.parse(note).text)
        self.log(
            ReceiptRecord(
                checkpoint_size=checkpoint.size,
                checkpoint_digest=canonical.sha256_hex(note),
                **self._common(),
            )
        )

    def log_seal(
        self, weights: str = DIGEST, description: str = DIGEST, scores: str = DIGEST
    ) -> None:
        self.log(
            SealRecord(
                step=1,
                weights_digest=weights,
                description_digest=description,
                scores_digest=scores,
                **self._common(),
            )
        )

    def flush(
        self,
        first: int,
        end: int | None = None,
        *,
        key: SigningKey | None = None,
        origin: str | None = None,
        root: bytes | None = None,
        size: int | None = None,
    ) -> AppendRequest:
        """The records from `first` to `end`, with a checkpoint; everything can be falsified."""
        end = len(self.lines) if end is None else end
        checkpoint = notes.Checkpoint(
            origin=origin or self.grant.origin,
            size=end if size is None else size,
            root=root or merkle.root(self.lines[:end]),
        )
        note = notes.sign(checkpoint.to_text(), checkpoint.origin, key or self.key)
        return AppendRequest(
            first=first,
            records=tuple(line.decode() for line in self.lines[first:end]),
            checkpoint=note.to_bytes().decode(),
        )

    def send(self, flush: AppendRequest) -> requests.Response:
        return self.client.post(f"{self.path}/records", json=flush.as_json())

    def sent(self, flush: AppendRequest) -> AppendReceipt:
        response = self.send(flush)
        assert response.status_code == 200, response.text
        return AppendReceipt.from_bytes(response.content)

    def status(self) -> dict[str, Any]:
        return self.client.get(self.path).json()
