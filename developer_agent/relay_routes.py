"""What the relay lets through: a list of exact requests, and nothing that is like one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from developer_agent.errors import AgentError
from schemas.base import Name, Schema, Sha256

LAUNCH_PATH = "/launch"
"""Answered by the relay itself; every other path is the server's."""

# The server's own limits are lower, and the auditor may set them. These only keep an agent that has
# gone wrong from sending without end.
MOST_REQUEST_BYTES = 64 * 2**20  # a flush, or a continuation
MOST_CODES_REQUEST_BYTES = 2**16
MOST_OPENING_BYTES = 2**30
MOST_EXCHANGE_BYTES = 2 * 2**30  # activations of one step, or the weights of M
MOST_SUBMISSION_BYTES = 8 * 2**30
# Orders, grants, receipts and reports are far smaller. Answers are read whole before they are
# passed on, so that one that breaks off becomes an error and never half a document.
MOST_ANSWER_BYTES = 64 * 2**20
MOST_GRADIENT_BYTES = 512 * 2**20  # of one step

MOST_SHOWN_CHARACTERS = 200


class RelayRefusedError(AgentError):
    """The relay does not pass this request on."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.FORBIDDEN) -> None:
        super().__init__(message)
        self.status = status


class LaunchNotReadyError(AgentError):
    """The launcher has not published the launch document yet."""


class Call(Enum):
    """What is special about a request."""

    LAUNCH = "answered by the relay"
    OPENING = "its answer says which session the relay serves"
    QUICK = "passed on"
    SLOW = "passed on; the server works long before it answers"


@dataclass(frozen=True)
class Route:
    """One kind of request that is let through."""

    call: Call
    most_body_bytes: int = 0
    most_answer_bytes: int = MOST_ANSWER_BYTES


class OpenedSession(Schema):
    """The one session that a relay serves; survives its restart."""

    session_id: Name
    opening: Sha256 | None = None
    """SHA-256 of the request that opened it. Its answer may have been lost on the way, and the
    server answers the same request with the same grant. None: opened in an earlier launch."""


Routes = Mapping[tuple[str, str], Route]

# What anyone may read, and an agent needs when the auditor's keys change while it runs. So many
# versions are made in years.
MOST_TRUST_ROOT_VERSIONS = 1_000
TRUST_ROOT_TARGETS = frozenset(
    {"/v1/trust-root"}
    | {f"/v1/trust-root/{version}" for version in range(1, MOST_TRUST_ROOT_VERSIONS + 1)}
)


def routes(order_id: str, session: OpenedSession | None) -> Routes:
    """Return what is let through now, by method and request target.

    Whole targets are compared, character by character. So nothing is decoded, joined or cut that
    the server might decode, join or cut in another way.

    Args:
        order_id: the order that the developer trains under.
        session: the one that was opened; None before.
    """
    known = {
        ("GET", LAUNCH_PATH): Route(Call.LAUNCH),
        ("GET", f"/v1/orders/{order_id}"): Route(Call.QUICK),
    }
    if session is None or session.opening is not None:
        known["POST", "/v1/sessions"] = Route(Call.OPENING, MOST_OPENING_BYTES)
    if session is not None:
        path = f"/v1/sessions/{session.session_id}"
        known |= {
            ("GET", path): Route(Call.QUICK),
            ("POST", f"{path}/records"): Route(Call.QUICK, MOST_REQUEST_BYTES),
            ("POST", f"{path}/continuations"): Route(Call.QUICK, MOST_REQUEST_BYTES),
            # The answer is encrypted to the agent inside; the relay cannot read it.
            ("POST", f"{path}/membership-codes"): Route(Call.SLOW, MOST_CODES_REQUEST_BYTES),
            ("POST", f"{path}/mint-exchanges"): Route(
                Call.SLOW, MOST_EXCHANGE_BYTES, MOST_GRADIENT_BYTES
            ),
            ("PUT", f"{path}/submission"): Route(Call.SLOW, MOST_SUBMISSION_BYTES),
            ("GET", f"{path}/verification"): Route(Call.SLOW),
        }
    return known


def find_route(known: Routes, method: str, target: str, body_bytes: int) -> Route:
    """Return the route of a request.

    Raises:
        RelayRefusedError: there is none, or the body is larger than such a request can be.
    """
    route = known.get((method, target))
    if method == "GET" and target in TRUST_ROOT_TARGETS:
        route = Route(Call.QUICK)
    if route is None:
        shown = f"{method} {target}"[:MOST_SHOWN_CHARACTERS]
        raise RelayRefusedError(
            f"the relay passes on only what this training needs; found {shown!r}, allowed now are "
            + ", ".join(" ".join(pair) for pair in known)
        )
    if body_bytes > route.most_body_bytes:
        raise RelayRefusedError(
            f"{method} {target} may have a body of {route.most_body_bytes} bytes at most, found "
            f"{body_bytes}",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        )
    return route
