"""Attacks on what independent witnesses vouch for: that nobody is shown another log.

The attacker is the auditor's own server, with all of the auditor's keys and a developer on its
side. Only the witnesses are honest, and one check reads what they have signed.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from attacks import Attack
from forge import (
    GRANTED_AT,
    ORIGIN,
    ROLE_KEYS,
    SESSION,
    STRANGER_KEY,
    Evidence,
    Plot,
    digest_of,
    fixed_key,
    is_state,
    stage,
)
from forge import change as changed
from test_attacks import outcomes, switch_off

from auditkit.evidence import merkle, notes
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.witnessing import AddCheckpoint, StaleOldSizeError, with_lines
from auditor_server.witness.cosigning import Witness
from auditor_server.witness.home import FollowedLog, create_home
from schemas import AssuranceLevel, WitnessPolicy

CHECK = "checkpoints-witnessed"
KEYS = tuple(fixed_key(f"witness {number}") for number in (1, 2, 3))
NAMES = tuple(f"w{number}.example.org" for number in (1, 2, 3))
LATER_SECONDS = 60  # after the auditor's cosignature


def verifier(number: int, key: SigningKey | None = None, name: str | None = None) -> str:
    """The verifier key of witness 0, 1 or 2, or a falsified one."""
    public = (key or KEYS[number]).public
    return notes.VerifierKey.cosignature(name or NAMES[number], public).encode()


def weak_verifier(name: str) -> str:
    """A point of order 4, under which one signature fits many messages."""
    material = b"\x04" + bytes(32)
    key_hash = sha256(name.encode() + b"\n" + material).hexdigest()[:8]
    return f"{name}+{key_hash}+{base64.b64encode(material).decode()}"


HONEST_KEYS = tuple(verifier(number) for number in range(3))


def policy(keys: Sequence[str] = HONEST_KEYS, threshold: int = 2) -> dict[str, object]:
    return {"witnesses": WitnessPolicy(keys=tuple(keys), threshold=threshold)}


def auditors_time(note: bytes) -> int:
    cosigner = notes.VerifierKey.cosignature(f"{ORIGIN}/cosigner", ROLE_KEYS["cosigner"].public)
    found = notes.verify(note, [cosigner]).signatures[0].timestamp
    assert found is not None
    return found


def line(note: bytes, name: str, key: SigningKey, after: int = LATER_SECONDS) -> str:
    """What a witness of this name and key signs `after` seconds after the auditor."""
    time = auditors_time(note) + after
    return notes.cosign(notes.parse(note), name, key, time).signatures[-1].to_line()


def witness_line(note: bytes, number: int) -> str:
    return line(note, NAMES[number], KEYS[number])


def with_final_lines(make: Callable[[Bundle], list[str]]) -> Callable[[Bundle], Bundle]:
    """Add signature lines to the final checkpoint."""

    def edit(bundle: Bundle) -> Bundle:
        *earlier, last = bundle.checkpoints
        return replace(bundle, checkpoints=(*earlier, with_lines(last, make(bundle))))

    return edit


def last_of(bundle: Bundle) -> bytes:
    return list(bundle.checkpoints)[-1]


def witnessed(*numbers: int, **order: object) -> Plot:
    """An honest session whose final checkpoint these witnesses have cosigned."""
    return Plot(
        order={**policy(), **order},
        bundle=with_final_lines(lambda b: [witness_line(last_of(b), n) for n in numbers]),
    )


def other_log(bundle: Bundle) -> bytes:
    """A checkpoint of another session, of the same size and root."""
    checkpoint = notes.parse_checkpoint(notes.parse(last_of(bundle)).text)
    other = replace(checkpoint, origin=f"{ORIGIN}/sessions/other")
    signed = notes.sign(other.to_text(), other.origin, STRANGER_KEY)
    time = auditors_time(last_of(bundle))
    cosigner = ROLE_KEYS["cosigner"]
    return notes.cosign(signed, f"{ORIGIN}/cosigner", cosigner, time).to_bytes()


def first_of(bundle: Bundle) -> bytes:
    return next(iter(bundle.checkpoints))


def under_another_name(bundle: Bundle) -> str:
    """Witness 0's signature, under the name and key hash of witness 1."""
    own = notes.parse(with_lines(last_of(bundle), [witness_line(last_of(bundle), 0)]))
    claimed = notes.VerifierKey.parse(HONEST_KEYS[1])
    return replace(own.signatures[-1], name=claimed.name, key_hash=claimed.key_hash).to_line()


