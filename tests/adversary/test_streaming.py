"""A bundle read piece by piece from its file says the same as one that is held in memory."""

import io
from dataclasses import replace

import pytest
from attacks import ATTACKS
from forge import Evidence, Plot, stage
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from auditkit.evidence import archive
from auditkit.evidence.bundle import open_bundle, read_bundle, write_bundle
from auditkit.evidence.errors import BundleError

PLOTS = st.sampled_from(ATTACKS).map(lambda attack: attack.plot) | st.builds(
    Plot, segment_records=st.integers(1, 40), stop_after=st.none() | st.integers(1, 12)
)


def written(evidence: Evidence) -> bytes:
    """The bundle's file; forgeries that no file can carry are left aside."""
    try:
        return write_bundle(evidence.bundle)
    except BundleError:
        return reject()


@given(plot=PLOTS, piece=st.sampled_from([7, 100, 4096, archive.PIECE_BYTES]))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_streamed_and_held_evidence_give_the_same_findings(plot: Plot, piece: int) -> None:
    evidence = stage(plot)
    data = written(evidence)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "PIECE_BYTES", piece)
        held = replace(evidence, bundle=read_bundle(data)).report()
        streamed = replace(evidence, bundle=open_bundle(io.BytesIO(data))).report()
    assert held == streamed == evidence.report()


@pytest.mark.parametrize("member", ["records.jsonl", "checkpoints.jsonl"])
def test_a_damaged_file_is_a_finding(honest: Evidence, member: str) -> None:
    data = bytearray(write_bundle(honest.bundle))
    opened = archive.Archive(io.BytesIO(data), lambda _name: 2**31)
    # A checksum that fits nothing, in the header and in the directory.
    found = opened.members[member]
    wrong = replace(found, checksum=found.checksum ^ 1)
    for old, new in (
        (found.local_header(), wrong.local_header()),
        (found.central_header(), wrong.central_header()),
    ):
        place = bytes(data).index(old)
        data[place : place + len(old)] = new
    report = replace(honest, bundle=open_bundle(io.BytesIO(data))).report()
    errors = {finding.error for finding in report.findings if finding.outcome == "failed"}
    assert "BundleChecksumError" in errors
    assert not report.passed
