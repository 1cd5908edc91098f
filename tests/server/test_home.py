"""`auditkit init` and `auditkit serve` from the inside."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from live import LiveServer

from auditor_server.__main__ import main
from auditor_server.errors import HomeError, HomeExistsError, HomeNotFoundError
from auditor_server.home import create_home, open_home
from schemas import RoleName


def create(path: Path) -> None:
    create_home(path, "The Auditor", "audit.example.org", datetime.now(UTC))


def serve(monkeypatch: pytest.MonkeyPatch, home: Path, port: int) -> int:
    arguments = ["auditor_server", "--home", str(home), "--port", str(port)]
    monkeypatch.setattr(sys, "argv", arguments)
    return main()


def test_the_trust_root_names_the_five_keys(live_server: LiveServer) -> None:
    root = live_server.home.trust_root(datetime.now(UTC))
    roles: tuple[RoleName, ...] = ("root", "order", "session", "cosigner", "verdict")
    for role in roles:
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
