"""Drawing segments of a sealed log, and handing in what executing them again gave."""

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
import requests
from hand_built import DIGEST, ENVIRONMENT, HandBuiltAgent, is_problem
from live import LiveServer
from submitted import flat_calibration, make_submission

from auditkit.evidence import canonical, dsse, statements
from auditkit.evidence.bundle import Bundle, read_bundle
from auditkit.evidence.replay import draw, segments_of
from auditkit.evidence.trust import role_keys
from schemas import (
    PartResult,
    ReplayDraw,
    ReplayResult,
    SegmentResult,
    StateRecord,
    VerificationReport,
    parse_record,
)
from schemas.replay import SegmentOutcome

STEPS = (0, 5, 10, 15, 20, 25)
OTHER = "cd" * 32
NewAgent = Callable[[], HandBuiltAgent]


def log_states(agent: HandBuiltAgent, last_weights: str = DIGEST) -> None:
    for step in STEPS:
        agent.log(
            StateRecord(
                sequence=len(agent.lines),
                time_ms=int(time.time() * 1000),
                step=step,
                state_digest=state_digest(step),
                weights_digest=last_weights if step == STEPS[-1] else OTHER,
                moved=float(step) if step else None,
            )
        )


def state_digest(step: int) -> str:
    return canonical.sha256_hex(f"state {step}".encode())


def seal_states(agent: HandBuiltAgent) -> HandBuiltAgent:
    """Write a log of six states and a seal, all of it acknowledged."""
    agent.log_grant()
    log_states(agent)
    agent.log_seal()
    agent.sent(agent.flush(0))
    return agent


@pytest.fixture
def sealed(new_agent: NewAgent) -> HandBuiltAgent:
    return seal_states(new_agent())


def ask(
    server: LiveServer, agent: HandBuiltAgent, *, role: str = "auditor", **asked: Any
) -> requests.Response:
    client = server.client(role)  # type: ignore[arg-type]
    return client.post(f"{agent.path}/draws", json={"uniform": 2, **asked})


def drawn(response: requests.Response) -> tuple[ReplayDraw, str]:
    """The draw and the digest that its result must name."""
    assert response.status_code == 201, response.text
    payload = dsse.Envelope.from_bytes(response.content).payload
    found = statements.parse(payload, statements.REPLAY_DRAW_PREDICATE, ReplayDraw)
    return found, canonical.sha256_hex(payload)


def answer(
    found: ReplayDraw, digest: str, outcome: SegmentOutcome = "exact", **changes: Any
) -> ReplayResult:
    now = datetime.now(UTC)
    honest = ReplayResult(
        session_id=found.session_id,
        draw_digest=digest,
        environment=ENVIRONMENT,
        mode="process",
        image_digest=None,
        segments=tuple(
            SegmentResult(
                segment=segment,
                outcome=outcome,
                start_digest=state_digest(segment.first_state_step),
                end_digest=state_digest(segment.last_state_step) if outcome == "exact" else OTHER,
                steps=segment.steps,
                seconds=0.5,
            )
            for segment in found.segments
        ),
        initialisation=PartResult(outcome="exact", digest=OTHER),
        scores=PartResult(outcome="exact", digest=DIGEST),
        grade="strong",
        started_at=now,
        finished_at=now,
    )
    return honest.model_copy(update=changes)


def hand_in(
    server: LiveServer, agent: HandBuiltAgent, result: ReplayResult, role: str = "auditor"
) -> requests.Response:
    client = server.client(role)  # type: ignore[arg-type]
    return client.post(f"{agent.path}/replays", json=result.as_json())


def listed(server: LiveServer, agent: HandBuiltAgent) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        server.client("developer").get(f"{agent.path}/draws").json()["draws"]
    )
    return found


def bundle_of(server: LiveServer, agent: HandBuiltAgent) -> Bundle:
    response = server.client("auditor").get(f"{agent.path}/bundle")
    return read_bundle(BytesIO(response.content))


def replay_finding(server: LiveServer, agent: HandBuiltAgent) -> tuple[str, str | None]:
    response = server.client("auditor").get(f"{agent.path}/verification")
    report = VerificationReport.from_bytes(response.content)
    found = next(finding for finding in report.findings if finding.check == "replay")
    return found.outcome, found.error


