"""Verifiers of attestations are plug-ins: found by name, believed by choice, held at a distance."""

from pathlib import Path

import pytest

from auditkit.evidence.attestation import (
    ENTRY_POINTS,
    AttestationPluginError,
    attested_run,
    installed_verifiers,
)
from auditkit.evidence.canonical import sha256_hex, to_bytes
from schemas import Attestation, SessionRequest
from tests.schemas.example_documents import EXAMPLES

REQUEST = SessionRequest.model_validate_json(to_bytes(EXAMPLES["SessionRequest"]))
PLUGIN = """
class Verifier:
    def verify(self, attestation, run):
        return "believed"

verifier = Verifier()
"""


def install(folder: Path, package: str, target: str, source: str = PLUGIN) -> None:
    """Lay out what `pip install` makes of a package with one verifier of the kind `recorded`."""
    (folder / f"{package}.py").write_text(source)
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nrecorded = {target}\n")


def test_an_installed_package_offers_its_verifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed_verifiers() == {}
    install(tmp_path, "recorded_quotes", "recorded_quotes:verifier")
    monkeypatch.syspath_prepend(tmp_path)
    found = installed_verifiers()
    quote = Attestation(kind="recorded", evidence="")
    assert found["recorded"].verify(quote, attested_run(REQUEST)) == "believed"


def test_a_verifier_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "broken_quotes", "broken_quotes:verifier", "raise RuntimeError('no library')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttestationPluginError, match=r"'recorded' \(broken_quotes:verifier\)"):
        installed_verifiers()


def test_two_verifiers_of_one_kind_are_not_chosen_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "first_quotes", "first_quotes:verifier")
    install(tmp_path, "second_quotes", "second_quotes:verifier")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttestationPluginError, match="two installed packages"):
        installed_verifiers()


def test_a_quote_is_about_everything_in_the_request_but_itself() -> None:
    bare = REQUEST.model_copy(update={"attestation": None})
    expected = sha256_hex(to_bytes(bare))
    for quote in ("AAAA", "BBBB"):
        quoted = bare.model_copy(update={"attestation": Attestation(kind="k", evidence=quote)})
        assert attested_run(quoted).report_data.hex() == expected
    other = bare.model_copy(update={"session_key": "ab" * 32})
    assert attested_run(other).report_data.hex() != expected
