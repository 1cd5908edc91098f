import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_auditor import FaultyAuditor
from runs import Run, new_run

from developer_agent.recorder import Recorder
from developer_agent.spool import Spool


@pytest.fixture
def auditor() -> Iterator[FaultyAuditor]:
    with FaultyAuditor() as auditor:
        yield auditor


@pytest.fixture
def run(tmp_path: Path, auditor: FaultyAuditor) -> Iterator[Run]:
    folder = new_run(tmp_path / "run", auditor)
    with folder.lock(), Spool.open(folder.spool_path) as spool:
        yield Run(folder, spool, Recorder(spool), auditor, auditor.trust_root())


@pytest.fixture(autouse=True)
def _no_uplink_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "auditkit-uplink":
            thread.join(10)
            assert not thread.is_alive(), "the uplink still runs"
