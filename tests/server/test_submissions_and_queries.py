"""The model is handed over, asked about images, and everything ends up in the bundle."""

import io
import json
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import requests
import torch
from hand_built import CONFIG, PURPOSE, HandBuiltAgent, is_problem
from live import LiveServer
from safetensors.numpy import save
from sqlalchemy import insert
from submitted import (
    CALIBRATION_SIZE,
    MINT,
    MODEL,
    TAPS,
    Submission,
    as_png,
    flat_calibration,
    make_model,
    make_submission,
    noise_image,
    score,
)

from auditkit.data.manifest import sample_digest
from auditkit.evidence import canonical, dsse, statements, trust
from auditkit.evidence.bundle import MAX_VERDICTS, read_bundle
from auditkit.evidence.derivation import initialisation_seed
from auditkit.evidence.verify import verify_bundle
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditor_server.access.principals import AUTHORITY, Principal
from auditor_server.askable_models import askable_models
from auditor_server.context import Auditor
from auditor_server.store import VerdictRow
from schemas import MembershipVerdict, VerificationReport

ASKED, OTHER = noise_image(1), noise_image(2)
AT_ONCE = 4


@pytest.fixture(name="fresh")
def fixture_fresh(new_agent: Any) -> HandBuiltAgent:
    agent: HandBuiltAgent = new_agent()
    return agent


@pytest.fixture(name="submission")
def fixture_submission(fresh: HandBuiltAgent) -> Submission:
    """Calibrated so that exactly one of the two images stands out."""
    model = make_model()
    between = (score(model, ASKED) + score(model, OTHER)) / 2
    return make_submission(fresh.grant.session_id, flat_calibration(between))


def outcomes_expected() -> dict[str, str]:
    model = make_model()
    asked_is_higher = score(model, ASKED) > score(model, OTHER)
    return {
        sample_digest(ASKED).hex(): "member" if asked_is_higher else "not_shown",
        sample_digest(OTHER).hex(): "not_shown" if asked_is_higher else "member",
    }


def ask(
    server: LiveServer, agent: HandBuiltAgent, *images: bytes, **parameters: float
) -> requests.Response:
    files = [("images", (f"image-{i}.png", data)) for i, data in enumerate(images)]
    return server.client("compliance-officer").post(
        f"{agent.path}/queries", data=PURPOSE, files=files, params=parameters
    )


def open_verdicts(server: LiveServer, response: requests.Response) -> list[MembershipVerdict]:
    assert response.status_code == 200, response.text
    root = server.home.trust_root(datetime.now(UTC))
    return [
        trust.verify_statement(
            root,
            "verdict",
            dsse.Envelope.from_bytes(json.dumps(envelope).encode()),
            statements.VERDICT_PREDICATE,
            MembershipVerdict,
        )
        for envelope in response.json()["verdicts"]
    ]


def findings(report: VerificationReport) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in report.findings}


def test_a_sealed_model_is_taken_and_verified(
    fresh: HandBuiltAgent, submission: Submission
) -> None:
    submission.seal(fresh)
    response = submission.send(fresh)
    assert response.status_code == 200, response.text
    found = findings(VerificationReport.from_bytes(response.content))
    assert found["order-signed"] == found["grant-signed"] == "passed"
    assert found["checkpoints-signed"] == found["checkpoints-cosigned"] == "passed"
    assert found["checkpoint-roots"] == found["calibration-scores"] == "passed"
    assert found["schedule"] == "failed"  # this log has no step at all
    assert fresh.status()["state"] == "submitted"
    again = submission.send(fresh)
    assert again.status_code == 200


def test_nothing_is_submitted_before_the_seal(
    fresh: HandBuiltAgent, submission: Submission
) -> None:
    fresh.log_grant()
    fresh.sent(fresh.flush(0))
    assert is_problem(submission.send(fresh), 409, "SessionNotSealedError")


