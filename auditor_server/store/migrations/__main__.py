"""`python -m auditor_server.store.migrations MESSAGE`: write the next step, to be read first."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from auditor_server.store.engine import make_engine
from auditor_server.store.migrations.migrate import configuration, upgrade


def main(message: str) -> None:
    """Compare the models with the tables after the last step, and write what differs."""
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(f"sqlite:///{Path(folder) / 'empty.sqlite3'}")
        upgrade(engine)
        with engine.begin() as connection:
            config = configuration(connection)
            steps = len(list(ScriptDirectory.from_config(config).walk_revisions()))
            command.revision(config, message, autogenerate=True, rev_id=f"{steps + 1:04}")
        engine.dispose()


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
