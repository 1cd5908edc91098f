"""The auditor's story at the command line: list an image, be handed a file, look what differs."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from click.testing import Result
from typer.testing import CliRunner

from auditkit.cli.errors import UsageError
from auditkit.cli.image import image_app
from auditkit.evidence import dsse, statements
from auditkit.evidence.errors import ThresholdError
from auditkit.evidence.image_signatures import ImageSignerError
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.policy import ImageNotAllowedError, OrderNotInForceError
from auditkit.evidence.trust import sign_trust_root
from containers.errors import BlobDigestError, TruncatedArchiveError
from containers.identity import identify
from schemas import AuditOrder, ImageIdentity, Role, RoleName, SplitFractions, TrustRoot
from tests.containers.saved_images import (
    BASE,
    CODE,
    IMAGE,
    File,
    blob,
    image,
    layer,
    replace,
    save,
    sha256,
)
from tests.evidence.contained import image_key, pem, signed_image

ALLOWED = sha256(IMAGE.config)
KEY = SigningKey.generate()


def auditor_files(
    folder: Path,
    *images: str,
    key: SigningKey = KEY,
    days: int = 1,
    image_keys: tuple[str, ...] = (),
) -> tuple[str, ...]:
    now = datetime.now(UTC)
    order = AuditOrder(
        order_id="scan-1",
        auditor="Authority",
        developer="Example Ltd",
        purpose="a test",
        issued_at=now - timedelta(days=2),
        expires_at=now + timedelta(days=days),
        split=SplitFractions(external=0.4, calibration=0.2),
        images=images,
        image_keys=image_keys,
    )
    payload = statements.make(
        statements.ORDER_PREDICATE, order, statements.subject("order", order.order_id, order)
    )
    root = TrustRoot(
        auditor="Authority",
        origin="audit.example.org",
        version=1,
        issued_at=now - timedelta(days=3),
        expires_at=now + timedelta(days=1),
        keys={KEY.public.keyid: KEY.public.hex},
        roles={name: Role(keyids=(KEY.public.keyid,)) for name in get_args(RoleName)},
    )
    (folder / "order.json").write_bytes(dsse.sign(payload, [key]).to_bytes())
    (folder / "root.json").write_bytes(sign_trust_root(root, [KEY]).to_bytes())
    return ("--order", str(folder / "order.json"), "--trust-root", str(folder / "root.json"))


def test_an_auditor_reads_the_identity_and_puts_it_on_the_list(tmp_path: Path) -> None:
    path = save(tmp_path, IMAGE.both())
    result = CliRunner().invoke(image_app, ["identity", str(path), "--json"])
    assert result.exit_code == 0
    assert ImageIdentity.from_bytes(result.stdout) == identify(path)
    for_people = CliRunner().invoke(image_app, ["identity", str(path)]).stdout
    assert all(digest in for_people for digest in (ALLOWED, sha256(BASE), sha256(CODE)))


def test_the_listed_image_is_allowed(tmp_path: Path) -> None:
    path = save(tmp_path, IMAGE.docker())
    result = CliRunner().invoke(
        image_app, ["verify", str(path), *auditor_files(tmp_path, "0" * 64, ALLOWED)]
    )
    assert result.exit_code == 0, result.output
    assert "allowed by order scan-1 of Authority" in result.stdout


def test_an_image_is_also_let_in_by_a_signature_of_a_listed_key(tmp_path: Path) -> None:
    path = save(tmp_path, IMAGE.oci())
    made = signed_image(image_key("trusted"), IMAGE.manifest().decode())
    downloaded = tmp_path / "signature.json"
    payload = base64.b64encode(made.payload.encode()).decode()
    downloaded.write_text(json.dumps({"Base64Signature": made.signature, "Payload": payload}))

    def verify(key: str, *options: str) -> Result:
        files = auditor_files(tmp_path, image_keys=(pem(image_key(key)),))
        return CliRunner().invoke(image_app, ["verify", str(path), *files, *options])

    signature = ("--signature", str(downloaded))
    assert verify("trusted", *signature).exit_code == 0
    assert isinstance(verify("trusted").exception, ImageNotAllowedError)
    assert isinstance(verify("foreign", *signature).exception, ImageSignerError)


def test_another_image_another_signer_and_an_old_order_are_refused(tmp_path: Path) -> None:
    def refusal(path: Path, options: tuple[str, ...]) -> BaseException | None:
        result = CliRunner().invoke(image_app, ["verify", str(path), *options])
        assert result.exit_code == 1
        assert "allowed" not in result.stdout
        return result.exception

    good = save(tmp_path, IMAGE.oci(), "good.tar")
    evil = save(tmp_path, image(BASE, CODE, User="root").oci(), "evil.tar")
    changed = replace(IMAGE.oci(), blob(IMAGE.config)[0], IMAGE.config.replace(b"train", b"steal"))
    named = save(tmp_path, changed, "named.tar")
    options = auditor_files(tmp_path, ALLOWED)
    assert isinstance(refusal(evil, options), ImageNotAllowedError)
    assert isinstance(refusal(named, options), BlobDigestError)
    assert isinstance(refusal(tmp_path / "missing.tar", options), UsageError)
    forged = auditor_files(tmp_path, ALLOWED, key=SigningKey.generate())
    assert isinstance(refusal(good, forged), ThresholdError)
    expired = auditor_files(tmp_path, ALLOWED, days=-1)
    assert isinstance(refusal(good, expired), OrderNotInForceError)


def test_the_difference_is_shown_to_people_and_machines(tmp_path: Path) -> None:
    first = save(tmp_path, IMAGE.docker(), "first.tar")
    hook = layer(File("app/train.py", b"steal()\n", mode=0o755), File("x\x1b[2J[red]", b""))
    second = save(tmp_path, image(BASE, CODE, hook, User="root").oci(), "second.tar")
    shown = CliRunner().invoke(image_app, ["diff", str(first), str(second)])
    assert shown.exit_code == 1
    assert "~ config.User: '1000' -> 'root'" in shown.stdout
    assert "~ /app/train.py  (mode 0o644 -> 0o755, user 1000 -> 0" in shown.stdout
    assert "+ /x\\x1b[2J[red]" in shown.stdout
    result = CliRunner().invoke(image_app, ["diff", str(first), str(second), "--json"])
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [file["kind"] for file in document["files"]] == ["changed", "added"]
    assert document["is_same_image"] is False


def test_no_difference_is_exit_code_0(tmp_path: Path) -> None:
    first = save(tmp_path, IMAGE.docker(), "first.tar")
    second = save(tmp_path, IMAGE.oci(), "second.tar")
    result = CliRunner().invoke(image_app, ["diff", str(first), str(second)])
    assert (result.exit_code, "the same image" in result.stdout) == (0, True)


def test_an_archive_that_does_not_hold_is_named(tmp_path: Path) -> None:
    good = save(tmp_path, IMAGE.docker(), "good.tar")
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(good.read_bytes()[:1000])
    for pair in ((good, damaged), (damaged, good)):
        result = CliRunner().invoke(image_app, ["diff", *map(str, pair)])
        assert isinstance(result.exception, TruncatedArchiveError)
        assert str(damaged) in str(result.exception)
        assert str(good) not in str(result.exception)


@pytest.mark.parametrize("command", ["identity", "verify", "diff"])
def test_every_command_of_the_group_explains_itself(command: str) -> None:
    result = CliRunner().invoke(image_app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.split()) > 40
