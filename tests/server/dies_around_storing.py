"""The real witness, killed by SIGKILL before or after a checkpoint is committed, unanswered.

Run as `python dies_around_storing.py before|after --home HOME`.
"""

import os
import signal
import sys

from auditkit.evidence.witnessing import LogState
from auditor_server.witness.__main__ import main
from auditor_server.witness.cosigning import Witness
from auditor_server.witness.state import LockedLog

moment = sys.argv.pop(1)
store, add_checkpoint = LockedLog.store, Witness.add_checkpoint


def _store_and_die(log: LockedLog, state: LogState, note: bytes) -> None:
    store(log, state, note)
    os.kill(os.getpid(), signal.SIGKILL)


def _commit_and_die(witness: Witness, body: bytes) -> str:
    line = add_checkpoint(witness, body)
    os.kill(os.getpid(), signal.SIGKILL)
    return line


if moment == "before":
    LockedLog.store = _store_and_die  # type: ignore[method-assign]
else:
    Witness.add_checkpoint = _commit_and_die  # type: ignore[method-assign]
sys.exit(main())
