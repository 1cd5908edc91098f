"""The real server, with a single connection to its database: whoever asks for a second waits long.

Run as `python with_one_connection.py --home HOME --port 0`.
"""

import sys
from functools import partial

from auditor_server.__main__ import main
from auditor_server.store import engine

WAIT_SECONDS = 5

engine.create_engine = partial(  # type: ignore[attr-defined]
    engine.create_engine, pool_size=1, max_overflow=0, pool_timeout=WAIT_SECONDS
)
sys.exit(main())
