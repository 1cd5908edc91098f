"""The few files that pages load, all from here."""

from functools import cache
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Response

from auditor_server.web.errors import PageNotFoundError
from auditor_server.web.headers import STATIC_PREFIX

router = APIRouter(include_in_schema=False)

MEDIA_TYPES = {
    "style.css": "text/css; charset=utf-8",
    "desk.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "htmx.LICENSE.txt": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
DIGITS = 16
# The address names the content, so that it never changes under an address.
FOR_GOOD = "public, max-age=31536000, immutable"


@router.get(f"{STATIC_PREFIX}/{{digest}}/{{name}}")
def static_file(digest: str, name: str) -> Response:
    """Return one file."""
    if name not in MEDIA_TYPES or digest != _digest(name):
        raise PageNotFoundError(f"{name}: no such file, or another version of it")
    return Response(
        _content(name), media_type=MEDIA_TYPES[name], headers={"Cache-Control": FOR_GOOD}
    )


def address(name: str) -> str:
    """Return the address of a file's present content."""
    return f"{STATIC_PREFIX}/{_digest(name)}/{name}"


@cache
def _content(name: str) -> bytes:
    return files("auditor_server.web").joinpath("static", name).read_bytes()


@cache
def _digest(name: str) -> str:
    return sha256(_content(name)).hexdigest()[:DIGITS]
