"""The published JSON Schemas are those of the code, and say what the code enforces."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import schemas
from schemas.base import Schema
from schemas.export import ADAPTERS, DIALECT, FOLDER, export, json_schema, to_text

BASES = {"Schema", "Record"}


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_the_stored_schema_is_current(name: str) -> None:
    stored = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert stored == to_text(json_schema(name)), "run `python -m schemas.export`"


def test_no_stored_schema_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in ADAPTERS}


def test_exporting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in export(tmp_path / "first")]
    second = [path.read_bytes() for path in export(tmp_path / "second")]
    assert first == second
    assert all(data.endswith(b"}\n") for data in first)


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_a_schema_names_itself_and_its_dialect(name: str) -> None:
    schema = json.loads((FOLDER / f"{name}.json").read_bytes())
    assert schema["$id"] == f"https://auditkit.dev/schemas/{name}/v1.json"
    assert schema["$schema"] == DIALECT
    assert schema["title"] == name


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_every_object_with_named_fields_is_closed(name: str) -> None:
    objects = [part for part in _parts(json_schema(name)) if "properties" in part]
    assert objects
    assert all(part["additionalProperties"] is False for part in objects)


def test_every_document_of_the_package_is_published() -> None:
    published = {
        title for name in ADAPTERS for title in (name, *json_schema(name).get("$defs", {}))
    }
    documents = {
        name
        for name, value in vars(schemas).items()
        if isinstance(value, type) and issubclass(value, Schema)
    }
    assert documents - BASES <= published


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value
    if not isinstance(value, str | int | float | bool | None):
        for child in children:
            yield from _parts(child)
