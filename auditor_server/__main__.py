"""`python -m auditor_server --home HOME`: serve, and say on which port in one line of JSON."""

import argparse
import json
import sys
from pathlib import Path

from auditor_server.errors import HomeError, PortInUseError
from auditor_server.serve import serve
from auditor_server.settings import DEFAULT_HOST, DEFAULT_PORT, ServerSettings


def main() -> int:
    """Serve until stopped; return the exit code."""
    parser = argparse.ArgumentParser(prog="auditor_server", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the auditor's home folder")
    parser.add_argument("--host", default=DEFAULT_HOST)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0: any free port")
    arguments = parser.parse_args()
    try:
        serve(ServerSettings(home=arguments.home), arguments.host, arguments.port, _announce)
    except (HomeError, PortInUseError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _announce(host: str, port: int) -> None:
    sys.stdout.write(json.dumps({"host": host, "port": port}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