def test_weights_that_could_execute_are_refused(
    fresh: HandBuiltAgent, submission: Submission
) -> None:
    submission.seal(fresh)
    archive = io.BytesIO()
    torch.save(make_model().state_dict(), archive)
    assert zipfile.is_zipfile(archive)
    for data in (pickle.dumps(make_model().state_dict()), archive.getvalue()):
        response = submission.send(fresh, weights=data)
        assert is_problem(response, 422, "NotSafetensorsError")
        assert "never unpickles" in response.json()["detail"]
    assert fresh.status()["state"] == "sealed"


def test_truncated_weights_are_refused(fresh: HandBuiltAgent, submission: Submission) -> None:
    submission.seal(fresh)
    response = submission.send(fresh, weights=submission.weights[:-1])
    assert is_problem(response, 422, "TruncatedWeightsError")


def test_files_other_than_the_sealed_ones_are_refused(
    fresh: HandBuiltAgent, submission: Submission
) -> None:
    submission.seal(fresh)
    other = make_submission("another-session", flat_calibration(0.0))
    weights = save({"a": np.ones(3, dtype=np.float32)})
    assert is_problem(submission.send(fresh, weights=weights), 422, "WeightsMismatchError")
    assert is_problem(
        submission.send(fresh, description=other.description), 422, "DescriptionMismatchError"
    )
    assert is_problem(submission.send(fresh, scores=other.scores), 422, "ScoresMismatchError")
    assert is_problem(submission.send(fresh, description=b"{}"), 422, "InvalidDocumentError")
    assert is_problem(submission.send(fresh, scores=b"{}"), 422, "ScoresFileError")
    response = fresh.client.put(
        f"{fresh.path}/submission", files={"weights": ("weights", submission.weights)}
    )
    assert is_problem(response, 422, "MissingPartError")


def test_scores_must_cover_the_granted_calibration_set(fresh: HandBuiltAgent) -> None:
    short = make_submission(
        fresh.grant.session_id, flat_calibration(0.0, size=CALIBRATION_SIZE - 1)
    )
    short.seal(fresh)
    assert is_problem(short.send(fresh), 422, "CalibrationScoresError")


