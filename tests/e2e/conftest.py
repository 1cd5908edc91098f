from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import World


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make worlds that are torn down at the end of the test."""
    made: list[World] = []

    def make(**settings: object) -> World:
        world = World(tmp_path, **settings)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A story that went well, up to the submission, with its server running."""
    yield from _finished(World(tmp_path_factory.mktemp("finished")))


@pytest.fixture(scope="session")
def finished_on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, new_postgresql_database: Callable[[], str]
) -> Iterator[World]:
    """The same on PostgreSQL, with a server of four processes."""
    folder = tmp_path_factory.mktemp("postgresql")
    yield from _finished(World(folder, database_url=new_postgresql_database(), workers=4))


def _finished(world: World) -> Iterator[World]:
    world.serve()
    done = world.cli("train", "--no-container", str(world.config))
    assert done.returncode == 0, done.stdout + done.stderr
    yield world
    world.close()
