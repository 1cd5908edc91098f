"""Really started witnesses: to the letter of C2SP tlog-witness, through crashes and forks."""

import http.client
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from live_witness import BELOW, HandBuiltLog, LiveWitness, make_witness
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditkit.evidence import notes
from auditkit.evidence.errors import SignatureError, WeakKeyError
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.witnessing import MAX_REQUEST_BYTES, read_cosignature
from auditor_server.errors import ServerError
from auditor_server.witness.cosigning import Witness
from auditor_server.witness.home import FollowedLog, WitnessHomeError, create_home, open_home
from auditor_server.witness.state import WitnessStateError

DYING_WITNESS = str(Path(__file__).parent / "dies_around_storing.py")
NAME = "w.example.org"


LOG_KEY = SigningKey.generate()


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveWitness]:
    """One witness for all tests that leave it in peace; each has a log of its own."""
    verifier = notes.VerifierKey.ed25519(BELOW, LOG_KEY.public).encode()
    followed = FollowedLog(origin=BELOW, below=True, keys=(verifier,))
    live = make_witness(tmp_path_factory.mktemp("witness") / "home", NAME, [followed])
    live.start()
    yield live
    live.stop()


@pytest.fixture
def log(request: pytest.FixtureRequest) -> HandBuiltLog:
    """A log that nobody has ever seen."""
    digest = sha256(request.node.nodeid.encode()).hexdigest()[:16]
    return HandBuiltLog(f"{BELOW}/{digest}", LOG_KEY)


@pytest.fixture
def own_witness(tmp_path: Path, log: HandBuiltLog) -> Iterator[LiveWitness]:
    """A witness, not started yet, that a test may kill and whose folder it may change."""
    live = make_witness(tmp_path / "witness", NAME, [log.followed()])
    yield live
    live.stop()


def cosigned(witness: LiveWitness, log: HandBuiltLog, old: int, new: int) -> int:
    """Have a checkpoint cosigned; returns the cosignature's time."""
    request = log.request(old, new)
    response = witness.post(request.to_bytes())
    assert response.status_code == 200, response.text
    return read_cosignature(response.content, request.note, witness.key).time


def refused(witness: LiveWitness, log: HandBuiltLog, old: int, new: int) -> int:
    """Have a checkpoint refused; returns the status."""
    response = witness.post(log.request(old, new).to_bytes())
    assert response.status_code != 200
    assert "—" not in response.text
    return response.status_code


# -- the protocol over HTTP ------------------------------------------------------------------------


def test_a_log_grows_and_each_checkpoint_is_cosigned(
    witness: LiveWitness, log: HandBuiltLog
) -> None:
    sizes = [0, 0, 1, 2, 3, 7, 7, 8, 40, 64]
    times = [cosigned(witness, log, old, new) for old, new in zip([0, *sizes], sizes, strict=False)]
    assert times == sorted(times)
    assert abs(times[-1] - datetime.now(UTC).timestamp()) < 600


def test_the_answer_is_exactly_one_signature_line(witness: LiveWitness, log: HandBuiltLog) -> None:
    response = witness.post(log.request(0, 5).to_bytes())
    assert re.fullmatch(rf"— {re.escape(NAME)} [A-Za-z0-9+/]+=*\n", response.text)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_an_unknown_log_is_404(witness: LiveWitness, log: HandBuiltLog) -> None:
    head = notes.Checkpoint("other.example.org/log", 5, log.root(5))
    note = notes.sign(head.to_text(), BELOW, log.key)
    request = replace(log.request(0, 5), note=note)
    assert witness.post(request.to_bytes()).status_code == 404


def test_without_a_trusted_signature_it_is_403(witness: LiveWitness, log: HandBuiltLog) -> None:
    stranger = replace(log, key=SigningKey.generate())
    assert refused(witness, stranger, 0, 5) == 403
    request = log.request(0, 5)
    bad = replace(request.note.signatures[0], signature=bytes(64))
    spoilt = replace(request, note=replace(request.note, signatures=(bad,)))
    assert witness.post(spoilt.to_bytes()).status_code == 403


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: b"",
        lambda body: body.replace(b"old 0", b"old 00"),
        lambda body: body.replace(b"old 0", b"old 6"),
        lambda body: body.replace(b"\n\n", b"\n", 1),
        lambda body: body[:-1],
        lambda body: b"\xff" + body,
        lambda body: body.replace(b"\n\n", b"\n" + b"A" * 44 + b"\n\n", 1),
    ],
    ids=["empty", "leading zero", "beyond", "no blank line", "cut", "no text", "no hash"],
)
def test_a_malformed_request_is_400(witness: LiveWitness, log: HandBuiltLog, spoil: object) -> None:
    body = spoil(log.request(0, 5).to_bytes())  # type: ignore[operator]
    assert witness.post(body).status_code == 400


