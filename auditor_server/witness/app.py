"""The witness's web application: c2sp.org/tlog-witness over HTTP, and nothing else."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from auditkit.evidence.errors import ConsistencyProofError, EvidenceError
from auditkit.evidence.witnessing import (
    MAX_REQUEST_BYTES,
    SIZE_MEDIA_TYPE,
    SplitViewError,
    StaleOldSizeError,
    UnknownLogError,
    UntrustedCheckpointError,
    WitnessRequestError,
)
from auditor_server.errors import ServerError
from auditor_server.witness.cosigning import Witness

STATUSES: dict[type[EvidenceError], HTTPStatus] = {
    WitnessRequestError: HTTPStatus.BAD_REQUEST,
    UnknownLogError: HTTPStatus.NOT_FOUND,
    UntrustedCheckpointError: HTTPStatus.FORBIDDEN,
    StaleOldSizeError: HTTPStatus.CONFLICT,
    SplitViewError: HTTPStatus.CONFLICT,
    ConsistencyProofError: HTTPStatus.UNPROCESSABLE_ENTITY,
}

_LOG = logging.getLogger(__name__)
# What may be proof that a log has misbehaved is worth a line; the rest is a client's mistake.
_ALARMING = (SplitViewError, ConsistencyProofError)


def create_app(witness: Witness) -> FastAPI:
    """Return the application of one witness; submission and monitoring prefix are its root."""
    app = FastAPI(title="auditkit witness", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/add-checkpoint")
    async def add_checkpoint(request: Request) -> Response:
        body = await _read(request)
        if body is None:
            text = f"expected at most {MAX_REQUEST_BYTES} bytes\n"
            return _text(text, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return await run_in_threadpool(_answer, witness, body)

    @app.get("/{origin_digest}/checkpoint")
    def latest(origin_digest: str) -> Response:
        note = witness.home.state.latest(origin_digest)
        if note is None:
            return _text("no checkpoint of such a log was cosigned here\n", HTTPStatus.NOT_FOUND)
        return _text(note.decode(), HTTPStatus.OK)

    return app


def _answer(witness: Witness, body: bytes) -> Response:
    try:
        return _text(witness.add_checkpoint(body), HTTPStatus.OK)
    except StaleOldSizeError as error:
        # Clients compare the type as it stands: no charset may follow it.
        headers = {"Content-Type": SIZE_MEDIA_TYPE}
        return Response(f"{error.size}\n", HTTPStatus.CONFLICT, headers=headers)
    except EvidenceError as error:
        if isinstance(error, _ALARMING):
            _LOG.warning("refused, may prove misbehaviour: %s\n%s", error, ascii(body))
        return _text(f"{error}\n", _status(error))
    except ServerError as error:
        _LOG.exception("no checkpoint can be cosigned")
        return _text("the witness can't keep its state\n", error.status)


def _status(error: EvidenceError) -> HTTPStatus:
    return next(status for kind, status in STATUSES.items() if isinstance(error, kind))


def _text(text: str, status: HTTPStatus) -> Response:
    return Response(text, status, media_type="text/plain")


async def _read(request: Request) -> bytes | None:
    """Return the body; None as soon as it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            return None
    return bytes(body)
