"""`python -m auditor_server --home HOME`: serve, and say on which port in one line of JSON.

The environment's AUDITKIT_DATABASE_URL names a database other than the one in the home.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from pydantic import SecretStr

from auditor_server.errors import HomeError, PortInUseError, WorkerFailedError
from auditor_server.serve import serve
from auditor_server.settings import (
    DATABASE_URL_VARIABLE,
    DEFAULT_HOST,
    DEFAULT_PORT,
    MOST_WORKERS,
    ServerSettings,
)


def main() -> int:
    """Serve until stopped; return the exit code."""
    parser = argparse.ArgumentParser(prog="auditor_server", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the auditor's home folder")
    parser.add_argument("--host", default=DEFAULT_HOST)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0: any free port")
    parser.add_argument("--workers", type=int, choices=range(1, MOST_WORKERS + 1), default=1)
    arguments = parser.parse_args()
    url = os.environ.get(DATABASE_URL_VARIABLE)
    settings = ServerSettings(home=arguments.home, database_url=SecretStr(url) if url else None)
    try:
        serve(settings, arguments.host, arguments.port, _announce, arguments.workers)
    except (HomeError, PortInUseError, WorkerFailedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _announce(host: str, port: int) -> None:
    sys.stdout.write(json.dumps({"host": host, "port": port}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