TWO_NAMES = ("w1.example.org", "mirror.example.org")
TWO_KEYS = (KEYS[0], fixed_key("witness 1, second key"))
COSIGNER = ROLE_KEYS["cosigner"]
MONTHS = 90 * 24 * 3600

ATTACKS = (
    Attack(
        "nobody has witnessed the log",
        CHECK,
        "WitnessQuorumError",
        witnessed(),
    ),
    Attack(
        "one witness too few",
        CHECK,
        "WitnessQuorumError",
        witnessed(1),
    ),
    Attack(
        "the same witness signs twice",
        CHECK,
        "WitnessQuorumError",
        Plot(
            order=policy(),
            bundle=with_final_lines(
                lambda b: [line(last_of(b), NAMES[0], KEYS[0], after) for after in (10, 20, 30)]
            ),
        ),
    ),
    Attack(
        "a stranger stands in for a witness",
        CHECK,
        "WitnessQuorumError",
        Plot(
            order=policy(),
            bundle=with_final_lines(
                lambda b: [
                    witness_line(last_of(b), 0),
                    line(last_of(b), "w9.example.org", STRANGER_KEY),
                    line(last_of(b), NAMES[1], STRANGER_KEY),
                ]
            ),
        ),
    ),
    Attack(
        "a cosignature copied from an older checkpoint of the log",
        CHECK,
        "SignatureError",
        Plot(
            order=policy(),
            bundle=with_final_lines(
                lambda b: [witness_line(last_of(b), 0), witness_line(first_of(b), 1)]
            ),
        ),
    ),
    Attack(
        "a cosignature copied from another log",
        CHECK,
        "SignatureError",
        Plot(
            order=policy(),
            bundle=with_final_lines(
                lambda b: [witness_line(last_of(b), 0), witness_line(other_log(b), 1)]
            ),
        ),
    ),
    Attack(
        "one witness's signature under another one's name",
        CHECK,
        "SignatureError",
        Plot(
            order=policy(),
            bundle=with_final_lines(lambda b: [witness_line(last_of(b), 0), under_another_name(b)]),
        ),
    ),
    Attack(
        "one witness ordered under two names",
        CHECK,
        "WitnessPolicyError",
        Plot(
            order=policy([verifier(0, KEYS[0], name) for name in TWO_NAMES]),
            bundle=with_final_lines(
                lambda b: [line(last_of(b), name, KEYS[0]) for name in TWO_NAMES]
            ),
        ),
    ),
    Attack(
        "one witness ordered with two keys",
        CHECK,
        "WitnessPolicyError",
        Plot(
            order=policy([verifier(0, key) for key in TWO_KEYS]),
            bundle=with_final_lines(
                lambda b: [line(last_of(b), NAMES[0], key) for key in TWO_KEYS]
            ),
        ),
    ),
    Attack(
        "a witness's key of small order",
        CHECK,
        "WeakKeyError",
        replace(witnessed(0, 1), order=policy([*HONEST_KEYS[:2], weak_verifier("w3.example.org")])),
    ),
    Attack(
        "the auditor as its own witness",
        CHECK,
        "WitnessPolicyError",
        Plot(
            order=policy([verifier(0), verifier(1, COSIGNER, "w2.example.org")]),
            bundle=with_final_lines(
                lambda b: [
                    witness_line(last_of(b), 0),
                    line(last_of(b), "w2.example.org", COSIGNER),
                ]
            ),
        ),
    ),
    Attack(
        "a key that signs without a time",
        CHECK,
        "WitnessPolicyError",
        replace(
            witnessed(0, 1),
            order=policy(
                [
                    *HONEST_KEYS[:2],
                    notes.VerifierKey.ed25519(NAMES[2], KEYS[2].public).encode(),
                ]
            ),
        ),
    ),
    Attack(
        "half of the witnesses are enough",
        CHECK,
        "WitnessPolicyError",
        replace(witnessed(0), order=policy(HONEST_KEYS[:2], threshold=1)),
    ),
    Attack(
        "a cosignature from before the checkpoint",
        CHECK,
        "WitnessTimeError",
        Plot(
            order=policy(),
            bundle=with_final_lines(
                lambda b: [
                    witness_line(last_of(b), 0),
                    line(last_of(b), NAMES[1], KEYS[1], -3600),
                ]
            ),
        ),
    ),
    Attack(
        "a cosignature from the future",
        CHECK,
        "WitnessTimeError",
        Plot(
            order=policy(),
            bundle=with_final_lines(
                lambda b: [
                    witness_line(last_of(b), 0),
                    line(last_of(b), NAMES[1], KEYS[1], MONTHS),
                ]
            ),
        ),
    ),
)

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 2), (2, 0), (0, 1, 2)], ids=str)
def test_enough_honest_witnesses_are_told_by_name(numbers: tuple[int, ...]) -> None:
    report = stage(witnessed(*numbers)).report()
    assert outcomes(report, "failed") == set()
    assert report.level == AssuranceLevel.L1
    (finding,) = (f for f in report.findings if f.check == CHECK)
    assert finding.outcome == "passed"
    assert f"{len(numbers)} of 3 witnesses" in finding.detail
    assert all((name in finding.detail) == (n in numbers) for n, name in enumerate(NAMES))


