"""`python -m auditor_server --home HOME`: serve, and say on which port in one line of JSON.

It takes the flags of `auditkit serve`.
"""

import json
import sys

from auditor_server import flags
from auditor_server.errors import HomeError, PortInUseError, WorkerFailedError
from auditor_server.serve import serve
from auditor_server.settings import Bound


def main() -> int:
    """Serve until stopped; return the exit code."""
    said = flags.read("auditor_server", __doc__, sys.argv[1:])
    settings = flags.settings_of(said.home, vars(said))
    try:
        serve(settings, flags.listening_of(vars(said)), _announce)
    except (HomeError, PortInUseError, WorkerFailedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _announce(bound: Bound) -> None:
    sys.stdout.write(json.dumps(vars(bound)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
