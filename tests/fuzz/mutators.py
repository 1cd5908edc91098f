"""Changes that keep an input well-formed, so that it reaches beyond the parser."""

import json
from random import Random
from typing import Any

from auditkit.evidence import canonical
from auditkit.evidence.errors import CanonicalFormError

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 255, 2**31, 2**53 - 1, 2**53, 2**63, 10**400),
    *(0.5, -0.0, 1.0, 1e-7, 1e17, 1e21, 5e-324, 1.7976931348623157e308),
    *("", "a", "ab" * 32, "ab" * 33, "AB" * 32, "\0", "é", "\u2028", "\U0001f600", "\ud800"),
    *("2026-03-02T09:30:00Z", "application/vnd.in-toto+json", "QQ==", "step", "__proto__"),
    *([], {}, [0], [[]], {"": 0}, {"a": {"b": []}}),
)
"""What takes the place of other values: edges of every type."""


def mutate_json(data: bytes, random: Random) -> bytes:
    """Return a JSON document with one to three places changed; other bytes as they are."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(random.randint(1, 3)):
        document = _changed(document, random)
    try:
        return canonical.to_bytes(document)
    except CanonicalFormError:
        return json.dumps(document, ensure_ascii=True).encode()


def _changed(value: Any, random: Random) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        return _changed_object(value, random)
    if isinstance(value, list) and value and random.random() < 0.9:
        return _changed_list(value, random)
    if isinstance(value, str) and value and random.random() < 0.3:
        place = random.randrange(len(value))
        return value[:place] + random.choice(["", "é", value[place] * 2]) + value[place + 1 :]
    if isinstance(value, (int, float)) and random.random() < 0.5:
        return value + random.choice([-1, 1])
    return random.choice(VALUES)


def _changed_object(value: dict[str, Any], random: Random) -> dict[str, Any]:
    name = random.choice(list(value))
    rest = {other: inner for other, inner in value.items() if other != name}
    match random.randrange(8):
        case 0:
            return rest
        case 1:
            return rest | {f"{name}{random.choice(['x', ' ', 'é'])}": value[name]}
        case 2:
            return value | {"extension": random.choice(VALUES)}
        case _:
            return value | {name: _changed(value[name], random)}


def _changed_list(value: list[Any], random: Random) -> list[Any]:
    place = random.randrange(len(value))
    before, item, after = value[:place], value[place], value[place + 1 :]
    match random.randrange(4):
        case 0:
            return before + after
        case 1:
            return [*before, item, item, *after]
        case _:
            return [*before, _changed(item, random), *after]