def test_witnesses_of_its_own_do_not_harm_a_session_whose_order_names_none() -> None:
    report = stage(replace(witnessed(0, 1), order={})).report()
    (finding,) = (f for f in report.findings if f.check == CHECK)
    assert (finding.outcome, report.level) == ("not_checked", AssuranceLevel.L1)
    assert "names no witnesses" in finding.detail


def test_a_wrong_clock_of_one_witness_does_no_harm_while_enough_others_are_right() -> None:
    plot = Plot(
        order=policy(),
        bundle=with_final_lines(
            lambda b: [
                line(last_of(b), NAMES[0], KEYS[0], MONTHS),
                *(witness_line(last_of(b), n) for n in (1, 2)),
            ]
        ),
    )
    assert stage(plot).report().passed


@every_attack
def test_exactly_the_check_on_witnesses_catches(attack: Attack) -> None:
    report = stage(attack.plot).report()
    assert outcomes(report, "failed") == {CHECK}
    assert {f.check: f.error for f in report.findings}[CHECK] == attack.error
    assert report.level == AssuranceLevel.L0


@every_attack
def test_without_the_check_it_would_pass(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, {CHECK})
    report = stage(attack.plot).report()
    assert report.passed
    assert report.level == AssuranceLevel.L1


# -- the auditor's server against real witnesses ---------------------------------------------------


@dataclass
class Follower:
    """A witness with a folder of its own, which has followed the auditor from its first day on."""

    witness: Witness
    shown: int = 0

    @property
    def name(self) -> str:
        return self.witness.home.config.name

    @property
    def key(self) -> str:
        return self.witness.home.verifier_key.encode()

    def show(self, evidence: Evidence, size: int, *, start_at: int | None = None) -> str:
        """Show it the checkpoint of this size, proven as well as the attacker can; its line."""
        records = list(evidence.bundle.records)
        note = next(
            parsed
            for parsed in map(notes.parse, evidence.bundle.checkpoints)
            if notes.parse_checkpoint(parsed.text).size == size
        )
        start = self.shown if start_at is None else start_at
        request = AddCheckpoint.of(start, merkle.consistency_proof(records, start, size), note)
        answer = self.witness.add_checkpoint(request.to_bytes())
        self.shown = size
        return answer.rstrip("\n")


@pytest.fixture
def followers(tmp_path: Path) -> tuple[Follower, ...]:
    name = f"{ORIGIN}/cosigner"
    cosigner = notes.VerifierKey.cosignature(name, ROLE_KEYS["cosigner"].public)
    auditor = FollowedLog(origin=ORIGIN, below=True, keys=(cosigner.encode(),))
    # The story is set in the past of the witnesses' own clocks.
    clock = GRANTED_AT + timedelta(hours=1)
    return tuple(
        Follower(Witness(create_home(tmp_path / name, name, [auditor]), now=lambda: clock))
        for name in NAMES
    )


def two_histories(keys: Sequence[str]) -> tuple[Evidence, Evidence]:
    """Two complete logs of one session, signed by everybody; they part after some records."""
    order = policy(keys)
    return (
        stage(Plot(order=order)),
        stage(Plot(order=order, story=(changed(is_state(10), weights_digest=digest_of("other")),))),
    )


