"""Does an answer keep to the API's description? Every test that uses `hand_built.Client` asks."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs

from auditkit.data.errors import DataError
from auditkit.evidence.errors import EvidenceError
from auditkit.mint.errors import MintError
from auditor_server.api.answers import ERRORS
from auditor_server.api.description import description
from auditor_server.errors import ServerError
from auditor_server.problems import TYPE_PREFIX


@dataclass(frozen=True)
class Operation:
    """One route, as it is described."""

    name: str
    path: re.Pattern[str]
    about: Mapping[str, Any]

    def answer(self, status: int) -> Mapping[str, Any]:
        answers: Mapping[str, Any] = self.about["responses"]
        found = answers.get(str(status)) or answers.get(f"{status // 100}XX")
        assert found is not None, f"{self.name} does not say that it answers {status}"
        return dict(found)


@cache
def operations() -> tuple[Operation, ...]:
    # A fixed path comes before one with a parameter at the same place.
    return tuple(
        Operation(
            f"{method.upper()} {path}",
            re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)),
            about,
        )
        for path, item in sorted(description()["paths"].items(), key=lambda item: "{" in item[0])
        for method, about in item.items()
    )


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def operation_of(method: str, url: str) -> Operation | None:
    """The route that a request is for; None: none that is described."""
    path = urlsplit(url).path
    for operation in operations():
        if operation.name.startswith(f"{method} ") and operation.path.fullmatch(path):
            return operation
    return None


def check_answer(
    operation: Operation, status: int, headers: Mapping[str, str], content: bytes
) -> None:
    """Fail unless status, media type, headers and document are as described."""
    answer = operation.answer(status)
    for name, header in answer.get("headers", {}).items():
        assert name in headers or not header.get("required"), f"{operation.name}: no {name}"
    media_types = {essence(name): content for name, content in answer.get("content", {}).items()}
    if not media_types:
        assert content == b"", f"{operation.name} answers {status} with a body"
        return
    media_type = essence(headers["content-type"])
    assert media_type in media_types, f"{operation.name} answers {status} as {media_type}"
    if "json" in media_type:
        document = json.loads(content)
        check_document(media_types[media_type]["schema"], document, operation.name)
        assert ERRORS not in answer or is_one_of(document, answer[ERRORS]), document


def is_one_of(problem: Mapping[str, Any], named: Collection[str]) -> bool:
    """Is an error one of those that are named, or a kind of one?"""
    name = problem["type"].removeprefix(TYPE_PREFIX)
    return any(base.__name__ in named for base in _errors()[name].__mro__)


@cache
def _errors() -> dict[str, type[Exception]]:
    waiting: list[type[Exception]] = [ServerError, EvidenceError, MintError, DataError]
    found: dict[str, type[Exception]] = {}
    while waiting:
        error = waiting.pop()
        found[error.__name__] = error
        waiting += error.__subclasses__()
    return found


def essence(media_type: str) -> str:
    """A media type without its parameters (RFC 9110, section 8.3.1)."""
    return media_type.partition(";")[0]


def check_document(schema: Mapping[str, Any], document: Any, what: str) -> None:
    found = [
        f"{'/'.join(str(part) for part in error.instance_path)}: {error.message}"
        for error in _validator(json.dumps(schema)).iter_errors(document)
    ]
    assert found == [], f"{what}: {found}"


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        json.loads(schema) | {"components": description()["components"]}
    )