# -- drawing -----------------------------------------------------------------------------------


def test_nothing_is_drawn_before_the_seal(live_server: LiveServer, new_agent: NewAgent) -> None:
    agent = new_agent()
    agent.log_grant()
    log_states(agent)
    agent.sent(agent.flush(0))
    assert is_problem(ask(live_server, agent), 422, "LogNotSealedError")
    assert listed(live_server, agent) == []


def test_anybody_can_repeat_the_draw_of_a_sealed_log(
    live_server: LiveServer, sealed: HandBuiltAgent
) -> None:
    response = ask(live_server, sealed, largest=1)
    found, _ = drawn(response)
    root = live_server.home.trust_root(datetime.now(UTC))
    dsse.verify(dsse.Envelope.from_bytes(response.content), role_keys(root, "replay"))
    segments = segments_of(parse_record(line) for line in sealed.lines)
    moves = [float(step) for step in STEPS[1:]]
    assert found.segments == draw(bytes.fromhex(found.seed), segments, moves, 2, 1)
    assert found.seal_digest == canonical.sha256_hex(sealed.lines[-1])
    assert (found.number, found.log_size) == (1, len(sealed.lines))


def test_every_draw_is_new_numbered_registered_and_exported(
    live_server: LiveServer, sealed: HandBuiltAgent
) -> None:
    """Whoever draws until the segments suit shows all that did not."""
    draws = [drawn(ask(live_server, sealed))[0] for _ in range(4)]
    assert [found.number for found in draws] == [1, 2, 3, 4]
    assert len({found.seed for found in draws}) == 4
    bundle = bundle_of(live_server, sealed)
    assert len(bundle.replays) == len(listed(live_server, sealed)) == 4
    entries = json.loads(bundle.registry or b"")["entries"]
    registered = [found["entry"]["digest"] for found in entries if found["entry"]["kind"] == "draw"]
    assert registered == [
        canonical.sha256_hex(dsse.Envelope.from_bytes(found.draw).payload)
        for found in bundle.replays
    ]


def test_draws_at_once_get_different_numbers(
    live_server: LiveServer, sealed: HandBuiltAgent
) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: ask(live_server, sealed), range(4)))
    assert sorted(drawn(found)[0].number for found in answers) == [1, 2, 3, 4]


def test_a_replay_by_tolerance_needs_short_segments(
    live_server: LiveServer, sealed: HandBuiltAgent
) -> None:
    assert is_problem(ask(live_server, sealed, most_steps=4), 422, "SegmentTooLongError")
    assert drawn(ask(live_server, sealed, most_steps=5))[0].most_steps == 5


@pytest.mark.parametrize("asked", [{"uniform": 0}, {"largest": -1}, {"seed": DIGEST}])
def test_nobody_chooses_the_randomness(
    live_server: LiveServer, sealed: HandBuiltAgent, asked: dict[str, Any]
) -> None:
    assert is_problem(ask(live_server, sealed, **asked), 422, "InvalidDocumentError")


def test_a_log_without_states_carries_no_replay(
    live_server: LiveServer, new_agent: NewAgent
) -> None:
    agent = new_agent()
    agent.log_grant()
    agent.log_seal()
    agent.sent(agent.flush(0))
    assert is_problem(ask(live_server, agent), 422, "StateChainError")


# -- handing in a result -----------------------------------------------------------------------


def test_an_exact_replay_is_signed_kept_and_exported(
    live_server: LiveServer, sealed: HandBuiltAgent
) -> None:
    found, digest = drawn(ask(live_server, sealed))
    result = answer(found, digest)
    response = hand_in(live_server, sealed, result)
    assert response.status_code == 201, response.text
    envelope = dsse.Envelope.from_bytes(response.content)
    root = live_server.home.trust_root(datetime.now(UTC))
    payload = dsse.verify(envelope, role_keys(root, "replay"))
    assert statements.parse(payload, statements.REPLAY_RESULT_PREDICATE, ReplayResult) == result
    assert listed(live_server, sealed)[0]["result"] == json.loads(response.content)
    (replay,) = bundle_of(live_server, sealed).replays
    assert replay.result == response.content