def added(evidence: Evidence, lines: list[str]) -> Evidence:
    return replace(evidence, bundle=with_final_lines(lambda _: lines)(evidence.bundle))


def sizes(evidence: Evidence) -> list[int]:
    parsed = (notes.parse_checkpoint(notes.parse(n).text) for n in evidence.bundle.checkpoints)
    return [checkpoint.size for checkpoint in parsed]


def test_of_two_histories_none_finds_enough_witnesses_when_they_are_split(
    followers: tuple[Follower, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = followers
    left, right = two_histories([follower.key for follower in (first, second)])
    assert sizes(left) == sizes(right)
    end = sizes(left)[-1]
    shown = added(left, [first.show(left, end)]), added(right, [second.show(right, end)])
    for evidence in shown:
        report = evidence.report()
        assert outcomes(report, "failed") == {CHECK}
        assert report.level == AssuranceLevel.L0
    # Each is asked for the other history, too, from wherever it might be thought to stand.
    for follower, other in ((first, right), (second, left)):
        for start in (0, *sizes(other)):
            with pytest.raises(EvidenceError):
                follower.show(other, end, start_at=start)
    switch_off(monkeypatch, {CHECK})
    assert all(evidence.report().passed for evidence in shown)


def test_one_history_has_the_majority_and_the_other_can_never_get_it(
    followers: tuple[Follower, ...],
) -> None:
    left, right = two_histories([follower.key for follower in followers])
    end = sizes(left)[-1]
    majority = [follower.show(left, end) for follower in followers[:2]]
    minority = [followers[2].show(right, end)]
    assert added(left, majority).report().passed
    assert outcomes(added(right, minority).report(), "failed") == {CHECK}
    for follower in followers[:2]:
        with pytest.raises(EvidenceError):
            follower.show(right, end)


def test_a_history_that_parts_late_is_refused_by_who_has_seen_the_beginning(
    followers: tuple[Follower, ...],
) -> None:
    follower = followers[0]
    left, right = two_histories([other.key for other in followers])
    for size in sizes(left)[:-1]:
        follower.show(left, size)
    with pytest.raises(EvidenceError, match="root"):
        follower.show(right, sizes(right)[-1])
    follower.show(left, sizes(left)[-1])


def restored(follower: Follower, backup: Path) -> None:
    """Put an old state file back in place, as from a backup."""
    path = follower.witness.home.state.path
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    path.write_bytes(backup.read_bytes())


def test_a_witness_whose_state_was_set_back_cosigns_both_histories(
    followers: tuple[Follower, ...], tmp_path: Path
) -> None:
    """What can't be caught: the bundle of each history holds. What can: both are proof together."""
    backup = tmp_path / "backup"
    backup.write_bytes(followers[0].witness.home.state.path.read_bytes())
    left, right = two_histories([follower.key for follower in followers])
    end = sizes(left)[-1]
    first = added(left, [follower.show(left, end) for follower in followers[:2]])
    restored(followers[0], backup)
    followers[0].shown = 0
    second = added(right, [followers[0].show(right, end), followers[2].show(right, end)])
    assert first.report().passed
    assert second.report().passed
    # Whoever has both holds two roots of one size under one signature, which nobody can explain.
    key = notes.VerifierKey.parse(followers[0].key)
    signed = [
        notes.parse_checkpoint(notes.verify(last_of(found.bundle), [key]).text)
        for found in (first, second)
    ]
    assert signed[0].size == signed[1].size
    assert signed[0].origin == signed[1].origin == f"{ORIGIN}/sessions/{SESSION}"
    assert signed[0].root != signed[1].root


def test_a_log_notices_that_a_witness_has_forgotten(
    followers: tuple[Follower, ...], tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    follower = followers[0]
    left, _ = two_histories([other.key for other in followers])
    backup.write_bytes(follower.witness.home.state.path.read_bytes())
    follower.show(left, sizes(left)[0])
    restored(follower, backup)
    with pytest.raises(StaleOldSizeError) as caught:
        follower.show(left, sizes(left)[1])
    assert caught.value.size < sizes(left)[0]


def test_the_names_of_the_attacks_differ() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
