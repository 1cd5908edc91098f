"""Key ceremonies as people perform them, from the first root key to a revocation."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditkit.cli.errors import UsageError
from auditkit.cli.pkcs11_keys import (
    KeyNotInTokenError,
    KeyReferenceError,
    KeyTokenError,
    TokenKey,
    TokenSigner,
    make_token_key,
)
from auditkit.evidence.errors import (
    SignatureError,
    TrustRootError,
    TrustRootRollbackError,
    TrustRootSignatureError,
    WeakKeyError,
)
from auditkit.evidence.keys import SigningKey
from auditor_server.errors import KeyFileError
from auditor_server.home import open_home
from auditor_server.trust_files import TrustFile

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "1234"
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and a passphrase for scripts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDITKIT_PASSPHRASE", PASSPHRASE)
    monkeypatch.delenv("AUDITKIT_HOME", raising=False)
    monkeypatch.delenv("AUDITKIT_SERVER", raising=False)
    return tmp_path


def trust(*arguments: object) -> str:
    result: Result = CliRunner().invoke(app, ["trust", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def shown(path: Path | str = "auditor-home/trust-root.json") -> list[dict]:
    return json.loads(trust("show", path, "--json"))


def wait_for(version: dict) -> None:
    """Wait until the version has taken over."""
    starts = datetime.fromisoformat(version["trust_root"]["issued_at"])
    time.sleep(max(0.0, (starts - datetime.now(UTC)).total_seconds()))


@pytest.fixture(scope="module")
def ceremony(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an auditor's home and three root keys, of which two must sign."""
    folder = tmp_path_factory.mktemp("ceremony")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("AUDITKIT_PASSPHRASE", PASSPHRASE)
        trust(
            *("init", "--auditor", "The Regulator", "--origin", "audit.example.org"),
            *("--root-key", "a.pem", "--root-key", "b.pem", "--root-key", "c.pem"),
            *("--threshold", 2),
        )
    return folder


@pytest.fixture
def pin(ceremony: Path, desk: Path) -> Path:
    """The trust root that somebody else pinned, beside a copy of the auditor's home."""
    shutil.copytree(ceremony, desk, dirs_exist_ok=True)
    path = Path("pin.json")
    path.write_bytes(Path("auditor-home/trust-root.json").read_bytes())
    return path


def test_root_keys_lie_outside_the_home_behind_a_passphrase(pin: Path) -> None:
    for name in ("a.pem", "b.pem", "c.pem"):
        assert b"ENCRYPTED" in Path(name).read_bytes()
        assert Path(name).stat().st_mode & 0o777 == 0o600
    assert not list(Path("auditor-home/keys").glob("root*"))
    (version,) = shown(pin)
    assert version["trust_root"]["roles"]["root"]["threshold"] == 2
    assert len(version["trust_root"]["roles"]["root"]["keyids"]) == 3


def test_the_fingerprint_is_the_same_for_both_sides(pin: Path) -> None:
    (version,) = shown(pin)
    digits = version["fingerprint"]
    grouped = " ".join(digits[start : start + 8] for start in range(0, 64, 8))
    assert f"fingerprint: {grouped}" in trust("show", "--home", "auditor-home")
    assert f"fingerprint: {grouped}" in trust("show", pin)


def test_two_of_three_holders_rotate_the_servers_keys(pin: Path) -> None:
    trust("rotate", "--role", "cosigner", "--key", "a.pem", "--key", "c.pem")
    old, new = shown()
    assert new["trust_root"]["previous"] == old["fingerprint"]
    changed = {
        role
        for role, keys in new["trust_root"]["roles"].items()
        if keys != old["trust_root"]["roles"][role]
    }
    assert changed == {"cosigner"}
    wait_for(new)
    home = open_home(Path("auditor-home"))
    key = home.signing_key("cosigner", datetime.now(UTC))
    assert (key.public.keyid,) == home.history().current.roles["cosigner"].keyids
    assert "moved from version 1 to version 2" in trust(
        "update", pin, "--from", "auditor-home/trust-root.json"
    )
    assert shown(pin) == shown()


