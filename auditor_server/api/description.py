"""The API's description (OpenAPI 3.1), from the routes themselves.

    python -m auditor_server.api.description

writes it to `docs/openapi.json`. Routes declare what is their own; what follows from their shape is
added here: a token may be missing, a body too large, a name malformed. Examples were recorded from
a real server, which the tests repeat.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from auditkit import __version__
from auditor_server.api.answers import ERRORS, reference, refusals
from auditor_server.api.routes import API_PREFIX, ROUTERS
from auditor_server.errors import (
    BlobStoreUnavailableError,
    BodyTooLargeError,
    DatabaseFullError,
    DatabaseUnavailableError,
    InvalidParameterError,
    NotAllowedError,
    NotAuthenticatedError,
    OutOfScopeError,
    RateLimitError,
    SessionNotFoundError,
    TokenExpiredError,
    TokenRevokedError,
)
from auditor_server.problems import PROBLEM_MEDIA_TYPE
from schemas import AppendRequest, ContinuationRequest, DrawRequest, RegistryEntry, ReplayResult
from schemas.base import Schema
from schemas.wire import Problem, SessionOpening, SignedDocument

FILE: Final = Path(__file__).parents[2] / "docs" / "openapi.json"
EXAMPLES: Final = "examples.json"
TITLE: Final = "auditkit"
ABOUT: Final = (
    "The auditor's server: orders, sessions, their logs, submitted models, verification, "
    "membership queries, and the public registry of it all. Errors are problem details (RFC 9457); "
    "their `type` is `urn:auditkit:error:<name of the error>`. What documents must satisfy beyond "
    "their schemas, the protocol says."
)
# Documents that routes read or answer as exact bytes, so that FastAPI does not see them.
READ: tuple[type[Schema], ...] = (
    AppendRequest,
    ContinuationRequest,
    DrawRequest,
    ReplayResult,
    SessionOpening,
)
ANSWERED: tuple[type[Schema], ...] = (Problem, RegistryEntry, SignedDocument)

UNNAMED: Final = "Successful Response"  # what FastAPI calls an answer that nobody has described
INVALID: Final = str(int(HTTPStatus.UNPROCESSABLE_ENTITY))
FAILURE: Final = {
    "5XX": {
        "description": "The server can't answer now, or has failed.",
        "content": {PROBLEM_MEDIA_TYPE: {"schema": reference(Problem)}},
    }
}
_SCHEME = {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}}
_WAIT = {"description": "seconds", "required": True, "schema": {"type": "integer", "minimum": 1}}
_HEADERS = {
    str(int(HTTPStatus.UNAUTHORIZED)): {"headers": _SCHEME},
    str(int(HTTPStatus.TOO_MANY_REQUESTS)): {"headers": {"Retry-After": _WAIT}},
}


router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
def api_description() -> JSONResponse:
    """Return the API's description."""
    return JSONResponse(description())


@cache
def description() -> dict[str, Any]:
    """Return the description, which everybody shares."""
    app = FastAPI(generate_unique_id_function=lambda route: route.name)
    for router in ROUTERS:
        app.include_router(router, prefix=API_PREFIX)
    found = get_openapi(title=TITLE, version=__version__, description=ABOUT, routes=app.routes)
    found["components"]["schemas"] |= _documents()
    found["components"]["schemas"] = dict(sorted(found["components"]["schemas"].items()))
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which we never answer
        found["components"]["schemas"].pop(name, None)
    examples = _examples()
    for method, path, operation in _operations(found):
        _complete(operation)
        _illustrate(operation, examples.get(f"{method} {path}", {}))
    return found


def to_text(document: dict[str, Any]) -> str:
    """Return the description as it is stored: two spaces, a final newline."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _operations(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in found["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def _documents() -> dict[str, Any]:
    modes: list[tuple[type[Schema], JsonSchemaMode]] = [
        *((model, "validation") for model in READ),
        *((model, "serialization") for model in ANSWERED),
    ]
    _, schemas = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    return dict(schemas["$defs"])


def _complete(operation: dict[str, Any]) -> None:
    """Add what follows from the shape of a route, and say all of it as OpenAPI does."""
    operation["summary"] = re.split(r"[;:.\n]", operation["description"])[0]
    answers: dict[str, Any] = operation["responses"]
    if ERRORS not in answers.get(INVALID, {ERRORS: ()}):
        del answers[INVALID]  # FastAPI's own, which we never answer
    for status, implied in refusals(*_implied(operation)).items():
        answer = answers.setdefault(str(status), {ERRORS: {}})
        answer[ERRORS] = implied[ERRORS] | answer[ERRORS]
    for status, answer in answers.items():
        if ERRORS in answer:
            answer.update(_problem(answer[ERRORS]), **_HEADERS.get(status, {}))
        elif answer["description"] == UNNAMED:
            answer["description"] = operation["summary"]
    operation["responses"] = dict(sorted((answers | FAILURE).items()))


def _implied(operation: dict[str, Any]) -> Iterator[type[Exception]]:
    """Yield the errors of every route that is like this one."""
    yield InvalidParameterError
    parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", ())}
    if "security" in operation:
        yield from (NotAuthenticatedError, TokenExpiredError, TokenRevokedError)
        yield from (NotAllowedError, OutOfScopeError, RateLimitError)
        yield from (DatabaseUnavailableError, DatabaseFullError, BlobStoreUnavailableError)
    if "session_id" in parameters and parameters["session_id"]["in"] == "path":
        yield SessionNotFoundError
    if "requestBody" in operation:
        yield BodyTooLargeError


def _problem(named: dict[str, str]) -> dict[str, Any]:
    """Return the answer that is one of some errors."""
    lines = [f"- `{name}`: {title}" for name, title in named.items()]
    return {
        "description": "\n".join(lines),
        "content": {PROBLEM_MEDIA_TYPE: {"schema": reference(Problem)}},
    }


def _illustrate(operation: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Add what was once asked and answered."""
    if "request" in recorded:
        for content in operation["requestBody"]["content"].values():
            content["example"] = recorded["request"]
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in recorded.get("parameters", {}):
            parameter["example"] = recorded["parameters"][parameter["name"]]
    for status, example in recorded.get("answers", {}).items():
        for content in operation["responses"][status]["content"].values():
            content["example"] = example


def _examples() -> dict[str, Any]:
    text = files(__package__).joinpath(EXAMPLES).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


if __name__ == "__main__":
    FILE.write_text(to_text(description()), encoding="utf-8", newline="\n")
    sys.stdout.write(f"wrote {FILE}\n")
