"""Two readers must never see different documents in the same bytes, so nothing is forgiven."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from example_documents import EXAMPLES
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from auditkit.evidence import canonical
from schemas import SplitFractions, StepRecord, parse_record
from schemas.export import ADAPTERS, json_schema

Path = tuple[str | int, ...]
NAMES = sorted(ADAPTERS)
UNKNOWN = "field_of_a_later_version"
# Numbers that may be absent.
NULLABLE = {
    *("auc", "before", "code_index", "margin", "stem_stride"),
    *("distance", "first_differing_step", "most_steps", "moved", "tolerance"),
}
OPEN_MAP = "arguments"  # keyword arguments of an architecture: any name, any scalar


def parse(name: str, document: Any) -> Any:
    return ADAPTERS[name].validate_json(json.dumps(document))


def refuses(name: str, document: Any) -> bool:
    try:
        parse(name, document)
    except ValidationError:
        return True
    return False


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every scalar of a document that has a fixed type."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key != OPEN_MAP:
                yield from leaves(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from leaves(child, (*path, index))
    else:
        yield path, value


def objects(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        yield path
        for key, child in value.items():
            if key != OPEN_MAP:
                yield from objects(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from objects(child, (*path, index))


def at(document: Any, path: Path) -> Any:
    for part in path:
        document = document[part]
    return document


def replaced(name: str, path: Path, value: Any) -> Any:
    document = copy.deepcopy(EXAMPLES[name])
    at(document, path[:-1])[path[-1]] = value
    return document


def accepted(name: str, path: Path, values: list[Any]) -> list[Any]:
    return [value for value in values if not refuses(name, replaced(name, path, value))]


def test_there_is_an_example_of_every_document() -> None:
    assert set(EXAMPLES) == set(ADAPTERS)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_round_trips_byte_for_byte(name: str) -> None:
    sent = canonical.to_bytes(EXAMPLES[name])
    received = ADAPTERS[name].validate_json(sent)
    assert canonical.to_bytes(received) == sent


@pytest.mark.parametrize("name", NAMES)
def test_unknown_fields_are_refused_at_every_depth(name: str) -> None:
    for path in objects(EXAMPLES[name]):
        document = copy.deepcopy(EXAMPLES[name])
        at(document, path)[UNKNOWN] = 1
        assert refuses(name, document), f"{name} takes an unknown field at {path}"


@pytest.mark.parametrize("name", [name for name in NAMES if "schema_version" in EXAMPLES[name]])
def test_other_versions_are_refused(name: str) -> None:
    assert accepted(name, ("schema_version",), [0, 2, -1, "1", 1.0, 1.5, True, None]) == []


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_never_made_of_something_else(name: str) -> None:
    for path, value in leaves(EXAMPLES[name]):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        others: list[Any] = [str(value), "", None, [value], {}, True, False]
        if isinstance(value, int):
            others.append(value + 0.5)
        if path[-1] in NULLABLE:
            others.remove(None)
        assert accepted(name, path, others) == [], f"{name} coerces {path}"


@pytest.mark.parametrize("name", NAMES)
def test_numbers_that_are_none_are_refused(name: str) -> None:
    for path, value in leaves(EXAMPLES[name]):
        if isinstance(value, int | float):
            found = accepted(name, path, [float("nan"), float("inf"), -float("inf")])
            assert found == [], f"{name} takes {found} at {path}"


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_times_are_never_made_of_something_else(name: str) -> None:
    for path, value in leaves(EXAMPLES[name]):
        if isinstance(value, str):
            assert accepted(name, path, [7, 7.5, True, ["a"], {}]) == [], f"{name} coerces {path}"


@pytest.mark.parametrize("name", NAMES)
def test_truth_values_are_never_made_of_something_else(name: str) -> None:
    for path, value in leaves(EXAMPLES[name]):
        if isinstance(value, bool):
            assert accepted(name, path, [0, 1, "true", "yes", None]) == [], f"{name} coerces {path}"


@pytest.mark.parametrize("name", NAMES)
def test_times_need_a_zone(name: str) -> None:
    for path, value in leaves(EXAMPLES[name]):
        if isinstance(value, str) and value.startswith("2026-03-0") and value.endswith("Z"):
            assert refuses(name, replaced(name, path, value.removesuffix("Z")))


@pytest.mark.parametrize("name", NAMES)
def test_what_the_published_schema_forbids_is_refused(name: str) -> None:
    schema = json_schema(name)
    checked = 0
    for path, _ in leaves(EXAMPLES[name]):
        for value in violations(rule_at(schema, EXAMPLES[name], path)):
            assert refuses(name, replaced(name, path, value)), f"{name} takes {value} at {path}"
            checked += 1
    assert checked > 0 or name in {"AppendReceipt", "Problem"}


def test_a_required_field_cannot_be_left_out() -> None:
    for name in NAMES:
        required = json_schema(name).get("required", [])
        for field in required:
            document = {key: value for key, value in EXAMPLES[name].items() if key != field}
            assert refuses(name, document), f"{name} does without {field}"


@given(st.text(max_size=20).filter(lambda kind: kind != "step"))
def test_a_record_of_another_kind_is_no_step(kind: str) -> None:
    document = EXAMPLES["StepRecord"] | {"kind": kind}
    with pytest.raises(ValidationError):
        StepRecord.from_bytes(json.dumps(document))


@given(
    sequence=st.integers(0, 2**53 - 1),
    loss=st.floats(0, allow_nan=False, allow_infinity=False),
    share=st.floats(0, 1),
    rate=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_step_round_trips_byte_for_byte(
    sequence: int, loss: float, share: float, rate: float
) -> None:
    step = EXAMPLES["StepRecord"] | {
        "sequence": sequence,
        "task_loss": loss,
        "mint_accuracy": share,
        "learning_rate": rate,
    }
    line = canonical.to_bytes(step)
    record = parse_record(line)
    assert record.sequence == sequence
    assert canonical.to_bytes(record) == line


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(ValidationError):
        parse_record(data)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_fractions_leave_members_or_are_refused(shares: list[float]) -> None:
    names = ("external", "calibration", "silent", "told_only")
    text = json.dumps(dict(zip(names, shares, strict=True)))
    if shares[0] + shares[1] + shares[2] + shares[3] < 1.0:
        assert SplitFractions.from_bytes(text).external == shares[0]
    else:
        with pytest.raises(ValidationError, match="less than 1"):
            SplitFractions.from_bytes(text)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("AuditOrder", ("expires_at",), "2026-03-02T09:30:00.250000Z"),
        ("TrainingConfig", ("taps", "modules"), []),
        ("TrainingConfig", ("taps", "setup"), "middle"),
        ("TrustRoot", ("roles", "order", "threshold"), 2),
        ("TrustRoot", ("roles", "order", "keyids"), ["3c" * 32]),
        ("TrustRoot", ("roles", "order", "keyids"), ["1a" * 32, "1a" * 32]),
    ],
)
def test_what_only_several_fields_together_show_is_refused(
    name: str, path: Path, value: Any
) -> None:
    assert refuses(name, replaced(name, path, value))


def test_a_trust_root_without_a_role_is_refused() -> None:
    document = copy.deepcopy(EXAMPLES["TrustRoot"])
    del document["roles"]["cosigner"]
    assert refuses("TrustRoot", document)


def rule_at(schema: dict[str, Any], document: Any, path: Path) -> dict[str, Any]:
    """The part of a JSON Schema that rules over one scalar."""
    rule = resolved(schema, schema, document)
    for part in path:
        document = document[part]
        if isinstance(part, int):
            rule = rule["items"]
        elif "properties" in rule:
            rule = rule["properties"][part]
        elif "patternProperties" in rule:  # a map whose names have a form
            rule = next(iter(rule["patternProperties"].values()))
        else:
            rule = rule["additionalProperties"]
        rule = resolved(schema, rule, document)
    return rule


def resolved(schema: dict[str, Any], rule: dict[str, Any], document: Any) -> dict[str, Any]:
    if "$ref" in rule:
        return resolved(schema, schema["$defs"][rule["$ref"].rpartition("/")[2]], document)
    if "discriminator" in rule:
        return resolved(schema, {"$ref": rule["discriminator"]["mapping"][document["kind"]]}, None)
    if "anyOf" in rule:
        choices = [choice for choice in rule["anyOf"] if choice.get("type") != "null"]
        return resolved(schema, choices[0], document)
    return rule


def violations(rule: dict[str, Any]) -> Iterator[Any]:
    """Values just outside what a rule allows."""
    if "minimum" in rule:
        yield rule["minimum"] - 1
    if "maximum" in rule:
        yield rule["maximum"] + 1
    if "exclusiveMinimum" in rule:
        yield rule["exclusiveMinimum"]
    if "exclusiveMaximum" in rule:
        yield rule["exclusiveMaximum"]
    if "pattern" in rule:
        yield from ("", "\n", "!")
    if "enum" in rule or "const" in rule:
        yield "something else"
    if "minLength" in rule:
        yield "a" * (rule["minLength"] - 1)
    if "maxLength" in rule:
        yield "a" * (rule["maxLength"] + 1)
    if rule.get("format") == "date-time":
        yield "yesterday"
