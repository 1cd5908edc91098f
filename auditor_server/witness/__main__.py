"""`python -m auditor_server.witness --home HOME`: serve, and say where in one line of JSON."""

import argparse
import json
import sys
from pathlib import Path

from auditor_server.errors import ServerError
from auditor_server.listening import run
from auditor_server.settings import DEFAULT_HOST
from auditor_server.witness.app import create_app
from auditor_server.witness.cosigning import Witness
from auditor_server.witness.home import open_home


def main() -> int:
    """Serve until stopped; return the exit code."""
    parser = argparse.ArgumentParser(prog="auditor_server.witness", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the witness's folder")
    parser.add_argument("--host", default=DEFAULT_HOST)
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    arguments = parser.parse_args()
    try:
        app = create_app(Witness(open_home(arguments.home)))
        run(app, arguments.host, arguments.port, _announce)
    except ServerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _announce(host: str, port: int) -> None:
    sys.stdout.write(json.dumps({"host": host, "port": port}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
