"""No value in any document stops the verifier: bad evidence is a finding, never an exception."""

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from forge import Evidence

from auditkit.evidence.bundle import Bundle
from auditkit.evidence.canonical import to_bytes
from schemas import VerificationReport

SEED = 7
EXTREMES_PER_VALUE = 2  # drawn, beside the largest integer, which keeps careless loops busy
LARGEST = 2**53 - 1
EXTREMES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    1e308,
    -1e308,
    5e-324,
    "",
    "a" * 5000,
    "00" * 32,
    "\u202e\x1b[2J",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    [],
    {},
)

Path = tuple[str | int, ...]


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Every place in a JSON document that holds a value, inner ones included."""
    if here:
        yield here
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from paths(inner, (*here, key))


def exchanged(document: Any, path: Path, value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


def in_payload(envelope: bytes, edit: Callable[[Any], Any]) -> bytes:
    """Edit the payload of an envelope; its signature stays, and is bad from then on."""
    document = json.loads(envelope)
    payload = to_bytes(edit(json.loads(base64.b64decode(document["payload"]))))
    return to_bytes({**document, "payload": base64.b64encode(payload).decode()})


def documents(bundle: Bundle) -> Iterator[tuple[str, Any, Callable[[Any], Bundle]]]:
    """Each document of a bundle: its name, its JSON, and the bundle with another one instead."""

    def payload(envelope: bytes) -> Any:
        return json.loads(base64.b64decode(json.loads(envelope)["payload"]))

    yield (
        "order",
        payload(bundle.order),
        lambda new: replace(bundle, order=in_payload(bundle.order, lambda _old: new)),
    )
    yield (
        "request",
        json.loads(bundle.request),
        lambda new: replace(bundle, request=to_bytes(new)),
    )
    yield (
        "grant",
        payload(bundle.grant),
        lambda new: replace(bundle, grant=in_payload(bundle.grant, lambda _old: new)),
    )
    yield (
        "description",
        json.loads(bundle.description or b""),
        lambda new: replace(bundle, description=to_bytes(new)),
    )
    yield (
        "verdict",
        payload(bundle.verdicts[0]),
        lambda new: replace(bundle, verdicts=(in_payload(bundle.verdicts[0], lambda _old: new),)),
    )
    for continuation in bundle.continuations:
        yield (
            "continuation request",
            json.loads(continuation.request),
            lambda new, found=continuation: replace(
                bundle, continuations=(replace(found, request=to_bytes(new)),)
            ),
        )
        yield (
            "continuation",
            payload(continuation.envelope),
            lambda new, found=continuation: replace(
                bundle,
                continuations=(
                    replace(found, envelope=in_payload(found.envelope, lambda _old: new)),
                ),
            ),
        )
    kinds = {json.loads(line)["kind"]: index for index, line in enumerate(bundle.records)}
    for kind, index in kinds.items():
        yield (
            f"{kind} record",
            json.loads(bundle.records[index]),
            lambda new, index=index: replace(
                bundle,
                records=(*bundle.records[:index], to_bytes(new), *bundle.records[index + 1 :]),
            ),
        )


NAMES = (
    "order",
    "request",
    "grant",
    "description",
    "verdict",
    "grant record",
    "state record",
    "step record",
    "receipt record",
    "evaluation record",
    "calibration record",
    "seal record",
)
CONTAINED_NAMES = ("request", "continuation request", "continuation", "continuation record")


def test_every_kind_of_document_is_tried(honest: Evidence, contained: Evidence) -> None:
    assert {name for name, _, _ in documents(honest.bundle)} == set(NAMES)
    found = {name for name, _, _ in documents(contained.bundle)}
    assert found == {*NAMES, *CONTAINED_NAMES, "resume record"}


def exchange_every_value(evidence: Evidence, name: str) -> None:
    generator = random.Random(f"{SEED} {name}")
    document, rewritten = next(
        (document, rewritten)
        for found, document, rewritten in documents(evidence.bundle)
        if found == name
    )
    for path in paths(document):
        for extreme in (LARGEST, *generator.sample(EXTREMES, EXTREMES_PER_VALUE)):
            changed = exchanged(document, path, extreme)
            if to_bytes(changed) == to_bytes(document):
                continue
            report = Evidence(rewritten(changed), evidence.trust_root).report()
            assert isinstance(report, VerificationReport)
            assert not report.passed, f"{name}: {path} became {extreme!r} and nothing failed"


@pytest.mark.parametrize("name", NAMES)
def test_no_value_stops_the_verifier_or_goes_unnoticed(honest: Evidence, name: str) -> None:
    exchange_every_value(honest, name)


@pytest.mark.parametrize("name", CONTAINED_NAMES)
def test_no_value_of_a_container_stops_it_either(contained: Evidence, name: str) -> None:
    exchange_every_value(contained, name)
