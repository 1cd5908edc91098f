"""Drafts of orders: TOML as people write it, checked by the rules for signed orders."""

import json
import tomllib
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.image_signatures import check_image_key
from auditor_server.context import Auditor
from auditor_server.errors import ServerError
from auditor_server.witnesses import check_policy
from schemas import AuditOrder

DEFAULT_ORDER_DAYS = 90
MOST_ORDER_DAYS = 36_500  # a century; later dates are typing errors


class DraftError(Exception):
    """The text is no draft of an order."""


def read_draft(text: str, auditor: str, now: datetime) -> AuditOrder:
    """Read an order from TOML; `valid_days` in it sets the end.

    Raises:
        DraftError: it is no TOML, or `valid_days` is no number of days.
        pydantic.ValidationError: it breaks the schema of orders.

    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DraftError(f"not valid TOML: {error}") from error
    days = document.pop("valid_days", DEFAULT_ORDER_DAYS)
    if (
        isinstance(days, bool)
        or not isinstance(days, int | float)
        or not 0 < days <= MOST_ORDER_DAYS
    ):
        raise DraftError(
            f"valid_days is {days!r}; expected a positive number, at most {MOST_ORDER_DAYS}"
        )
    document |= {
        "auditor": auditor,
        "issued_at": now.isoformat(),
        "expires_at": (now + timedelta(days=days)).isoformat(),
    }
    return AuditOrder.from_bytes(json.dumps(document, default=str))


def problems(auditor: Auditor, text: str) -> list[str]:
    """Return what keeps a draft from being signed and filed here; nothing: it can be."""
    try:
        order = read_draft(text, auditor.home.history().auditor, auditor.now())
    except DraftError as error:
        return [str(error)]
    except ValidationError as error:
        return [
            f"{'.'.join(str(part) for part in problem['loc']) or 'order'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
    found = []
    if auditor.store.order(order.order_id) is not None:
        found.append(f"order_id: an order is named {order.order_id!r} already; choose another name")
    try:
        for key in order.image_keys:
            check_image_key(key)
        if order.witnesses is not None:
            check_policy(auditor, order.witnesses)
    except (EvidenceError, ServerError) as error:
        found.append(str(error))
    if not (order.images or order.image_keys or order.allow_without_container):
        found.append(
            "images: the order lists no image and no key, and allows no run without a container: "
            "nobody can train under it"
        )
    return found
