"""Templates to answers."""

from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from auditkit.reports import formatting, wording
from auditor_server.web import static, texts
from auditor_server.web.sign_ins import current


def page(
    request: Request, template: str, code: int = HTTPStatus.OK, **values: object
) -> HTMLResponse:
    """Return a whole page; `template` is its name without an ending."""
    return HTMLResponse(
        fragment(
            template,
            path=request.url.path,
            sign_in=current(request),
            **values,
        ),
        code,
    )


def fragment(template: str, **values: object) -> Markup:
    """Return what a template gives, with everything in it escaped."""
    rendered = _environment().get_template(f"{template}.html").render(**values)
    return Markup(rendered)  # noqa: S704 - the engine escapes


def download(data: bytes, name: str, media_type: str) -> Response:
    """Return a file to be saved."""
    return Response(
        data,
        media_type=media_type,
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"},
    )


def address(path: str, **parameters: str | int | None) -> str:
    """Return a path with the query parameters that have a value."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"{path}?{query}" if query else path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("auditor_server.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "integer": formatting.integer,
        "decimal": formatting.decimal,
        "percent": formatting.percent,
        "nominal": formatting.nominal_percent,
        "interval": formatting.interval,
        "p_value": formatting.p_value,
        "moment": formatting.moment,
        "second": _second,
        "duration": formatting.duration,
        "drawing": _drawing,
        "coded": _coded,
    }
    environment.globals |= {
        "texts": texts.catalogue(),
        "address": address,
        "static": static.address,
        "OUTCOME_WORDS": wording.OUTCOME_WORDS,
        "COHORTS": wording.COHORTS,
    }
    return environment


def _second(milliseconds: int) -> str:
    """Return a Unix time to the second, since records follow each other by the second."""
    try:
        time = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return formatting.unix_moment(milliseconds / 1000)
    return f"{formatting.day(time)}, {time:%H:%M:%S}{formatting.NO_BREAK_SPACE}UTC"


def _coded(text: str) -> Markup:
    """Return a text in which what stands between backticks is code."""
    parts = (escape(part) for part in text.split("`"))
    shown = (
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )
    return Markup("").join(shown)


def _drawing(svg: str) -> Markup:
    """Mark a chart as ready for the page; its text was escaped when it was drawn."""
    return Markup(svg)  # noqa: S704 - written by our own serialiser, never by another party
