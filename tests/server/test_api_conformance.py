"""What a machine makes of the API's description (schemathesis): right, wrong and odd requests.

Nothing may be a failure of the server's, and nothing may differ from the description. By default a
few requests of each kind, the same in every run; for more of them, others each time:

    AUDITKIT_API_EXAMPLES=500 pytest tests/server/test_api_conformance.py
"""

import os
import re
import zlib
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
import schemathesis
from api_story import ORDER, StoryServer
from hypothesis import HealthCheck, settings

from auditor_server import tokens
from auditor_server.access.principals import AUTHORITY
from auditor_server.api.description import description
from auditor_server.home import FIRST_DEVELOPER
from auditor_server.tokens import TokenRole

FEW = 4
EXAMPLES = int(os.environ.get("AUDITKIT_API_EXAMPLES", FEW))
ROLES: tuple[TokenRole | None, ...] = (*get_args(TokenRole), None)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

THOROUGH = EXAMPLES > FEW
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": 20261121,
        # Every limit of every member of every document: thousands of requests.
        "phases": {"coverage": {"enabled": THOROUGH}},
        # Whatever is right in form may still be refused: no fuzzer has the session's key.
        "checks": {"positive_data_acceptance": {"enabled": False}},
    }
)
schema = schemathesis.openapi.from_dict(description(), config=CONFIG)


@pytest.fixture(scope="module", params=ROLES, ids=str)
def role(request: pytest.FixtureRequest) -> TokenRole | None:
    found: TokenRole | None = request.param
    return found


@pytest.fixture
def token(story_server: StoryServer, role: TokenRole | None) -> str | None:
    """A new one for each route, so that no rate limit hides anything."""
    if role is None:
        return None
    store = story_server.open_store()
    organisation = FIRST_DEVELOPER if role == "developer" else AUTHORITY
    made = tokens.issue(store, role, organisation, datetime.now(UTC))
    store.close()
    return made


def known(parameters: dict[str, Any], server: StoryServer) -> dict[str, Any]:
    """Names of what is there, for most names that were made up."""
    names = {"session_id": (server.submitted, server.submitted, server.open), "order_id": (ORDER,)}
    return {
        name: pick(value, names[name])
        if name in names and isinstance(value, str) and NAME.fullmatch(value)
        else value
        for name, value in parameters.items()
    }


def pick(value: str, names: tuple[str, ...]) -> str:
    return (*names, value)[zlib.crc32(value.encode()) % (len(names) + 1)]


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=not THOROUGH,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_described(
    case: schemathesis.Case, story_server: StoryServer, token: str | None
) -> None:
    case.path_parameters = known(case.path_parameters, story_server)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = case.call(base_url=story_server.url, headers=headers)
    case.validate_response(response, headers=headers)
