"""`auditkit init` and `auditkit serve` from the inside."""

import io
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hand_built import is_problem
from live import LiveServer

from auditkit.evidence import trust
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.trust_history import TrustHistory
from auditkit.evidence.verify import verify_bundle
from auditor_server import trust_files
from auditor_server.__main__ import main
from auditor_server.errors import (
    HomeError,
    HomeExistsError,
    HomeNotFoundError,
    LateVersionError,
)
from auditor_server.home import Home, create_home, open_home
from auditor_server.rotation import Changes, earliest_start, next_version
from auditor_server.trust_files import write_durably
from schemas import RoleName, TrustRoot


def create(path: Path) -> None:
    create_home(path, "The Auditor", "audit.example.org", datetime.now(UTC))


def serve(monkeypatch: pytest.MonkeyPatch, home: Path, port: int) -> int:
    arguments = ["auditor_server", "--home", str(home), "--port", str(port)]
    monkeypatch.setattr(sys, "argv", arguments)
    return main()


def test_the_trust_root_names_a_key_for_every_role(live_server: LiveServer) -> None:
    root = live_server.home.trust_root(datetime.now(UTC))
    assert set(root.roles) == set(get_args(RoleName))
    for role in root.roles:
        public = live_server.home.signing_key(role).public
        assert root.roles[role].keyids == (public.keyid,)
        assert root.keys[public.keyid] == public.hex


def test_a_home_is_never_overwritten(tmp_path: Path) -> None:
    create(tmp_path / "home")
    before = {path: path.read_bytes() for path in (tmp_path / "home" / "keys").iterdir()}
    with pytest.raises(HomeExistsError):
        create(tmp_path / "home")
    assert {path: path.read_bytes() for path in before} == before


def test_a_file_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("precious")
    with pytest.raises(HomeExistsError):
        create(tmp_path / "home")
    assert (tmp_path / "home").read_text() == "precious"


def test_an_empty_folder_becomes_a_home(tmp_path: Path) -> None:
    create(tmp_path)
    assert open_home(tmp_path).tokens == {}


def test_a_home_must_be_complete(tmp_path: Path) -> None:
    with pytest.raises(HomeNotFoundError, match="auditkit init"):
        open_home(tmp_path)


def test_a_key_kept_elsewhere_is_missed_only_when_needed(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / "keys" / "root.pem").unlink()
    home = open_home(tmp_path)
    assert home.signing_key("session")
    with pytest.raises(HomeError, match="root key"):
        home.signing_key("root")


def test_a_root_key_with_a_passphrase_does_not_open_without_it(tmp_path: Path) -> None:
    create_home(tmp_path, "The Auditor", "a.example", datetime.now(UTC), root_passphrase=b"horse")
    home = open_home(tmp_path)
    assert home.signing_key("root", passphrase=b"horse").public
    for passphrase in (None, b"cart"):
        with pytest.raises(HomeError):
            home.signing_key("root", passphrase=passphrase)
    assert home.signing_key("order").public


def rotate(home: Home, *roles: RoleName, starts: datetime | None = None) -> TrustRoot:
    """Give these roles new keys, and sign the next version with the root key of the home."""
    now, history = datetime.now(UTC), home.history()
    fresh = {role: SigningKey.generate() for role in roles}
    root = next_version(
        history,
        Changes(new_keys={role: key.public for role, key in fresh.items()}),
        starts=starts or earliest_start(now),
        lifetime=timedelta(days=100),
    )
    for role, key in fresh.items():
        home.add_key(role, key)
    home.install([trust.sign_trust_root(root, [home.signing_key("root")]).to_bytes()], now)
    return root


def test_new_keys_sign_from_the_second_in_which_their_version_takes_over(tmp_path: Path) -> None:
    create(tmp_path)
    home = open_home(tmp_path)
    old = home.signing_key("cosigner").public
    root = rotate(home, "cosigner")
    before = root.issued_at - timedelta(microseconds=1)
    assert home.trust_root(before).version == 1
    assert home.signing_key("cosigner", before).public == old
    new = home.signing_key("cosigner", root.issued_at).public
    assert root.roles["cosigner"].keyids == (new.keyid,) != (old.keyid,)
    assert home.signing_key("session", before).public == home.signing_key("session").public
    assert [trust.read_trust_root(data)[1].version for data in home.trust_roots()] == [1, 2]
    assert home.trust_root_version(2) == home.trust_root_bytes


