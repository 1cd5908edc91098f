"""The API's description tells the truth. Answers are compared with it by every server test."""

import json
from typing import Any

import pytest
from api_story import EXAMPLES, StoryServer
from described import check_document, essence, is_one_of, operations
from hand_built import is_problem
from test_role_matrix import RULES

from auditor_server.api.answers import ERRORS
from auditor_server.api.description import FILE, description, to_text
from auditor_server.problems import PROBLEM_MEDIA_TYPE

BY_NAME = {operation.name: operation.about for operation in operations()}
DESCRIPTION = "GET /v1/openapi.json"
RECORDED: dict[str, Any] = json.loads(EXAMPLES.read_text("utf-8"))


def contents(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every request and answer that has a body, with its media type."""
    operation = BY_NAME[name]
    found = [operation.get("requestBody", {}), *operation["responses"].values()]
    return [pair for body in found for pair in body.get("content", {}).items()]


def test_the_written_description_is_the_servers(story_server: StoryServer) -> None:
    """Written anew by `python -m auditor_server.api.description`."""
    served = story_server.client(None).get("/openapi.json").json()
    assert served == description() == json.loads(FILE.read_text("utf-8"))
    assert FILE.read_text("utf-8") == to_text(description())


def test_every_route_of_the_matrix_is_described_and_no_page_is() -> None:
    assert BY_NAME.keys() == RULES.keys() - {DESCRIPTION}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_route_says_who_may_and_what_comes(name: str) -> None:
    operation = BY_NAME[name]
    public = RULES[name].reach == "public"
    assert ("security" in operation) != public
    assert public or {"401", "403", "429"} <= operation["responses"].keys()
    assert operation["summary"]
    assert operation["description"]
    method = name.split(" ", maxsplit=1)[0]
    assert ("requestBody" in operation) == (method in {"POST", "PUT"})
    for status, answer in operation["responses"].items():
        assert answer["description"], status
        if status[0] in "45":
            assert list(answer["content"]) == [PROBLEM_MEDIA_TYPE]
    assert all(parameter["schema"] for parameter in operation.get("parameters", ()))


@pytest.mark.parametrize("name", BY_NAME)
def test_examples_keep_to_their_schemas(name: str) -> None:
    for _, content in contents(name):
        if "example" in content:
            check_document(content["schema"], content["example"], name)
    for parameter in BY_NAME[name].get("parameters", ()):
        if "example" in parameter:
            check_document(parameter["schema"], parameter["example"], parameter["name"])
    for status, answer in BY_NAME[name]["responses"].items():
        example = answer.get("content", {}).get(PROBLEM_MEDIA_TYPE, {}).get("example")
        if example is not None:
            assert is_one_of(example, answer[ERRORS]), status


@pytest.mark.parametrize("name", BY_NAME)
def test_every_document_has_an_example(name: str) -> None:
    """But no session of the story leaves its T with the auditor, so nothing is exchanged."""
    lacking = [
        media_type
        for media_type, content in contents(name)
        if essence(media_type) in {"application/json", "text/plain"} and "example" not in content
    ]
    assert lacking == []


def shape(value: Any) -> Any:
    """Which members a document has, wherever there are some."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


def test_examples_are_what_a_server_answers_today(story_server: StoryServer) -> None:
    """Recorded anew by `tests/server/api_story.py`."""
    assert shape(story_server.told) == shape(RECORDED)


def test_what_is_no_route_is_a_problem_as_well(story_server: StoryServer) -> None:
    client = story_server.client(None)
    missing, wrong = client.get("/nothing"), client.send("DELETE", "/health")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert wrong.headers["Allow"] == "GET"
    assert missing.headers["content-type"] == wrong.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert is_problem(client.get("/registry/entries/first"), 422, "InvalidParameterError")


def test_an_address_tells_all_that_may_be_done_there(story_server: StoryServer) -> None:
    """Also where several routes share it (RFC 9110, section 15.5.6)."""
    refused = story_server.client("auditor").send("PATCH", "/sessions")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, POST")


def test_a_misspelled_parameter_is_not_passed_over(story_server: StoryServer) -> None:
    answer = story_server.client("auditor").get("/audit-trail?sesion_id=20261121-0123456789ab")
    assert is_problem(answer, 422, "InvalidParameterError")
    assert "session_id, found 'sesion_id'" in answer.json()["detail"]
