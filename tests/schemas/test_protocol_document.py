"""`docs/protocol.md` is for people who have only the document, so it must not drift."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from example_documents import EXAMPLES

from auditkit.data.errors import DataError
from auditkit.evidence import (
    bundle,
    bundle_comparison,
    canonical,
    containment,
    derivation,
    document_checks,
    dsse,
    image_signatures,
    membership_codes,
    merkle,
    monitoring,
    notes,
    policy,
    proofs,
    statements,
    verify,
)
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import SigningKey
from auditkit.mint.calibration import p_values
from auditor_server.app import create_app
from auditor_server.errors import HomeError, InferenceError, ServerError, WeightsError
from auditor_server.home import create_home
from auditor_server.settings import ServerSettings
from schemas import (
    AuditOrder,
    OptimiserConfig,
    Role,
    RoleName,
    SessionGrant,
    SessionRequest,
    SplitSizes,
    TrustRoot,
    VerificationReport,
    parse_record,
)
from schemas.base import Schema
from schemas.export import ADAPTERS, json_schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
NONCE = bytes(range(32))
SECRET = bytes(range(32, 64))
NOW = datetime(2026, 3, 2, tzinfo=UTC)
E = TypeVar("E", bound=Exception)


def code_block(language: str) -> str:
    return TEXT.split(f"```{language}\n")[1].split("```")[0]


def section(number: int) -> str:
    return TEXT.split(f"\n## {number}. ")[1].split("\n## ")[0]


def row(name: str, text: str = TEXT) -> list[str]:
    """The cells of the table row whose first cell is `name` alone."""
    found = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(found) == 1, f"{name} has {len(found)} rows of its own"
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def classes_below(base: type[E]) -> set[type[E]]:
    return {found for child in base.__subclasses__() for found in (child, *classes_below(child))}


def numbers(values: object) -> str:
    return " ".join(str(value) for value in np.asarray(values).tolist())


def worked_example() -> dict[str, str]:
    leaves = [hashlib.sha256(f"sample {i}".encode()).digest() for i in range(12)]
    sizes = SplitSizes(told=5, silent=1, told_only=1, external=3, calibration=2)
    split = derivation.derive_split(NONCE, sizes)
    schedule = derivation.Schedule(NONCE, split, batch_size=3, external_batch_size=2, epochs=2)
    rates = OptimiserConfig(learning_rate=0.1)
    found = {
        "key split": derivation.derive_key(NONCE, "split").hex(),
        "permutation split": numbers(derivation.permutation(NONCE, "split", 12)),
        "told": numbers(split.told),
        "silent": numbers(split.silent),
        "told_only": numbers(split.told_only),
        "external": numbers(split.external),
        "calibration": numbers(split.calibration),
        "pool root": merkle.root(leaves).hex(),
        "learning rates": numbers([derivation.learning_rate(rates, s, 4) for s in range(1, 5)]),
        "augmentation words of epoch 0": numbers(derivation.augmentation_words(NONCE, 0, 12)),
        "initial-weights seed": str(derivation.initialisation_seed(NONCE)),
        "generators seed": str(derivation.generator_seed(NONCE)),
        "code commitment": membership_codes.secret_commitment(SECRET),
        "code of sample 0, length 4": numbers(
            membership_codes.membership_codes(SECRET, b"".join(leaves), np.array([0]), 4)[0]
        ),
        "bound of z 3": str(membership_codes.own_code_p_value(3.0)),
        "p-value of score 2 against 1 2 3 4": numbers(p_values([2.0], [1.0, 2.0, 3.0, 4.0])),
    }
    for plan in schedule.steps():
        found[f"rows of step {plan.step}"] = numbers(plan.rows)
        found[f"batch of step {plan.step}"] = derivation.batch_digest(b"".join(leaves), plan)
    return found


def test_the_worked_example_is_what_the_code_computes() -> None:
    printed = dict(line.split(" = ") for line in code_block("text").splitlines())
    assert printed == worked_example()


def test_the_printed_checkpoint_is_what_the_code_signs() -> None:
    line = code_block("json").rstrip("\n").encode()
    assert canonical.to_bytes(parse_record(line)) == line
    key, cosigner = (
        SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)) for seed in (1, 2)
    )
    origin = "audit.example.org/sessions/example"
    checkpoint = notes.Checkpoint(origin, 1, merkle.root([line]))
    signed = notes.sign(checkpoint.to_text(), origin, key)
    name = "audit.example.org" + document_checks.COSIGNER_SUFFIX
    cosigned = notes.cosign(signed, name, cosigner, 1767225601).to_bytes()
    assert code_block("note") == cosigned.decode()
    assert f"\n    {canonical.sha256_hex(cosigned)}\n" in TEXT


def test_every_derivation_label_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: set[str] = set()
    derive_key = derivation.derive_key

    def noting(nonce: bytes, label: str) -> bytes:
        labels.add(label)
        return derive_key(nonce, label)

    monkeypatch.setattr(derivation, "derive_key", noting)
    worked_example()
    documented = set(re.findall(r"^\| `([a-z-]+)(?:/<(?:epoch|round)>)?` \|", TEXT, re.MULTILINE))
    assert {label.partition("/")[0] for label in labels} <= documented
    assert len(labels) > 7  # each label that takes a number was seen with one
    assert derivation.LABEL_PREFIX in TEXT


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_every_field_is_documented(name: str) -> None:
    parts = [json_schema(name), *json_schema(name).get("$defs", {}).values()]
    fields = {field for part in parts for field in part.get("properties", {})}
    undocumented = {field for field in fields if f"`{field}`" not in TEXT}
    if name in {"SessionRequest"}:
        undocumented -= {"evidence", "kind"}  # of the reserved attestation
    assert not undocumented


@pytest.mark.parametrize("record", [n for n in sorted(ADAPTERS) if n.endswith("Record")])
def test_every_record_kind_has_a_row_with_exactly_its_fields(record: str) -> None:
    log = section(8)
    if record == "AnyRecord":
        kinds = set(json_schema(record)["discriminator"]["mapping"])
        assert all(row(kind, log) for kind in kinds)
        return
    properties = json_schema(record)["properties"]
    fields = re.findall(r"`([a-z_]+)`", row(properties["kind"]["const"], log)[1])
    assert set(fields) == set(properties) - {"schema_version", "kind", "sequence", "time_ms"}


def test_every_check_of_the_verifier_has_a_row_in_its_place() -> None:
    report = verify_something()
    names = [finding.check for finding in report.findings]
    assert len(names) > 20
    verification = section(11)
    rows = [row(name, verification) for name in names]
    assert [cells[1] for cells in rows] == [finding.claim for finding in report.findings]
    places = [verification.index(f"| `{name}` |") for name in names]
    assert places == sorted(places)
    for finding, cells in zip(report.findings, rows, strict=True):
        if finding.error is not None and finding.check != "request-within-policy":
            assert f"`{finding.error}`" in cells[3], finding


def test_errors_named_in_the_document_exist() -> None:
    known = {error.__name__ for error in classes_below(EvidenceError) | classes_below(ServerError)}
    # web parameters, auditkit.mint
    known |= {error.__name__ for error in vars(proofs).values() if isinstance(error, type)}
    known |= {error.__name__ for error in classes_below(DataError)}
    known |= {"InvalidParameterError", "CalibrationTooSmallError"}
    assert set(re.findall(r"`(\w+Error)`", TEXT)) <= known


def test_every_alarm_of_a_monitor_is_documented() -> None:
    alarms = classes_below(monitoring.RegistryError)
    assert bundle_comparison.BundleIncompleteError in alarms
    assert not {error.__name__ for error in alarms if f"`{error.__name__}`" not in TEXT}


def test_every_rule_of_the_policy_and_of_the_server_is_documented() -> None:
    server = classes_below(ServerError) - {HomeError, InferenceError, WeightsError}
    server -= classes_below(HomeError)
    errors = classes_below(policy.PolicyError) | {
        error for error in server if error.status != 500 and error.__module__.startswith("auditor")
    }
    assert not {error.__name__ for error in errors if f"`{error.__name__}`" not in TEXT}


@pytest.mark.parametrize(
    "base", [containment.ContainmentError, image_signatures.ImageSignatureError]
)
def test_every_rule_on_images_and_containers_has_a_row(base: type[EvidenceError]) -> None:
    container = section(4)
    assert all(row(error.__name__, container) for error in base.__subclasses__())


def test_the_places_inside_a_container_are_documented() -> None:
    places = {*containment.READ_ONLY_PLACES, containment.SCRATCH, *containment.ENGINE_MOUNTS}
    cells = row("MountError", TEXT.split("\n## 4. ")[1].split("\n## ")[0])
    assert not {place for place in places if f"`{place}`" not in "".join(cells)}


def test_every_documented_status_is_the_servers() -> None:
    tables = [
        line.split("|") for line in TEXT.splitlines() if re.match(r"\|.*Error`.*\| \d{3} \|", line)
    ]
    documented = {
        name: int(cells[2]) for cells in tables for name in re.findall(r"`(\w+Error)`", cells[1])
    }
    statuses = {error.__name__: error.status for error in classes_below(ServerError)}
    common = documented.keys() & statuses.keys()
    assert len(common) > 20
    assert {name: documented[name] for name in common} == {n: int(statuses[n]) for n in common}


def test_every_route_is_documented(tmp_path: Path) -> None:
    home = tmp_path / "home"
    create_home(home, "Authority", "audit.example.org", NOW)
    paths = create_app(ServerSettings(home=home)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    assert routes == set(re.findall(r"^\| `([A-Z]+ /v1/[^`]*)` \|", TEXT, re.MULTILINE))


def test_every_member_of_a_bundle_is_documented() -> None:
    assert all(row(member) for member in bundle.MEMBER_LIMITS)
    numbered = ("continuations/NNN.request.json", "continuations/NNN.dsse.json")
    assert all(row(member) for member in (*numbered, "verdicts/NNNNNN.dsse.json"))
    assert f"at most {bundle.MAX_CONTINUATIONS} |" in TEXT
    assert f"at most {bundle.MAX_VERDICTS:,} |" in TEXT


def test_predicate_types_are_documented() -> None:
    for predicate in (
        statements.ORDER_PREDICATE,
        statements.GRANT_PREDICATE,
        statements.CONTINUATION_PREDICATE,
        statements.VERDICT_PREDICATE,
        statements.TRUST_ROOT_PREDICATE,
        statements.STATEMENT_TYPE,
        dsse.IN_TOTO_PAYLOAD_TYPE,
    ):
        assert f"`{predicate}`" in TEXT


def verify_something() -> VerificationReport:
    """A report with every finding: readable documents that prove next to nothing."""
    key = SigningKey.generate()
    root = TrustRoot(
        auditor="Authority",
        origin="audit.example.org",
        version=1,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=1),
        keys={key.public.keyid: key.public.hex},
        roles={name: Role(keyids=(key.public.keyid,)) for name in get_args(RoleName)},
    )

    def signed(model: type[Schema], predicate: str) -> bytes:
        document = model.from_bytes(canonical.to_bytes(EXAMPLES[model.__name__]))
        payload = statements.make(predicate, document, {"any": "00" * 32})
        return dsse.sign(payload, [key]).to_bytes()

    evidence = bundle.Bundle(
        order=signed(AuditOrder, statements.ORDER_PREDICATE),
        request=canonical.to_bytes(
            SessionRequest.from_bytes(canonical.to_bytes(EXAMPLES["SessionRequest"]))
        ),
        grant=signed(SessionGrant, statements.GRANT_PREDICATE),
        records=[],
        checkpoints=(),
        pool_leaves=b"",
        test_leaves=b"",
    )
    return verify.verify_bundle(evidence, root, now=NOW)
