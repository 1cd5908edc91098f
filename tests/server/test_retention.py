"""What is deleted after years, and that every proof of before goes on to hold."""

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hand_built import HandBuiltAgent
from live import LiveServer, make_home
from submitted import Submission, as_png, flat_calibration, make_submission, noise_image
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.verify import verify_bundle
from auditor_server import retention, store_checks
from auditor_server.access.principals import AUTHORITY, Principal
from auditor_server.app import create_app
from auditor_server.askable_models import askable_models
from auditor_server.context import Auditor
from auditor_server.home import BLOBS_FOLDER, Home
from auditor_server.settings import ServerSettings
from schemas import VerificationReport

KEPT_DAYS = 365.0


@dataclass(frozen=True)
class Years:
    """A home with two models of the same weights, and what was handed out at the time."""

    home: Home
    agents: tuple[HandBuiltAgent, HandBuiltAgent]
    submission: Submission
    report: VerificationReport
    weights: Path
    proof: dict[str, object]


@pytest.fixture(name="years", scope="module")
def fixture_years(tmp_path_factory: pytest.TempPathFactory) -> Years:
    server = LiveServer(make_home(tmp_path_factory.mktemp("years")))
    server.start()
    try:
        digest = server.add_order("digits-2026")
        first, second = (server.open_session("digits-2026", digest) for _ in range(2))
        for agent in (first, second):
            submission = make_submission(agent.grant.session_id, flat_calibration(0.0))
            submission.seal(agent)
            answer = submission.send(agent)
            assert answer.status_code == 200, answer.text
            if agent is first:
                report, sent = VerificationReport.from_bytes(answer.content), submission
        proof = server.client(None).get("/registry/proof/inclusion", params={"index": 2}).json()
    finally:
        server.stop()
    weights = server.home.path / BLOBS_FOLDER / report_weights(server.home)
    return Years(server.home, (first, second), sent, report, weights, proof)


def report_weights(home: Home) -> str:
    store = home.open_store()
    (digest,) = {row.weights_digest for row in store.submissions()}
    store.close()
    return digest


def after(years: Years, days: float) -> Auditor:
    auditor = Auditor.open(ServerSettings(home=years.home.path))
    then = datetime.now(UTC) + timedelta(days=days)
    return replace(auditor, now=lambda: then)


def test_weights_go_when_all_who_need_them_are_old_and_every_proof_stays(years: Years) -> None:
    first, second = (agent.grant.session_id for agent in years.agents)
    young, old = after(years, KEPT_DAYS - 1), after(years, KEPT_DAYS + 1)
    assert retention.plan(young, KEPT_DAYS).due == []

    stray = years.weights.parent / ".incoming-killed"
    stray.write_bytes(b"half a model")
    os.utime(stray, (0, 0))
    (years.weights.parent / ".incoming-now").write_bytes(b"half a model")

    # One of the two has not been verified: the weights are needed.
    with old.store._write.begin() as transaction:
        transaction.connection().exec_driver_sql(
            "UPDATE submissions SET level = NULL WHERE session_id = ?", (second,)
        )
    planned = retention.plan(old, KEPT_DAYS)
    assert [row.session_id for row in planned.due] == [first]
    assert [kept.session_id for kept in planned.kept] == [second]
    assert planned.digests == []
    assert retention.apply(old, KEPT_DAYS).strays == [stray]
    assert years.weights.exists()
    assert not stray.exists()

    old.store.set_level(second, 1)
    assert [row.session_id for row in retention.apply(old, KEPT_DAYS).due] == [second]
    assert not years.weights.exists()
    assert len([p for p in years.weights.parent.iterdir() if p.name[0] != "."]) == 3

    assert store_checks.check(old).faults == []
    officer = Principal("officer", "compliance-officer", AUTHORITY)
    assert [model.obstacle for model in askable_models(old, officer)] == ["dropped", "dropped"]
    with TestClient(create_app(ServerSettings(home=years.home.path))) as client:
        client.headers["Authorization"] = f"Bearer {years.home.tokens['auditor']}"
        size = years.proof["size"]
        found = client.get(f"/v1/registry/proof/inclusion?index=2&size={size}").json()
        assert found == years.proof
        answer = client.get(f"/v1/sessions/{first}/bundle")
        bundle = read_bundle(BytesIO(answer.content))
        assert bundle.weights is None
        assert bundle.scores is not None
        assert len(bundle.verifications) == 1
        report = verify_bundle(bundle, years.home.history(), now=datetime.now(UTC))
        before = {finding.check: finding.outcome for finding in years.report.findings}
        failed = {f.check for f in report.findings if f.outcome == "failed"}
        (sealed,) = (f for f in report.findings if f.check == "sealed-weights")
        assert (sealed.outcome, "need not keep" in sealed.detail) == ("not_checked", True)
        assert failed <= {check for check, outcome in before.items() if outcome == "failed"}
        assert client.get(f"/v1/sessions/{first}/report").status_code == 200

        files = [("images", ("a.png", as_png(noise_image(1))))]
        for answer in (
            client.post(f"/v1/sessions/{first}/queries", files=files),
            client.put(f"/v1/sessions/{first}/submission", files=years.submission.files()),
        ):
            assert answer.status_code == 410, answer.text
            assert answer.json()["type"].endswith(":WeightsDroppedError")
    young.store.close()
    old.store.close()


def test_the_command_says_what_it_would_do_and_does_nothing(years: Years) -> None:
    before = sorted((years.home.path / BLOBS_FOLDER).iterdir())
    words = ["server", "retain", "--home", str(years.home.path), "--weights-days", "1", "--dry-run"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "would delete" in result.output
    assert sorted((years.home.path / BLOBS_FOLDER).iterdir()) == before
