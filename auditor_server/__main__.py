"""`python -m auditor_server --home HOME`: serve, and say on which port in one line of JSON.

It takes the flags of `auditkit serve`.
"""

import json
import sys

from auditor_server import flags
from auditor_server.errors import HomeError, PortInUseError, WorkerFailedError
from auditor_server.serve import serve


def main() -> int:
    """Serve until stopped; return the exit code."""
    said = flags.read("auditor_server", __doc__, sys.argv[1:])
    settings = flags.settings_of(said.home, vars(said))
    try:
        serve(settings, said.host, said.port, _announce, said.workers)
    except (HomeError, PortInUseError, WorkerFailedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _announce(host: str, port: int) -> None:
    sys.stdout.write(json.dumps({"host": host, "port": port}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
