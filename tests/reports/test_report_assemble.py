"""From a signed bundle to a report: what holds is shown, what does not is named."""

import json
import re
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from auditkit.evidence import canonical, dsse, keys, merkle, notes, statements
from auditkit.evidence.bundle import Bundle, Continuation
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.verify import COSIGNER_SUFFIX, verify_bundle
from auditkit.reports import ScoresFileError, UnreadableBundleError, assemble, render_html
from auditkit.reports.assemble import read_scores, report_input
from schemas import (
    CalibrationRecord,
    ContinuationRecord,
    ContinuationRequest,
    EvaluationRecord,
    ReceiptRecord,
    ResumeRecord,
    Role,
    SealRecord,
    SessionContinuation,
    StateRecord,
    StepRecord,
    TrustRoot,
)
from tests.evidence.contained import contained_run

LATE_SECONDS = 300


@pytest.fixture(scope="module")
def auditor() -> keys.SigningKey:
    return keys.SigningKey.generate()


@pytest.fixture(scope="module")
def trust_root(auditor, session_report) -> TrustRoot:
    role = Role(keyids=(auditor.public.keyid,))
    return TrustRoot(
        auditor=session_report.auditor,
        origin="audit.example.org",
        version=3,
        issued_at=session_report.order.issued_at,
        expires_at=session_report.order.expires_at,
        keys={auditor.public.keyid: auditor.public.hex},
        roles=dict.fromkeys(("root", "order", "session", "cosigner", "verdict"), role),
    )


def signed(predicate_type, kind, identifier, predicate, key) -> bytes:
    subjects = statements.subject(kind, identifier, predicate)
    return dsse.sign(statements.make(predicate_type, predicate, subjects), [key]).to_bytes()


def scores_file(report) -> bytes:
    tensors = {f"score/{c}": v.astype(np.float32) for c, v in report.scores.items()}
    tensors |= {f"loss/{c}": v.astype(np.float32) for c, v in report.task_losses.items()}
    tensors["correct/told"] = np.ones(4000, dtype=np.uint8)
    return save(tensors)


def log_records(report, scores: bytes) -> list:
    """A short training: 6 steps, of which the last two were lost and done anew."""
    start = report.log.first_record_ms
    records = [report.start]

    def add(kind, **fields):
        sequence = len(records)
        records.append(kind(sequence=sequence, time_ms=start + 1000 * sequence, **fields))

    def step(number):
        add(
            StepRecord,
            step=number,
            epoch=0,
            batch="0" * 64,
            task_loss=2.0 / number,
            mint_loss=0.7 / number,
            objective=2.0,
            task_accuracy=0.1 * number,
            mint_accuracy=0.5,
            learning_rate=0.05,
            task_weight=1.0,
            mint_weight=1.0,
        )

    state = {"state_digest": "e" * 64}
    add(StateRecord, step=0, weights_digest="f" * 64, **state)
    for number in range(1, 7):
        step(number)
    environment = report.start.environment
    add(ResumeRecord, step=4, discarded_steps=2, environment=environment, **state)
    for number in range(5, 7):
        step(number)
    add(EvaluationRecord, step=6, epoch=0, cohorts=report.evaluation.cohorts)
    add(ReceiptRecord, checkpoint_size=8, checkpoint_digest="0" * 64)
    add(CalibrationRecord, scores_digest=sha256_hex(scores), calibration_size=2000)
    add(
        SealRecord,
        step=6,
        weights_digest="c" * 64,
        description_digest=sha256_hex(canonical.to_bytes(report.description)),
        scores_digest=sha256_hex(scores),
    )
    return records