@pytest.mark.parametrize("old", [0, 3, 6])
def test_a_stale_old_size_is_409_with_the_size(
    witness: LiveWitness, log: HandBuiltLog, old: int
) -> None:
    cosigned(witness, log, 0, 5)
    response = witness.post(log.request(old, 9).to_bytes())
    assert (response.status_code, response.content) == (409, b"5\n")
    assert response.headers["Content-Type"] == "text/x.tlog.size"
    cosigned(witness, log, 5, 9)


def test_an_unknown_state_is_told_from_0_on(witness: LiveWitness, log: HandBuiltLog) -> None:
    response = witness.post(log.request(3, 9).to_bytes())
    assert (response.status_code, response.content) == (409, b"0\n")


def test_the_same_size_with_another_root_is_409_without_a_size(
    witness: LiveWitness, log: HandBuiltLog
) -> None:
    cosigned(witness, log, 0, 5)
    response = witness.post(log.forked(2).request(5, 5).to_bytes())
    assert response.status_code == 409
    assert response.headers["Content-Type"] != "text/x.tlog.size"
    cosigned(witness, log, 5, 5)


def test_a_bad_proof_is_422(witness: LiveWitness, log: HandBuiltLog) -> None:
    assert (
        witness.post(replace(log.request(0, 5), proof=(bytes(32),)).to_bytes()).status_code == 422
    )
    cosigned(witness, log, 0, 5)
    assert refused(witness, log.forked(2), 5, 9) == 422
    good = log.request(5, 9)
    for proof in ((), good.proof[:-1], (*good.proof, bytes(32)), (bytes(32),) * 63):
        assert witness.post(replace(good, proof=proof).to_bytes()).status_code == 422
    cosigned(witness, log, 5, 9)


def test_what_is_too_large_is_not_read(witness: LiveWitness, log: HandBuiltLog) -> None:
    assert witness.post(b"x" * (MAX_REQUEST_BYTES + 1)).status_code == 413
    chunks = (b"y" * 65536 for _ in range(64))
    response = requests.post(f"{witness.url}/add-checkpoint", data=chunks, timeout=60)
    assert response.status_code == 413
    cosigned(witness, log, 0, 5)


def test_it_speaks_plain_http_and_keeps_the_connection(
    witness: LiveWitness, log: HandBuiltLog
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=60)
    with closing(connection):
        answers, sockets = [], []
        for old, new in ((0, 5), (0, 9), (5, 9)):
            connection.request("POST", "/add-checkpoint", log.request(old, new).to_bytes())
            response = connection.getresponse()
            answers.append((response.status, response.getheader("Content-Type"), response.read()))
            sockets.append(connection.sock)
    assert [status for status, _, _ in answers] == [200, 409, 200]
    assert sockets[0] is not None
    assert all(found is sockets[0] for found in sockets)
    assert answers[1][1:] == ("text/x.tlog.size", b"5\n")


def test_only_post_adds_a_checkpoint(witness: LiveWitness) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        response = requests.request(method, f"{witness.url}/add-checkpoint", timeout=60)
        assert response.status_code == 405
    assert requests.get(f"{witness.url}/", timeout=60).status_code == 404


def test_the_latest_checkpoint_is_there_for_monitors(
    witness: LiveWitness, log: HandBuiltLog
) -> None:
    assert witness.latest(log.origin).status_code == 404
    stranger = notes.sign(log.note(5).text, "stranger.example.org", SigningKey.generate())
    request = log.request(0, 5)
    extra = replace(request.note, signatures=(*stranger.signatures, *request.note.signatures))
    assert witness.post(replace(request, note=extra).to_bytes()).status_code == 200
    cosigned(witness, log, 5, 9)
    found = witness.latest(log.origin)
    assert found.headers["Content-Type"] == "text/plain; charset=utf-8"
    verified = notes.verify(found.content, [log.verifier, witness.key])
    assert {signature.key for signature in verified.signatures} == {log.verifier, witness.key}
    assert len(notes.parse(found.content).signatures) == 2
    assert witness.latest_size(log.origin) == 9
    for digest in ("x", "..%2f", "0" * 64):
        assert requests.get(f"{witness.url}/{digest}/checkpoint", timeout=60).status_code == 404