def test_holders_sign_on_machines_of_their_own(pin: Path) -> None:
    first = trust("rotate", "--key", "a.pem", "--draft", "next.json")
    assert "1 of 2 have signed, 1 missing" in first
    assert len(shown()) == 1
    with pytest.raises(TrustRootSignatureError):
        trust("update", "--home", "auditor-home", "--from", "next.json")
    again = trust("sign", "next.json", "--key", "a.pem", "--trust-root", pin)
    assert "1 missing" in again  # the same key twice counts once
    assert "missing" not in trust("sign", "next.json", "--key", "b.pem", "--trust-root", pin)
    trust("update", "--home", "auditor-home", "--from", "next.json")
    _, new = shown()
    starts = datetime.fromisoformat(new["trust_root"]["issued_at"])
    assert timedelta(hours=23) < starts - datetime.now(UTC) < timedelta(hours=25)


def test_the_server_side_can_draft_without_any_root_key(pin: Path) -> None:
    trust("rotate", "--role", "verdict", "--draft", "next.json")
    for name in ("b.pem", "c.pem"):
        trust("sign", "next.json", "--key", name)
    trust("update", pin, "--from", "next.json")
    assert len(shown(pin)) == 2


def test_root_keys_themselves_change_hands(pin: Path) -> None:
    holder = trust("key", "d.pem").strip()
    assert trust("key", "d.pem").strip() == holder
    (version,) = shown()
    leaving = SigningKey.from_pem(Path("a.pem").read_bytes(), PASSPHRASE.encode())
    trust(
        *("rotate", "--add-root-key", "d.pem", "--remove-root-key", leaving.public.keyid[:12]),
        *("--threshold", 3, "--key", "a.pem", "--key", "b.pem", "--key", "c.pem"),
    )
    old, new = shown()
    assert old == version
    assert holder in new["trust_root"]["keys"].values()
    assert leaving.public.keyid not in new["trust_root"]["keys"]
    wait_for(new)
    # The old keys have rotated out: they can no longer make the next version.
    trust("rotate", "--role", "order", "--key", "a.pem", "--key", "b.pem", "--draft", "next.json")
    with pytest.raises(TrustRootError):
        trust("update", "--home", "auditor-home", "--from", "next.json")


def test_a_holder_can_enrol_with_a_public_key_alone(pin: Path) -> None:
    enrolled = SigningKey.generate().public
    trust("rotate", "--add-root-key", enrolled.hex, "--key", "a.pem", "--key", "b.pem")
    assert enrolled.keyid in shown()[-1]["trust_root"]["roles"]["root"]["keyids"]


