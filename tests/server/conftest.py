"""A real server process over a real home, and agents that talk to it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_story import StoryServer, tell
from hand_built import HandBuiltAgent
from live import LiveServer, make_home


@pytest.fixture(scope="session")
def live_server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[LiveServer]:
    """One server for all tests that leave it in peace; every test opens sessions of its own."""
    url = None
    if request.config.getoption("database") == "postgresql":
        url = request.getfixturevalue("new_postgresql_database")()
    home = make_home(tmp_path_factory.mktemp("auditor"), url)
    server = LiveServer(home, database_url=url, workers=request.config.getoption("workers"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def story_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoryServer]:
    """A server where everything has happened once that the API is for."""
    server = StoryServer(make_home(tmp_path_factory.mktemp("story")))
    server.start()
    tell(server)
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[LiveServer]:
    """A server, not started yet, that a test may kill and whose home it may change."""
    server = LiveServer(make_home(tmp_path))
    yield server
    if hasattr(server, "process") and server.process.poll() is None:
        server.stop()


@pytest.fixture(scope="session")
def order_digest(live_server: LiveServer) -> str:
    return live_server.add_order("digits-2026")


@pytest.fixture
def new_agent(live_server: LiveServer, order_digest: str) -> Callable[[], HandBuiltAgent]:
    return lambda: live_server.open_session("digits-2026", order_digest)


@pytest.fixture
def agent(new_agent: Callable[[], HandBuiltAgent]) -> HandBuiltAgent:
    """An agent whose log holds its grant record and three steps, none of them sent."""
    agent = new_agent()
    agent.log_grant()
    for step in (1, 2, 3):
        agent.log_step(step)
    return agent
