"""The log grows by flushes: never a gap, never two histories, never a loss."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hand_built import HandBuiltAgent, is_problem
from live import ORIGIN, LiveServer

from auditkit.evidence import notes, trust
from auditkit.evidence.keys import SigningKey
from schemas import AppendRequest


def test_a_flush_is_cosigned_by_the_auditor(agent: HandBuiltAgent, live_server: LiveServer) -> None:
    receipt = agent.sent(agent.flush(0))

    root = live_server.home.trust_root(datetime.now(UTC))
    session_key = notes.VerifierKey.ed25519(agent.grant.origin, agent.key.public)
    (public,) = trust.role_keys(root, "cosigner").values()
    cosigner = notes.VerifierKey.cosignature(f"{ORIGIN}/cosigner", public)
    verified = notes.verify(receipt.checkpoint.encode(), [session_key, cosigner])
    assert {signature.key for signature in verified.signatures} == {session_key, cosigner}
    assert notes.parse_checkpoint(verified.text).size == 4


def test_progress_is_visible_while_the_training_runs(agent: HandBuiltAgent) -> None:
    before = agent.status()
    agent.sent(agent.flush(0))
    after = agent.status()

    assert (before["acknowledged_records"], before["last_cosigned_at"]) == (0, None)
    assert (after["acknowledged_records"], after["step"], after["epoch"]) == (4, 3, 1)
    assert after["state"] == "open"
    assert after["epochs"] == 2
    assert after["last_cosigned_at"] is not None


def test_the_log_grows_flush_by_flush_and_ends_with_the_seal(agent: HandBuiltAgent) -> None:
    receipt = agent.sent(agent.flush(0))
    agent.log_receipt(receipt.checkpoint)
    agent.log_seal()
    agent.sent(agent.flush(4))
    assert agent.status()["state"] == "sealed"

    agent.log_step(4)
    assert is_problem(agent.send(agent.flush(6)), 409, "SessionSealedError")
    assert agent.status()["acknowledged_records"] == 6


def test_nothing_may_follow_the_seal_within_a_flush_either(agent: HandBuiltAgent) -> None:
    agent.log_seal()
    agent.log_step(4)
    assert is_problem(agent.send(agent.flush(0)), 409, "SessionSealedError")
    assert agent.status()["acknowledged_records"] == 0


def test_the_same_flush_again_gives_the_same_receipt(agent: HandBuiltAgent) -> None:
    flush = agent.flush(0, 2)
    first = agent.sent(flush)
    agent.sent(agent.flush(2, 4))
    assert agent.sent(flush) == first
    assert agent.status()["acknowledged_records"] == 4


def test_two_stored_flushes_may_be_repeated_as_one(agent: HandBuiltAgent) -> None:
    agent.sent(agent.flush(0, 2))
    last = agent.sent(agent.flush(2, 4))
    assert agent.sent(agent.flush(0, 4)) == last


def test_a_gap_is_refused_and_says_what_is_missing(agent: HandBuiltAgent) -> None:
    agent.sent(agent.flush(0, 2))
    response = agent.send(agent.flush(3, 4))
    assert is_problem(response, 409, "GapError")
    assert "begins with record 2" in response.json()["detail"]


def test_a_second_history_is_refused(agent: HandBuiltAgent) -> None:
    agent.sent(agent.flush(0))
    agent.lines.pop()
    agent.log_step(3, task_loss=0.001)
    response = agent.send(agent.flush(0))
    assert is_problem(response, 409, "ForkError")
    assert "record 3 differs" in response.json()["detail"]


def test_a_second_history_with_a_common_end_is_refused(agent: HandBuiltAgent) -> None:
    """The records of the repeated flush are the stored ones; the tree before them is not."""
    agent.sent(agent.flush(0, 2))
    agent.sent(agent.flush(2, 4))
    genuine = agent.lines[1]
    agent.lines[1] = genuine.replace(b"2.3", b"2.4")
    assert agent.lines[1] != genuine
    assert is_problem(agent.send(agent.flush(2, 4)), 409, "ForkError")


def test_a_flush_that_overlaps_the_end_must_be_repeated_as_it_was(agent: HandBuiltAgent) -> None:
    agent.sent(agent.flush(0, 2))
    response = agent.send(agent.flush(1, 4))
    assert is_problem(response, 409, "ForkError")
    assert "send exactly the flush again" in response.json()["detail"]


def test_a_stored_flush_cut_short_is_no_repetition(agent: HandBuiltAgent) -> None:
    agent.sent(agent.flush(0, 4))
    response = agent.send(agent.flush(0, 3))
    assert is_problem(response, 409, "ForkError")
    assert "no checkpoint of size 3 is stored" in response.json()["detail"]


def test_a_wrong_root_is_refused(agent: HandBuiltAgent) -> None:
    response = agent.send(agent.flush(0, root=bytes(32)))
    assert is_problem(response, 422, "CheckpointRootError")
    assert agent.status()["acknowledged_records"] == 0


def test_a_checkpoint_over_other_records_is_refused(agent: HandBuiltAgent) -> None:
    assert is_problem(agent.send(agent.flush(0, size=5)), 422, "CheckpointSizeError")


def test_a_checkpoint_signed_by_another_key_is_refused(agent: HandBuiltAgent) -> None:
    flush = agent.flush(0, key=SigningKey.generate())
    assert is_problem(agent.send(flush), 422, "UnsignedNoteError")


def test_a_damaged_signature_is_refused(agent: HandBuiltAgent) -> None:
    genuine = agent.flush(0)
    agent.lines.pop()
    other = agent.flush(0)
    text = other.checkpoint.partition("\n\n")[0]
    forged = text + "\n\n" + genuine.checkpoint.partition("\n\n")[2]
    flush = AppendRequest(first=0, records=other.records, checkpoint=forged)
    assert is_problem(agent.send(flush), 422, "SignatureError")


def test_a_log_of_another_session_is_refused(
    agent: HandBuiltAgent, new_agent: Callable[[], HandBuiltAgent]
) -> None:
    stranger = new_agent()
    flush = agent.flush(0, origin=stranger.grant.origin)
    assert is_problem(agent.send(flush), 422, "ForeignOriginError")


def test_a_log_begins_with_its_own_grant(new_agent: Callable[[], HandBuiltAgent]) -> None:
    without = new_agent()
    without.log_step(1)
    assert is_problem(without.send(without.flush(0)), 422, "GrantRecordError")
    foreign = new_agent()
    foreign.log_grant(grant_digest="cd" * 32)
    assert is_problem(foreign.send(foreign.flush(0)), 422, "GrantRecordError")
    twice = new_agent()
    twice.log_grant()
    twice.log_grant()
    assert is_problem(twice.send(twice.flush(0)), 422, "GrantRecordError")


@pytest.mark.parametrize("hours", [-1, 1])
def test_impossible_times_are_refused(agent: HandBuiltAgent, hours: int) -> None:
    agent.log_step(4, time_ms=int((time.time() + hours * 3600) * 1000))
    assert is_problem(agent.send(agent.flush(0)), 422, "RecordTimeError")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"not json", "InvalidRecordError"),
        (b'{"kind":"step"}', "InvalidRecordError"),
        (
            b'{"kind":"unheard-of","schema_version":1,"sequence":4,"time_ms":0}',
            "InvalidRecordError",
        ),
        (b"[" * 10_000, "InvalidRecordError"),
    ],
)
def test_what_is_no_record_is_refused(agent: HandBuiltAgent, line: bytes, error: str) -> None:
    agent.lines.append(line)
    assert is_problem(agent.send(agent.flush(0)), 422, error)


def test_a_record_has_one_byte_form_only(agent: HandBuiltAgent) -> None:
    """A repeated name would show one number to this reader and another one to the next."""
    agent.lines[-1] = agent.lines[-1].replace(b'"step":3', b'"step":2,"step":3')
    assert b'"step":2' in agent.lines[-1]
    assert is_problem(agent.send(agent.flush(0)), 422, "InvalidRecordError")


def test_numbers_that_are_none_are_refused(agent: HandBuiltAgent) -> None:
    agent.lines[-1] = agent.lines[-1].replace(b'"objective":2', b'"objective":NaN')
    assert b"NaN" in agent.lines[-1]
    assert is_problem(agent.send(agent.flush(0)), 422, "InvalidRecordError")


def test_sequence_numbers_are_indices(agent: HandBuiltAgent) -> None:
    agent.log_step(4, sequence=7)
    assert is_problem(agent.send(agent.flush(0)), 422, "RecordSequenceError")


def test_an_empty_flush_is_refused(agent: HandBuiltAgent) -> None:
    assert is_problem(agent.send(agent.flush(0, 0)), 422, "EmptyFlushError")


def test_an_expired_session_takes_nothing_new_but_repeats_its_receipts(
    live_server: LiveServer,
) -> None:
    seconds = 2
    digest = live_server.add_order("short-lived", most_session_hours=seconds / 3600)
    agent = live_server.open_session("short-lived", digest)
    agent.log_grant()
    flush = agent.flush(0)
    receipt = agent.sent(flush)
    agent.log_step(1)
    time.sleep(max(0.0, (agent.grant.valid_until - datetime.now(UTC)).total_seconds()) + 0.1)

    assert is_problem(agent.send(agent.flush(1)), 403, "SessionExpiredError")
    assert agent.sent(flush) == receipt


def test_a_revoked_key_is_refused_at_once(own_server: LiveServer) -> None:
    own_server.start()
    agent = own_server.open_session("digits", own_server.add_order("digits"))
    agent.log_grant()
    agent.sent(agent.flush(0))
    own_server.revoke(agent.grant.session_key)

    agent.log_step(1)
    assert is_problem(agent.send(agent.flush(1)), 403, "SessionExpiredError")


def test_two_copies_of_one_agent_get_one_receipt(agent: HandBuiltAgent) -> None:
    flush = agent.flush(0)
    with ThreadPoolExecutor(8) as pool:
        receipts = set(pool.map(lambda _: agent.sent(flush).checkpoint, range(8)))
    assert len(receipts) == 1
    assert agent.status()["acknowledged_records"] == 4


def test_of_two_different_flushes_at_once_one_wins(agent: HandBuiltAgent) -> None:
    agent.sent(agent.flush(0))
    variants = []
    for loss in (1.0, 2.0):
        agent.log_step(4, task_loss=loss)
        variants.append(agent.flush(4))
        agent.lines.pop()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(agent.send, variants))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (refused,) = (answer for answer in answers if answer.status_code == 409)
    assert is_problem(refused, 409, "ForkError")


def test_eight_sessions_grow_side_by_side(new_agent: Callable[[], HandBuiltAgent]) -> None:
    flushes = 10

    def train(agent: HandBuiltAgent) -> int:
        agent.log_grant()
        first = 0
        for step in range(1, flushes + 1):
            agent.log_step(step)
            receipt = agent.sent(agent.flush(first))
            first = len(agent.lines)
            agent.log_receipt(receipt.checkpoint)
        agent.log_seal()
        agent.sent(agent.flush(first))
        return agent.status()["acknowledged_records"]

    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(train, [new_agent() for _ in range(8)]))
    assert sizes == [2 * flushes + 2] * 8