@pytest.mark.parametrize("weak", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f"])
def test_a_key_of_small_order_is_never_enrolled(pin: Path, weak: str) -> None:
    with pytest.raises(WeakKeyError):
        trust("rotate", "--add-root-key", weak, "--key", "a.pem", "--key", "b.pem")
    with pytest.raises(WeakKeyError):
        trust("revoke", "--session-key", weak, "--key", "a.pem", "--key", "b.pem")
    with pytest.raises(WeakKeyError):
        trust("init", "--home", "other", "--root-key", weak, "--root-key", "a.pem")
    assert len(shown()) == 1


def test_a_session_key_is_revoked(pin: Path) -> None:
    stolen = SigningKey.generate().public.hex
    output = trust("revoke", "--session-key", stolen, "--key", "a.pem", "--key", "b.pem")
    assert f"revoked: session key {stolen}" in output
    assert shown()[-1]["trust_root"]["revoked_session_keys"] == [stolen]


def test_a_servers_key_is_revoked_and_replaced_at_once(pin: Path) -> None:
    (version,) = shown()
    (stolen,) = version["trust_root"]["roles"]["session"]["keyids"]
    trust(
        *("revoke", "--role-key", stolen[:16], "--since", "2026-01-02T03:04:05"),
        *("--key", "a.pem", "--key", "b.pem"),
    )
    new = shown()[-1]["trust_root"]
    assert new["revoked_keys"] == [{"keyid": stolen, "compromised_at": "2026-01-02T03:04:05Z"}]
    assert stolen not in new["keys"]
    assert len(new["roles"]["session"]["keyids"]) == 1


def test_the_last_root_keys_cannot_be_revoked(pin: Path) -> None:
    keyids = shown()[0]["trust_root"]["roles"]["root"]["keyids"]
    with pytest.raises(UsageError, match="--add-root-key"):
        trust("revoke", "--role-key", keyids[0], "--role-key", keyids[1], "--key", "c.pem")


def test_a_pin_never_moves_back(pin: Path) -> None:
    old = Path("old.json")
    old.write_bytes(pin.read_bytes())
    trust("rotate", "--role", "verdict", "--key", "a.pem", "--key", "b.pem")
    trust("update", pin, "--from", "auditor-home/trust-root.json")
    before = pin.read_bytes()
    with pytest.raises(TrustRootRollbackError):
        trust("update", pin, "--from", old)
    assert pin.read_bytes() == before
    assert "nothing to change" in trust("update", pin, "--from", "auditor-home/trust-root.json")


def test_somebody_elses_trust_root_does_not_move_the_pin(pin: Path) -> None:
    before = pin.read_bytes()
    trust("init", "--home", "impostor", "--origin", "audit.example.org", "--root-key", "x.pem")
    trust("rotate", "--home", "impostor", "--key", "x.pem")
    with pytest.raises(TrustRootError):
        trust("update", pin, "--from", "impostor/trust-root.json")
    assert pin.read_bytes() == before


def test_a_wrong_passphrase_is_said_so(pin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Path("wrong.txt")
    wrong.write_text("staple\n")
    with pytest.raises(KeyFileError, match=r"a\.pem"):
        trust("rotate", "--key", "a.pem", "--passphrase-file", wrong)
    monkeypatch.delenv("AUDITKIT_PASSPHRASE")
    wrong.write_text(PASSPHRASE + "\n")
    trust("rotate", "--key", "a.pem", "--key", "b.pem", "--passphrase-file", wrong)
    assert len(shown()) == 2


MISTAKES = {
    "no such role": (["rotate", "--role", "king"], "king"),
    "an unknown key": (["revoke", "--role-key", "00" * 8], "auditkit trust show"),
    "nothing to revoke": (["revoke"], "--session-key"),
    "no time": (["rotate", "--key", "a.pem", "--key", "b.pem", "--starts", "soon"], "soon"),
    "nowhere to look": (["update", "pin.json"], "--server"),
    "two things to update": (["update", "pin.json", "--home", "auditor-home"], "not both"),
}


@pytest.mark.parametrize(("arguments", "problem"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_told_in_one_line(pin: Path, arguments: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        trust(*arguments)
    assert "\n" not in str(caught.value)
    assert len(shown()) == 1


def test_init_makes_a_home_with_a_protected_root_key_in_one_command() -> None:
    result = CliRunner().invoke(app, ["init", "--home", "one"])
    assert result.exit_code == 0, result.output
    assert b"ENCRYPTED" in Path("one/keys/root.pem").read_bytes()
    trust("rotate", "--home", "one")  # the root key in the home signs
    assert len(shown("one/trust-root.json")) == 2


@pytest.fixture
def server(pin: Path) -> Iterator[str]:
    arguments = ["-m", "auditor_server", "--home", "auditor-home", "--port", "0"]
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield f"http://{ready['host']}:{ready['port']}"
        process.terminate()


def test_a_client_catches_up_over_several_versions(pin: Path, server: str) -> None:
    assert "nothing to change" in trust("update", pin, "--server", server)
    for _ in range(2):
        trust("rotate", "--role", "verdict", "--key", "a.pem", "--key", "b.pem")
        wait_for(shown()[-1])
    assert "from version 1 to version 3" in trust("update", pin, "--server", server)
    assert shown(pin) == shown()
    assert len(TrustFile(pin).read().versions) == 3


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A software token without any key. The library reads its configuration once per process."""
    if not SOFTHSM.exists():
        assert "CI" not in os.environ, "CI must have SoftHSM2"
        pytest.skip("SoftHSM2 is not installed")
    folder = tmp_path_factory.mktemp("tokens")
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder}\nobjectstore.backend = file\n")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
        monkeypatch.setenv("AUDITKIT_PIN", PIN)
        monkeypatch.setenv("PKCS11_MODULE", str(SOFTHSM))
        command = ["softhsm2-util", "--init-token", "--free", "--label", "auditor"]
        subprocess.run(
            [*command, "--pin", PIN, "--so-pin", "5678"], check=True, capture_output=True
        )
        yield "pkcs11:token=auditor;object="


def test_a_root_key_in_a_token_signs_beside_one_in_a_file(token: str) -> None:
    reference = token + "root-1"
    trust(
        *("init", "--home", "h", "--root-key", reference, "--root-key", "a.pem"),
        *("--threshold", 2),
    )
    trust("rotate", "--home", "h", "--role", "order", "--key", "a.pem", "--draft", "next.json")
    assert "missing" not in trust("sign", "next.json", "--key", reference)
    trust("update", "--home", "h", "--from", "next.json")
    assert len(shown("h/trust-root.json")) == 2


def test_a_token_signs_what_every_ed25519_verifier_takes(token: str) -> None:
    public = trust("key", token + "plain").strip()
    signer = TokenSigner(TokenKey.parse(token + "plain", SOFTHSM), PIN)
    assert signer.public.hex == public
    signer.public.verify(signer.sign(b"message"), b"message")
    with pytest.raises(SignatureError):
        signer.public.verify(signer.sign(b"message"), b"another")


def test_a_key_in_a_token_is_never_overwritten(token: str) -> None:
    key = TokenKey.parse(token + "kept", SOFTHSM)
    made = make_token_key(key, PIN).public
    with pytest.raises(KeyTokenError, match="never overwritten"):
        make_token_key(key, PIN)
    assert TokenSigner(key, PIN).public == made


def test_the_pin_can_lie_in_a_file(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITKIT_PIN", "wrong")
    with pytest.raises(KeyTokenError, match="PIN"):
        trust("key", token + "filed")
    Path("pin.txt").write_text(PIN + "\n")
    assert len(trust("key", f"{token}filed?pin-source=file:pin.txt").strip()) == 64


def test_what_is_not_in_the_token_is_said_so(token: str) -> None:
    trust("init", "--home", "h", "--root-key", "a.pem")
    with pytest.raises(KeyNotInTokenError, match="nobody"):
        trust("rotate", "--home", "h", "--key", token + "nobody")
    with pytest.raises(KeyTokenError, match="elsewhere"):
        trust("rotate", "--home", "h", "--key", "pkcs11:token=elsewhere;object=root")
    with pytest.raises(KeyTokenError, match=r"nothing\.so"):
        trust("rotate", "--home", "h", "--key", f"{token}root?module-path=/nothing.so")


@pytest.mark.parametrize(
    "reference", ["pkcs11:token=a", "pkcs11:object=b", "pkcs11:token=a;object=b;id=c", "pkcs11:"]
)
def test_a_reference_to_a_token_names_token_and_key(reference: str) -> None:
    with pytest.raises(KeyReferenceError, match="pkcs11:token=NAME;object=LABEL"):
        TokenKey.parse(reference, SOFTHSM)


def test_a_reference_to_a_token_needs_a_module() -> None:
    with pytest.raises(KeyReferenceError, match="PKCS11_MODULE"):
        TokenKey.parse("pkcs11:token=a;object=b", None)
    found = TokenKey.parse("pkcs11:token=the%20auditor;object=b?module-path=/x.so", None)
    assert (found.token, found.module) == ("the auditor", Path("/x.so"))
