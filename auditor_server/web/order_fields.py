"""What an order may say, read from its schema, so that the editor's list is never out of date."""

from dataclasses import dataclass
from typing import Any

from schemas import AuditOrder

# Written in when the order is signed.
FILLED_IN = frozenset({"schema_version", "auditor", "issued_at", "expires_at"})


@dataclass(frozen=True)
class OrderField:
    """One field of an order, as its author writes it in TOML."""

    name: str
    kind: str
    default: str | None
    description: str


def _fields() -> tuple[OrderField, ...]:
    schema = AuditOrder.model_json_schema()
    parts: dict[str, Any] = schema["$defs"]
    found = []
    for name, field in schema["properties"].items():
        if name not in FILLED_IN:
            found += _described(name, field, parts, required=name in schema["required"])
    return tuple(found)


def _described(
    name: str, field: dict[str, Any], parts: dict[str, Any], *, required: bool
) -> list[OrderField]:
    inner = field.get("$ref", "").removeprefix("#/$defs/")
    if inner:
        part, default = parts[inner], field.get("default") or {}
        return [
            found
            for key, value in part["properties"].items()
            for found in _described(
                f"{name}.{key}",
                {**value, **({"default": default[key]} if key in default else {})},
                parts,
                required=required and key in part.get("required", ()),
            )
        ]
    default = None if required or "default" not in field else _written(field["default"])
    return [OrderField(name, _kind(field), default, field.get("description", ""))]


def _kind(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return "table, or left out"
    if field.get("type") == "array":
        inner = field["items"]
        return f"list of {' | '.join(inner['enum']) if 'enum' in inner else inner['type']}"
    return " | ".join(field["enum"]) if "enum" in field else str(field.get("type", "text"))


def _written(value: object) -> str:
    if value is None or value in ([], ()):
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


ORDER_FIELDS = _fields()
"""All that an author may write, in the order of the schema."""