def test_a_replay_that_went_against_the_developer_is_kept_for_good(
    live_server: LiveServer, sealed: HandBuiltAgent
) -> None:
    first, digest = drawn(ask(live_server, sealed))
    failed = answer(first, digest, "differs")
    assert hand_in(live_server, sealed, failed).status_code == 201
    assert replay_finding(live_server, sealed) == ("failed", "SegmentDiffersError")
    second, later = drawn(ask(live_server, sealed))
    assert hand_in(live_server, sealed, answer(second, later)).status_code == 201
    assert replay_finding(live_server, sealed) == ("failed", "SegmentDiffersError")


def test_the_first_result_of_a_draw_stays(live_server: LiveServer, sealed: HandBuiltAgent) -> None:
    found, digest = drawn(ask(live_server, sealed))
    failed = answer(found, digest, "differs")
    first = hand_in(live_server, sealed, failed)
    again = hand_in(live_server, sealed, failed)
    assert first.content == again.content
    better = hand_in(live_server, sealed, answer(found, digest))
    assert is_problem(better, 409, "DrawAnsweredError")
    assert listed(live_server, sealed)[0]["result"] == json.loads(first.content)


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"draw_digest": OTHER}, 404, "DrawNotFoundError"),
        ({"session_id": "another"}, 422, "ResultMismatchError"),
        ({"image_digest": OTHER}, 422, "ResultMismatchError"),
        ({"segments": ()}, 422, "SegmentMissingError"),
        ({"grade": "weak"}, 422, "ReplayGradeError"),
        ({"scores": PartResult(outcome="exact", digest=OTHER)}, 422, "OutcomeError"),
    ],
)
def test_what_cannot_be_a_result_of_the_draw_is_not_signed(
    live_server: LiveServer,
    sealed: HandBuiltAgent,
    changes: dict[str, Any],
    status: int,
    error: str,
) -> None:
    found, digest = drawn(ask(live_server, sealed))
    response = hand_in(live_server, sealed, answer(found, digest, **changes))
    assert is_problem(response, status, error)
    assert listed(live_server, sealed)[0]["result"] is None


def test_the_draw_of_another_session_is_not_answered_here(
    live_server: LiveServer, sealed: HandBuiltAgent, new_agent: NewAgent
) -> None:
    other = new_agent()
    other.log_grant()
    log_states(other)
    other.log_seal()
    other.sent(other.flush(0))
    found, digest = drawn(ask(live_server, other))
    result = answer(found, digest)
    assert is_problem(hand_in(live_server, sealed, result), 404, "DrawNotFoundError")
    assert hand_in(live_server, other, result).status_code == 201


def test_only_the_auditor_draws_and_hands_in(
    live_server: LiveServer, sealed: HandBuiltAgent
) -> None:
    for role in ("developer", "compliance-officer"):
        assert is_problem(ask(live_server, sealed, role=role), 403, "NotAllowedError")
    found, digest = drawn(ask(live_server, sealed))
    for role in ("developer", "compliance-officer"):
        response = hand_in(live_server, sealed, answer(found, digest), role)
        assert is_problem(response, 403, "NotAllowedError")


def test_a_replay_renews_what_the_auditor_says_of_a_submission(
    live_server: LiveServer, new_agent: NewAgent
) -> None:
    agent = new_agent()
    submission = make_submission(agent.grant.session_id, flat_calibration(0.0))
    weights, description, scores = (
        canonical.sha256_hex(data)
        for data in (submission.weights, submission.description, submission.scores)
    )
    agent.log_grant()
    log_states(agent, weights)
    agent.log_seal(weights, description, scores)
    agent.sent(agent.flush(0))
    assert submission.send(agent).status_code == 200
    before = bundle_of(live_server, agent).verifications
    found, digest = drawn(ask(live_server, agent))
    result = answer(found, digest, scores=PartResult(outcome="exact", digest=scores))
    assert hand_in(live_server, agent, result).status_code == 201
    after = bundle_of(live_server, agent).verifications
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    outcomes = json.loads(base64.b64decode(json.loads(after[-1])["payload"]))["predicate"]
    replayed = [one["outcome"] for one in outcomes["outcomes"] if one["check"] == "replay"]
    assert replayed == ["passed"]