def test_verdicts_are_signed_and_follow_from_the_calibration(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    submission.seal(fresh)
    submission.send(fresh)
    response = ask(live_server, fresh, as_png(ASKED), as_png(OTHER))
    verdicts = open_verdicts(live_server, response)

    assert {v.sample_digest: v.outcome for v in verdicts} == outcomes_expected()
    p_values = {v.outcome: v.p_value for v in verdicts}
    assert p_values == {"member": 1 / (CALIBRATION_SIZE + 1), "not_shown": 1.0}
    for verdict in verdicts:
        assert verdict.session_id == fresh.grant.session_id
        assert verdict.weights_digest == canonical.sha256_hex(submission.weights)
        assert verdict.scores_digest == canonical.sha256_hex(submission.scores)
        assert verdict.false_positive_rate == 0.1  # the order's own
    adjusted = response.json()["adjusted_p_values"]
    assert sorted(adjusted) == pytest.approx([2 / (CALIBRATION_SIZE + 1), 1.0])


def test_a_picture_that_is_sent_often_counts_once(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    submission.seal(fresh)
    submission.send(fresh)
    once = ask(live_server, fresh, as_png(ASKED), as_png(OTHER)).json()["adjusted_p_values"]
    often = ask(live_server, fresh, *[as_png(ASKED)] * 4, as_png(OTHER)).json()
    assert often["adjusted_p_values"] == [*[once[0]] * 4, once[1]]


def test_a_verdict_does_not_depend_on_the_images_beside_it(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    submission.seal(fresh)
    submission.send(fresh)
    together = open_verdicts(
        live_server, ask(live_server, fresh, as_png(OTHER), as_png(ASKED), as_png(OTHER))
    )
    (alone,) = open_verdicts(live_server, ask(live_server, fresh, as_png(ASKED)))
    assert together[1].score == alone.score
    assert together[0].score == together[2].score


def test_nothing_is_answered_about_a_session_that_is_void(own_server: LiveServer) -> None:
    own_server.start()
    agent = own_server.open_session("digits", own_server.add_order("digits"))
    submission = make_submission(agent.grant.session_id, flat_calibration(0.0))
    submission.seal(agent)
    assert submission.send(agent).status_code == 200
    assert ask(own_server, agent, as_png(ASKED)).status_code == 200
    own_server.revoke(agent.grant.session_key)
    assert is_problem(ask(own_server, agent, as_png(ASKED)), 410, "SessionRevokedError")
    officer = Principal("officer", "compliance-officer", AUTHORITY)
    auditor = Auditor.open(own_server.settings)
    assert [model.obstacle for model in askable_models(auditor, officer)] == ["void"]
    auditor.store.close()


def test_a_rate_beyond_the_calibration_is_refused(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    submission.seal(fresh)
    submission.send(fresh)
    response = ask(live_server, fresh, as_png(ASKED), false_positive_rate=0.01)
    assert is_problem(response, 422, "CalibrationTooSmallError")
    assert "at least 99 calibration samples, found 16" in response.json()["detail"]
    allowed = ask(live_server, fresh, as_png(ASKED), false_positive_rate=0.5)
    assert [v.false_positive_rate for v in open_verdicts(live_server, allowed)] == [0.5]


def test_images_that_the_model_can_not_take_are_refused(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    submission.seal(fresh)
    submission.send(fresh)
    response = ask(live_server, fresh, as_png(noise_image(3, side=40)))
    assert is_problem(response, 422, "ImageSizeError")
    assert "expected 32 x 32" in response.json()["detail"]
    assert "found 40 x 40" in response.json()["detail"]
    response = ask(live_server, fresh, as_png(ASKED)[:100])
    assert is_problem(response, 422, "DamagedImageError")
    assert is_problem(ask(live_server, fresh), 422, "MissingPartError")
    client = live_server.client("compliance-officer")
    many = [("images", (f"{i}.png", b"")) for i in range(300)]
    assert is_problem(client.post(f"{fresh.path}/queries", files=many), 422, "InvalidDocumentError")


def test_there_is_no_verdict_without_a_model(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    submission.seal(fresh)
    response = ask(live_server, fresh, as_png(ASKED))
    assert is_problem(response, 409, "SessionNotSubmittedError")


def test_a_session_has_no_more_verdicts_than_its_bundle_holds(
    live_server: LiveServer, fresh: HandBuiltAgent, submission: Submission
) -> None:
    submission.seal(fresh)
    assert submission.send(fresh).status_code == 200
    rate = {"false_positive_rate": 0.1}
    asked, other = as_png(ASKED), as_png(OTHER)
    assert ask(live_server, fresh, asked, **rate).status_code == 200
    fill(live_server, fresh.grant.session_id, MAX_VERDICTS - 1)

    too_many = ask(live_server, fresh, asked, other, **rate)
    assert is_problem(too_many, 409, "TooManyVerdictsError")
    assert "at most 1 more" in too_many.json()["detail"]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: ask(live_server, fresh, other, **rate), range(AT_ONCE)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * (AT_ONCE - 1)]
    nobody_looks_at_it = ask(live_server, fresh, b"no image", **rate)
    assert is_problem(nobody_looks_at_it, 409, "TooManyVerdictsError")
    inquiry = live_server.client("compliance-officer").post(
        "/inquiries",
        data={**PURPOSE, "model": fresh.grant.session_id, "false_positive_rate": "0.1"},
        files=[("pictures", ("face.png", asked))],
    )
    assert is_problem(inquiry, 409, "TooManyVerdictsError")


def fill(server: LiveServer, session_id: str, most: int) -> None:
    """Repeat the one verdict of a session."""
    store = server.open_store()
    (verdict,) = store.verdicts(session_id)
    with store._write.begin() as transaction:
        transaction.execute(
            insert(VerdictRow),
            [
                {
                    "verdict_id": f"{verdict.verdict_id}-{number}",
                    "session_id": session_id,
                    "envelope": verdict.envelope,
                    "issued_at": verdict.issued_at,
                }
                for number in range(1, most)
            ],
        )
    store.close()


def test_a_model_made_of_foreign_code_is_not_run(
    fresh: HandBuiltAgent, live_server: LiveServer
) -> None:
    model = MODEL.model_copy(update={"architecture": "custom:secret"})
    submission = make_submission(fresh.grant.session_id, flat_calibration(0.0), model)
    submission.seal(fresh)
    assert submission.send(fresh).status_code == 200
    refused = ask(live_server, fresh, as_png(ASKED))
    assert is_problem(refused, 422, "CustomModelError")
    assert "trained outside any image" in refused.json()["detail"]


def test_the_bundle_holds_everything_and_is_verified_alike_elsewhere(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    submission.seal(fresh)
    submission.send(fresh)
    verdicts = open_verdicts(live_server, ask(live_server, fresh, as_png(ASKED)))
    officer = live_server.client("compliance-officer")
    response = officer.get(f"{fresh.path}/bundle")
    assert response.headers["content-type"] == "application/zip"
    bundle = read_bundle(response.content)
    assert list(bundle.records) == fresh.lines
    assert bundle.weights == submission.weights
    assert len(bundle.verdicts) == len(verdicts) == 1
    assert officer.get(f"{fresh.path}/bundle").content == response.content

    root = live_server.home.trust_root(datetime.now(UTC))
    offline = findings(verify_bundle(bundle, root, now=datetime.now(UTC)))
    answer = fresh.client.get(f"{fresh.path}/verification")
    online = findings(VerificationReport.from_bytes(answer.content))
    assert {check for check in online if online[check] != offline[check]} <= {"initial-weights"}
    assert online["verdicts"] == "passed"


def test_who_asked_about_whom_is_no_concern_of_the_developer(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    """The evidence is otherwise the same, and no less."""
    submission.seal(fresh)
    submission.send(fresh)
    ask(live_server, fresh, as_png(ASKED))
    digest = sample_digest(ASKED).hex()
    root = live_server.home.trust_root(datetime.now(UTC))
    checked = {}
    for role in ("auditor", "compliance-officer", "developer"):
        client = live_server.client(role)  # type: ignore[arg-type]
        bundle = read_bundle(client.get(f"{fresh.path}/bundle").content)
        page = client.get(f"{fresh.path}/report").text
        sees = role != "developer"
        assert len(bundle.verdicts) == int(sees)
        assert (digest in page) == sees
        assert ("Left out of what a developer is given" in page) != sees
        checked[role] = findings(verify_bundle(bundle, root, now=datetime.now(UTC)))
    verdicts = [found.pop("verdicts") for found in checked.values()]
    assert verdicts == ["passed", "passed", "not_checked"]
    assert checked["developer"] == checked["auditor"] == checked["compliance-officer"]


@pytest.mark.parametrize(
    ("architecture", "outcome", "detail"),
    [
        ("test_resnet", "passed", "rebuilt from the nonce"),
        ("no_such_network", "failed", "cannot be built"),
    ],
)
def test_initial_weights_are_rebuilt_from_the_nonce(
    live_server: LiveServer, order_digest: str, architecture: str, outcome: str, detail: str
) -> None:
    model = MODEL.model_copy(update={"architecture": architecture})
    config = CONFIG.model_copy(update={"model": model, "mint": MINT})
    agent = live_server.open_session("digits-2026", order_digest, config=config)
    seed = initialisation_seed(bytes.fromhex(agent.grant.nonce))
    initial = EnhancedAuditedModel.build((MODEL, TAPS, MINT), seed).weights()
    agent.log_grant()
    agent.log_state(canonical.sha256_hex(initial))
    agent.sent(agent.flush(0))
    response = agent.client.get(f"{agent.path}/verification")
    assert response.status_code == 200, response.text
    report = VerificationReport.from_bytes(response.content)
    (finding,) = (f for f in report.findings if f.check == "initial-weights")
    assert finding.outcome == outcome, finding.detail
    assert detail in finding.detail


def test_the_report_is_a_page(
    fresh: HandBuiltAgent, submission: Submission, live_server: LiveServer
) -> None:
    submission.seal(fresh)
    submission.send(fresh)
    response = live_server.client("compliance-officer").get(f"{fresh.path}/report")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert fresh.grant.session_id in response.text