@pytest.fixture(scope="module")
def bundle(auditor, session_report) -> Bundle:
    report = session_report
    order = signed(
        statements.ORDER_PREDICATE, "order", report.order.order_id, report.order, auditor
    )
    grant = signed(statements.GRANT_PREDICATE, "grant", "ses-4f1c", report.grant, auditor)
    scores = scores_file(report)
    lines = [canonical.to_bytes(record) for record in log_records(report, scores)]
    session_key = keys.SigningKey.generate()
    start = report.log.first_record_ms // 1000
    checkpoints = []
    # The first 8 records reach the auditor at once, the others much later.
    for size, moment in ((8, start + 9), (len(lines), start + 9 + LATE_SECONDS)):
        checkpoint = notes.Checkpoint(report.grant.origin, size, merkle.root(lines[:size]))
        note = notes.sign(checkpoint.to_text(), report.grant.origin, session_key)
        name = f"audit.example.org{COSIGNER_SUFFIX}"
        checkpoints.append(notes.cosign(note, name, auditor, moment).to_bytes())
    verdicts = tuple(
        signed(
            statements.VERDICT_PREDICATE,
            "verdict",
            queried.verdict.verdict_id,
            queried.verdict,
            auditor,
        )
        for queried in report.verdicts
    )
    return Bundle(
        order=order,
        request=canonical.to_bytes(report.request),
        grant=grant,
        records=lines,
        checkpoints=tuple(checkpoints),
        pool_leaves=bytes(32 * 10_000),
        test_leaves=bytes(32 * 5000),
        description=canonical.to_bytes(report.description),
        scores=scores,
        verdicts=verdicts,
    )


@pytest.fixture
def assembled(bundle, trust_root, session_report):
    """Verify a bundle, altered or not, and collect its report."""

    def run(**changes):
        altered = replace(bundle, **changes)
        now = session_report.generated_at
        return report_input(altered, trust_root, verify_bundle(altered, trust_root, now=now), now)

    return run


def test_a_bundle_becomes_a_report(assembled, bundle, session_report):
    report = assembled()
    assert report.remarks == ()
    assert report.auditor == session_report.auditor
    assert report.order == session_report.order
    assert report.order_digest == sha256_hex(dsse.Envelope.from_bytes(bundle.order).payload)
    assert report.request_digest == sha256_hex(bundle.request)
    assert report.log.records == len(bundle.records)
    assert report.log.checkpoints == 2
    assert report.log.states == 1
    assert report.evaluation.cohorts == session_report.evaluation.cohorts
    assert [queried.verdict for queried in report.verdicts] == [
        queried.verdict for queried in session_report.verdicts
    ]
    np.testing.assert_allclose(report.scores["told"], session_report.scores["told"], rtol=1e-6)
    assert set(report.task_losses) == set(session_report.task_losses)
    html = render_html(report)
    for finding in report.verification.findings:
        assert finding.check in html


def test_lost_steps_are_shown_once_and_the_resume_is_kept(assembled):
    report = assembled()
    assert report.steps.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert [resume.discarded_steps for resume in report.log.resumes] == [2]


def test_records_that_came_late_are_counted(assembled, bundle):
    assert assembled().log.late_records == len(bundle.records) - 8


@pytest.fixture
def continued(bundle, auditor, session_report):
    """The bundle of a session that went on in a fresh container after three records."""
    request = ContinuationRequest(
        session_id="ses-4f1c",
        grant_digest=session_report.grant_digest,
        container=contained_run(2),
        session_key="b" * 64,
        environment=session_report.request.environment,
        requested_at=session_report.grant.valid_from,
    )
    request_bytes = canonical.to_bytes(request)
    answer = SessionContinuation(
        session_id="ses-4f1c",
        number=1,
        request_digest=sha256_hex(request_bytes),
        grant_digest=session_report.grant_digest,
        log_size=3,
        session_key=request.session_key,
        granted_at=session_report.grant.valid_from + timedelta(minutes=1),
    )
    envelope = signed(
        statements.CONTINUATION_PREDICATE, "continuation", "ses-4f1c/1", answer, auditor
    )
    record = ContinuationRecord(
        sequence=3,
        time_ms=session_report.log.first_record_ms,
        continuation_digest=sha256_hex(dsse.Envelope.from_bytes(envelope).payload),
    )
    contained = session_report.request.model_copy(update={"container": contained_run()})
    return {
        "request": canonical.to_bytes(contained),
        "continuations": (Continuation(request_bytes, envelope),),
        "records": [*bundle.records[:3], canonical.to_bytes(record)],
    }


def test_a_further_container_is_shown_with_the_record_that_names_it(assembled, continued):
    report = assembled(**continued)
    (further,) = report.continuations
    assert further.run == contained_run(2)
    assert (further.log_size, further.record) == (3, 3)
    html = render_html(report)
    assert "2 containers ran, one after another" in html
    assert "continuation record, number 3" in html


def test_a_further_container_that_the_log_does_not_name_is_shown_so(assembled, continued):
    report = assembled(**{**continued, "records": continued["records"][:3]})
    assert report.continuations[0].record is None
    assert re.search("after 3 records</td>.*>nothing</td>", render_html(report))


