import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from developer_agent.committer import Committer
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from faulty_auditor import FaultyAuditor
from runs import new_run, open_committer
from schemas import TrustRoot


@dataclass(frozen=True)
class Run:
    """An open run: everything a training thread has at hand."""

    folder: RunFolder
    spool: Spool
    recorder: Recorder
    auditor: FaultyAuditor
    trust_root: TrustRoot

    def committer(self) -> Committer:
        return open_committer(self.folder, self.spool, self.auditor.url, self.trust_root)


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