# -- crashes, races and clocks ---------------------------------------------------------------------


def test_of_many_histories_at_once_exactly_one_is_cosigned(
    witness: LiveWitness, log: HandBuiltLog
) -> None:
    cosigned(witness, log, 0, 5)
    forks = [log.forked(5, f"fork {number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda fork: witness.post(fork.request(5, 9).to_bytes()), forks))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 11]


def test_a_small_checkpoint_cannot_overtake_a_large_one(
    witness: LiveWitness, log: HandBuiltLog
) -> None:
    with ThreadPoolExecutor(8) as pool:
        sizes = [5, 64, 9, 33, 12, 48, 7, 60]
        answers = list(pool.map(lambda size: witness.post(log.request(0, size).to_bytes()), sizes))
    (accepted,) = (s for s, a in zip(sizes, answers, strict=True) if a.status_code == 200)
    assert witness.latest_size(log.origin) == accepted


def die(witness: LiveWitness, moment: str, body: bytes) -> None:
    """Let a witness that is not running die of one request, and start it again."""
    honest, witness.module = witness.module, (DYING_WITNESS, moment)
    witness.start()
    with pytest.raises(requests.ConnectionError):
        witness.post(body)
    assert witness.process.wait(timeout=30) < 0
    witness.module = honest
    witness.start()


def test_after_a_crash_before_the_commit_nothing_has_happened(
    own_witness: LiveWitness, log: HandBuiltLog
) -> None:
    die(own_witness, "before", log.request(0, 9).to_bytes())
    assert own_witness.latest_size(log.origin) == 0
    cosigned(own_witness, log, 0, 5)


def test_after_a_crash_before_the_answer_the_other_history_is_refused(
    own_witness: LiveWitness, log: HandBuiltLog
) -> None:
    die(own_witness, "after", log.request(0, 9).to_bytes())
    assert own_witness.latest_size(log.origin) == 9
    forked = log.forked(6)
    assert {refused(own_witness, forked, old, 9) for old in (0, 9)} == {409}
    assert refused(own_witness, forked, 9, 12) == 422
    cosigned(own_witness, log, 9, 9)


def test_killed_at_any_moment_it_has_cosigned_one_history(
    own_witness: LiveWitness, log: HandBuiltLog
) -> None:
    own_witness.start()
    logs = [log, log.forked(3, "left"), log.forked(3, "right")]
    collected: list[notes.Checkpoint] = []

    def ask_until_killed(after: int) -> None:
        while True:
            for size in range(1, 64):
                for history in logs:
                    old = collected[-1].size if collected else 0
                    if old > size:
                        continue
                    request = history.request(old, size)
                    answer = own_witness.post(request.to_bytes())
                    if answer.status_code == 200:
                        read_cosignature(answer.content, request.note, own_witness.key)
                        collected.append(request.checkpoint)
                    elif answer.headers["Content-Type"] == "text/x.tlog.size":
                        # The answer to a checkpoint was lost in a crash.
                        note = notes.parse(own_witness.latest(log.origin).content)
                        collected.append(notes.parse_checkpoint(note.text))
                    if len(collected) >= after:
                        threading.Timer(0.02, own_witness.process.kill).start()

    for _ in range(2):
        with pytest.raises(requests.RequestException):
            ask_until_killed(len(collected) + 5)
        own_witness.process.wait(timeout=30)
        own_witness.start()
    assert len(collected) >= 10
    assert any(all(head.root == history.root(head.size) for head in collected) for history in logs)


def test_a_lost_state_is_never_replaced_by_an_empty_one(
    own_witness: LiveWitness,
) -> None:
    for file in own_witness.path.glob("state.sqlite3*"):
        file.unlink()
    with pytest.raises(WitnessStateError, match="with a new key"):
        open_home(own_witness.path)
    done = subprocess.run(
        [sys.executable, *own_witness.module, "--home", str(own_witness.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no longer knows what it has cosigned" in done.stderr
    (own_witness.path / "state.sqlite3").write_bytes(b"")
    with pytest.raises(WitnessStateError):
        open_home(own_witness.path)


def test_without_a_place_for_its_state_it_cosigns_nothing(
    own_witness: LiveWitness, log: HandBuiltLog
) -> None:
    own_witness.start()
    cosigned(own_witness, log, 0, 5)
    for file in own_witness.path.glob("state.sqlite3*"):
        file.unlink()
    assert refused(own_witness, log, 5, 9) == 500


def test_the_times_of_cosignatures_never_fall(tmp_path: Path, log: HandBuiltLog) -> None:
    clock = [datetime(2026, 3, 2, 12, tzinfo=UTC)]
    witness = Witness(create_home(tmp_path / "w", NAME, [log.followed()]), now=lambda: clock[0])
    times = []
    for size, minutes in ((1, 0), (2, -30), (3, 0), (3, -600), (4, 1)):
        clock[0] += timedelta(minutes=minutes)
        old = max(0, size - 1) if len(times) != 3 else size
        request = log.request(old, size)
        line = witness.add_checkpoint(request.to_bytes())
        key = witness.home.verifier_key
        times.append(read_cosignature(line.encode(), request.note, key).time)
    assert times == sorted(times)
    assert times[0] == int(datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp())


# -- the folder, and the commands ------------------------------------------------------------------


def test_all_logs_of_an_auditor_are_followed_by_its_name(tmp_path: Path) -> None:
    key = SigningKey.generate()
    cosigner = notes.VerifierKey.cosignature("audit.example.org/cosigner", key.public).encode()
    followed = FollowedLog(origin="audit.example.org", below=True, keys=(cosigner,))
    home = create_home(tmp_path / "w", NAME, [followed])
    for origin in ("audit.example.org/registry", "audit.example.org/sessions/20260302-abc"):
        assert [found.encode() for found in home.trusted_keys(origin)] == [cosigner]
    for origin in ("audit.example.org", "audit.example.org.evil/x", "audit.example.orgs/x", "x"):
        assert home.trusted_keys(origin) == ()


def test_following_a_log_again_replaces_its_keys(tmp_path: Path, log: HandBuiltLog) -> None:
    home = create_home(tmp_path / "w", NAME, [log.followed()])
    newer = replace(log, key=SigningKey.generate())
    assert home.follow(newer.followed()).trusted_keys(log.origin) == (newer.verifier,)
    assert open_home(tmp_path / "w").trusted_keys(log.origin) == (newer.verifier,)


def test_a_witness_follows_no_key_of_its_own_and_no_weak_one(tmp_path: Path) -> None:
    home = create_home(tmp_path / "w", NAME)
    own = notes.VerifierKey.ed25519(BELOW, home.key.public).encode()
    with pytest.raises(WitnessHomeError, match="own"):
        home.follow(FollowedLog(origin=BELOW, keys=(own,)))
    weak = notes.VerifierKey.ed25519(BELOW, SigningKey.generate().public)
    object.__setattr__(weak.public_key, "raw", bytes(32))
    with pytest.raises(WeakKeyError):
        home.follow(FollowedLog(origin=BELOW, keys=(weak.encode(),)))


def test_a_key_is_never_overwritten_and_is_its_owners_only(tmp_path: Path) -> None:
    create_home(tmp_path / "w", NAME)
    assert (tmp_path / "w" / "key.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(WitnessHomeError):
        create_home(tmp_path / "w", NAME)
    for damaged in ("key.pem", "witness.json"):
        copy = tmp_path / damaged
        shutil.copytree(tmp_path / "w", copy)
        (copy / damaged).write_text("nonsense")
        with pytest.raises(ServerError):
            open_home(copy)
        (copy / damaged).unlink()
        with pytest.raises(WitnessHomeError, match="auditkit witness init"):
            open_home(copy)


def test_three_commands_make_a_witness(tmp_path: Path, log: HandBuiltLog) -> None:
    home, runner = str(tmp_path / "w"), CliRunner()

    def run(*arguments: str) -> str:
        result = runner.invoke(app, ["witness", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert run("init", "--home", home, "--name", NAME).count("\n") > 3
    key = open_home(tmp_path / "w").verifier_key.encode()
    assert "follows the log" in run(
        "follow", "--home", home, "--log", log.origin, "--key", log.verifier.encode()
    )
    shown = run("show", "--home", home)
    assert key in shown
    assert "nothing cosigned yet" in shown
    request = log.request(0, 5)
    line = Witness(open_home(tmp_path / "w")).add_checkpoint(request.to_bytes())
    with pytest.raises(SignatureError):
        read_cosignature(line.encode(), log.note(6), open_home(tmp_path / "w").verifier_key)
    assert log.origin in run("show", "--home", home)
    assert f'"key": "{key}"' in run("show", "--home", home, "--json")
