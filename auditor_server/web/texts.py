"""All texts of the pages, from one catalogue: `texts.toml`."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def catalogue() -> dict[str, Any]:
    """Return the texts, by page and name."""
    text = files("auditor_server.web").joinpath("texts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def text(page: str, name: str) -> str:
    """Return one text.

    Raises:
        KeyError: the catalogue lacks it.

    """
    return str(catalogue()[page][name])