def test_a_continuation_that_cannot_be_read_is_left_out(assembled, continued):
    damaged = replace(continued["continuations"][0], request=b"{}")
    report = assembled(**{**continued, "continuations": (damaged,)})
    assert report.continuations == ()
    assert any(remark.startswith("Continuation 1 cannot be read") for remark in report.remarks)
    render_html(report)


def test_scores_that_were_not_committed_draw_nothing(assembled):
    other = save({"score/told": np.ones(3, dtype=np.float32)})
    report = assembled(scores=other)
    assert report.scores == {}
    assert "not the one that the log commits to" in report.remarks[0]
    assert "Scores per cohort" not in render_html(report)


def test_a_damaged_record_is_counted_and_the_others_are_shown(assembled, bundle):
    report = assembled(records=[*bundle.records[:3], b"{", *bundle.records[4:]])
    assert report.log.unreadable_records == 1
    assert report.steps.step.tolist() == [1, 3, 4, 5, 6]
    assert "1 record of the log could not be read." in report.remarks


def test_a_verdict_by_another_key_is_left_out(assembled, bundle, session_report):
    stranger = keys.SigningKey.generate()
    verdict = session_report.verdicts[0].verdict
    forged = signed(statements.VERDICT_PREDICATE, "verdict", verdict.verdict_id, verdict, stranger)
    report = assembled(verdicts=(forged, *bundle.verdicts[1:]))
    assert len(report.verdicts) == len(bundle.verdicts) - 1
    assert report.remarks[0].startswith("Verdict 0 is left out")


def test_a_bad_cosignature_leaves_lateness_undetermined(assembled, bundle):
    report = assembled(checkpoints=(bundle.checkpoints[0][:-9], *bundle.checkpoints[1:]))
    assert report.log.late_records is None
    assert report.remarks[0].startswith("The times of the cosignatures are not known")


def test_a_description_that_was_not_sealed_is_left_out(assembled, session_report):
    other = session_report.description.model_copy(update={"parameters": 1})
    report = assembled(description=canonical.to_bytes(other))
    assert report.description is None
    assert "not the sealed one" in report.remarks[0]


def test_a_session_under_way_has_no_seal_and_no_scores(assembled, bundle):
    report = assembled(
        records=bundle.records[:6],
        checkpoints=(),
        scores=None,
        description=None,
        verdicts=(),
    )
    assert report.seal is None
    assert report.scores == {}
    assert "The session is not complete" in render_html(report)


def test_without_an_order_there_is_no_report(bundle, trust_root, session_report):
    with pytest.raises(UnreadableBundleError, match="order, request or grant"):
        report_input(
            replace(bundle, order=json.dumps({"payload": ""}).encode()),
            trust_root,
            session_report.verification,
            session_report.generated_at + timedelta(0),
        )


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (np.asarray([1.0, np.nan], dtype=np.float32), "not finite"),
        (np.ones((2, 2), dtype=np.float32), "shape"),
        (np.ones(2, dtype=np.int64), "int64"),
    ],
)
def test_strange_scores_are_refused(tensor, problem):
    with pytest.raises(ScoresFileError, match=problem):
        read_scores(save({"score/told": tensor}))


def test_a_huge_scores_file_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr(assemble, "LARGEST_SCORES_FILE", 10)
    with pytest.raises(ScoresFileError, match="expected at most 10"):
        read_scores(b"x" * 11)


VALID = save({"score/told": np.ones(4, dtype=np.float32)})


@given(
    st.binary(max_size=200)
    | st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=4)).map(
        lambda change: VALID[: change[0]] + change[1] + VALID[change[0] + len(change[1]) :]
    )
    | st.integers(0, len(VALID)).map(lambda end: VALID[:end])
)
def test_no_scores_file_raises_anything_else(data):
    try:
        scores, losses = read_scores(data)
    except ScoresFileError:
        return
    for values in (*scores.values(), *losses.values()):
        assert np.isfinite(values).all()


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F8_E5M2", "U16", "BOOL"])
def test_every_number_type_is_read_or_refused(kind):
    size = 8 if kind == "BF16" or kind == "U16" else 4
    header = json.dumps(
        {"score/told": {"dtype": kind, "shape": [4], "data_offsets": [0, size]}}
    ).encode()
    with pytest.raises(ScoresFileError):
        read_scores(len(header).to_bytes(8, "little") + header + bytes([1]) * size)