def test_a_version_that_comes_too_late_to_take_keys_away_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    home = open_home(tmp_path)
    began = home.trust_root(datetime.now(UTC)).issued_at
    before = home.trust_root_bytes
    time.sleep(max(0.0, (began - datetime.now(UTC)).total_seconds() + 2))
    with pytest.raises(LateVersionError, match="--starts"):
        rotate(home, "session", starts=began + timedelta(seconds=1))
    assert home.trust_root_bytes == before
    assert rotate(home, starts=began + timedelta(seconds=1)).version == 2  # takes nothing away


def test_a_crash_between_the_files_of_an_update_leaves_a_sound_trust_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path)
    home = open_home(tmp_path)
    written: list[Path] = []

    def dies_at_the_trusted_file(path: Path, data: bytes) -> None:
        if path.name == "trust-root.json":
            raise OSError("power cut")
        written.append(path)
        write_durably(path, data)

    monkeypatch.setattr(trust_files, "write_durably", dies_at_the_trusted_file)
    with pytest.raises(OSError, match="power cut"):
        rotate(home, "verdict")
    assert written
    assert home.history().current.version == 1
    monkeypatch.undo()
    assert rotate(home, "verdict").version == 2
    assert len(home.history().versions) == 2


def test_a_running_server_rotates_and_the_session_goes_on(own_server: LiveServer) -> None:
    own_server.start()
    home = own_server.home
    agent = own_server.open_session("digits", own_server.add_order("digits"))
    agent.log_grant()
    agent.sent(agent.flush(0))
    pinned = home.trust_root_bytes
    root = rotate(home, "order", "session", "cosigner", "verdict", "registry", "replay")
    time.sleep(max(0.0, (root.issued_at - datetime.now(UTC)).total_seconds() + 0.1))
    agent.log_step(1)
    agent.sent(agent.flush(1))
    own_server.open_session("later", own_server.add_order("later"))

    public = own_server.client(None)
    assert public.get("/trust-root").content == home.trust_root_bytes
    assert public.get("/trust-root/1").content == pinned
    assert is_problem(public.get("/trust-root/3"), 404, "TrustRootNotFoundError")
    data = own_server.client("developer").get(f"/sessions/{agent.grant.session_id}/bundle").content
    bundle = read_bundle(io.BytesIO(data))
    assert bundle.trust_roots == (pinned, home.trust_root_bytes)
    for known in (pinned, home.trust_root_bytes):
        report = verify_bundle(bundle, TrustHistory.open(known), now=datetime.now(UTC))
        outcomes = {finding.check: finding.outcome for finding in report.findings}
        for check in ("trust-root", "order-signed", "grant-signed", "checkpoints-cosigned"):
            assert outcomes[check] == "passed"
    # Who knows the first version only takes nothing that the new keys have signed.
    alone = verify_bundle(
        replace(bundle, trust_roots=()), TrustHistory.open(pinned), now=datetime.now(UTC)
    )
    assert "checkpoints-cosigned" in {f.check for f in alone.findings if f.outcome == "failed"}


def test_a_port_in_use_is_one_clear_line(
    live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = int(live_server.url.rpartition(":")[2])
    assert serve(monkeypatch, live_server.home.path, port) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: can't listen on 127.0.0.1 port {port}")
    assert output.err.count("\n") == 1


def test_a_missing_home_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(monkeypatch, tmp_path, 0) == 1
    error = capsys.readouterr().err
    assert "auditkit init" in error
    assert error.count("\n") == 1


def test_a_damaged_database_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create(tmp_path)
    (tmp_path / "auditor.sqlite3").write_bytes(b"not a database" * 100)
    assert serve(monkeypatch, tmp_path, 0) == 1
    error = capsys.readouterr().err
    assert "restore it from a backup" in error
    assert error.count("\n") == 1
