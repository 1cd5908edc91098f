"""What routes declare of their requests and answers, for the API's description.

A route names the errors of its own. What follows from its shape, such as that a token may be
missing, is added by `auditor_server.api.description`.
"""

from collections import defaultdict
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from auditor_server.problems import status_of, title_of
from schemas.base import Schema

Responses = dict[int | str, dict[str, Any]]

JSON = "application/json"
BINARY = "application/octet-stream"
FORM = "multipart/form-data"
# Of an error answer: name and title of each error that gives it, for programs as well.
ERRORS = "x-errors"


def reference(model: type[Schema]) -> dict[str, str]:
    """Return the schema of a document, which is in the description once."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def refusals(*errors: type[Exception]) -> Responses:
    """Return the error answers of a route, one for each status."""
    named: dict[int | str, dict[str, str]] = defaultdict(dict)
    for error in errors:
        named[int(status_of(error))][error.__name__] = title_of(error)
    return {status: {ERRORS: names} for status, names in named.items()}


def document(
    model: type[Schema], description: str, status: HTTPStatus = HTTPStatus.OK
) -> Responses:
    """Return an answer that holds the exact bytes of one document."""
    content = {JSON: {"schema": reference(model)}}
    return {int(status): {"description": description, "content": content}}


def octets(description: str, media_type: str = BINARY) -> Responses:
    """Return an answer that is no JSON."""
    schema = {} if media_type.startswith("text/") else {"contentMediaType": media_type}
    content = {media_type: {"schema": {"type": "string", **schema}}}
    return {int(HTTPStatus.OK): {"description": description, "content": content}}


def body(media_type: str, schema: Mapping[str, Any], description: str = "") -> dict[str, Any]:
    """Return the request body of a route that reads it itself (`openapi_extra`)."""
    content = {media_type: {"schema": dict(schema)}}
    return {"requestBody": {"description": description, "required": True, "content": content}}


def json_body(model: type[Schema], description: str = "") -> dict[str, Any]:
    """Return a request body that holds one document."""
    return body(JSON, reference(model), description)


def file_field(description: str, media_type: str = BINARY) -> dict[str, str]:
    """Return the schema of one file of a form."""
    return {"type": "string", "contentMediaType": media_type, "description": description}


def form_body(
    fields: Mapping[str, Mapping[str, Any]], required: tuple[str, ...], description: str = ""
) -> dict[str, Any]:
    """Return a request body that is a form with files."""
    schema = {"type": "object", "properties": dict(fields), "required": list(required)}
    return body(FORM, schema, description)
