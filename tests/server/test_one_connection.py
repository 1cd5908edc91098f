"""Nothing that the server does takes a second connection to the database while it holds one.

Those who wait for its locks hold connections, too. If these are all there are, nobody goes on
before a timeout.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import test_mint_custody as held
from api_story import StoryServer, tell
from live import make_home

from schemas.registry import EntryKind


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoryServer]:
    server = StoryServer(make_home(tmp_path), module=("tests/server/with_one_connection.py",))
    server.start()
    yield server
    server.stop()


def test_one_connection_is_enough_for_everything(server: StoryServer) -> None:
    tell(server)
    answers = {(name, status) for name in server.told for status in server.told[name]["answers"]}
    assert not {(name, status) for name, status in answers if status >= "500"}
    order = server.add_order(held.ORDER_ID, outage_policy="pause", least_code_length=32)
    agent = server.open_session(held.ORDER_ID, order, config=held.HELD)
    held.trained(agent)
    held.evaluated(agent)
    store = server.open_store()
    assert store.registry.counts().keys() == set(get_args(EntryKind))  # nothing was left out
    store.close()
