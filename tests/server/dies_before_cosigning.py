"""The real server, killed by SIGKILL after the first flush was committed and before it is cosigned.

Run as `python dies_before_cosigning.py --home HOME --port 0`.
"""

import os
import signal
import sys

from auditkit.evidence import notes
from auditor_server.__main__ import main


def _power_cut(*_: object) -> notes.Note:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


notes.cosign = _power_cut
sys.exit(main())
