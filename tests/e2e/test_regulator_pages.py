"""What a regulator does in the browser, with a training that has really taken place."""

import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from world import World

from auditkit.evidence import dsse, merkle, notes, proofs, statements
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.derivation import Schedule, derive_split
from auditkit.evidence.keys import PublicKey
from auditkit.evidence.trust import role_keys
from auditor_server.home import open_home
from auditor_server.web.checks import PLACES
from schemas import EvaluationRecord, SessionGrant, SessionRequest, parse_record
from tests.browser import DESKTOP, PHONE, Reader

NewReader = Callable[..., Reader]


@pytest.fixture
def regulator(finished: World, new_reader: NewReader) -> Reader:
    reader = new_reader(finished.url)
    reader.sign_in(Path(finished.token("auditor")).read_text().strip())
    return reader


def log_key(finished: World, grant: SessionGrant) -> notes.VerifierKey:
    return notes.VerifierKey.ed25519(grant.origin, PublicKey.from_hex(grant.session_key))


def test_from_sign_in_to_the_evidence_in_hand(
    finished: World, regulator: Reader, tmp_path: Path
) -> None:
    session = f"/sessions/{finished.session_id()}"
    assert regulator.heading() == "Sessions"
    assert "model submitted" in regulator.text
    regulator.follow("digits")
    assert "L1: complete, signed and cosigned log" in regulator.text

    regulator.follow("Verification")
    assert "The evidence holds, with reservations" in regulator.text
    rows = regulator.page.locator("table.checks tbody tr")
    names = [row.get_attribute("id") for row in rows.all()]
    assert len(names) > 30
    assert set(PLACES) <= set(names)
    for row in rows.all():
        assert row.locator(".evidence a").count() == 1
        assert (row.locator(".advice").count() == 0) == (row.locator(".passed").count() == 1)
    assert "auditkit draw" in regulator.page.locator("#replay .advice").inner_text()

    bundle = regulator.download("Download the evidence bundle")
    (tmp_path / "evidence.bundle").write_bytes(bundle)
    code, report = finished.verify(tmp_path / "evidence.bundle")
    assert (code, report["level"]) == (0, 1)

    regulator.visit(f"{session}/report")
    assert "The evidence holds" in regulator.page.inner_text("body")
    assert regulator.page.evaluate("getComputedStyle(document.body).margin") == "0px"
    assert regulator.complaints == []


def test_a_record_and_its_proof_hold_without_the_server(
    finished: World, regulator: Reader, tmp_path: Path
) -> None:
    regulator.visit(f"/sessions/{finished.session_id()}/records")
    regulator.page.get_by_label("Number, or 64").fill("3")
    regulator.page.get_by_role("button", name="Find").click()
    assert "step 3, epoch 1" in regulator.text
    regulator.page.locator("tbody a").first.click()
    record, proof = regulator.download("Download the record"), regulator.download("the proof")
    assert parse_record(record).step == 3

    grant = read_bundle(io.BytesIO(finished.export().read_bytes())).grant
    payload = dsse.Envelope.from_bytes(grant).payload
    granted = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
    key = log_key(finished, granted)
    parsed = proofs.parse(proof)
    proven = proofs.verify(parsed, merkle.leaf_hash(record), granted.origin, [key])
    assert proven.index == parse_record(record).sequence
    forged = merkle.leaf_hash(record.replace(b'"step":3', b'"step":4'))
    with pytest.raises(merkle.InclusionProofError):
        proofs.verify(parsed, forged, granted.origin, [key])


def test_a_sample_is_found_where_the_nonce_put_it(finished: World, regulator: Reader) -> None:
    bundle = read_bundle(io.BytesIO(finished.export().read_bytes()))
    payload = dsse.Envelope.from_bytes(bundle.grant).payload
    grant = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
    config = SessionRequest.from_bytes(bundle.request).config
    nonce = bytes.fromhex(grant.nonce)
    split = derive_split(nonce, grant.split)
    schedule = Schedule(nonce, split, config.batch_size, config.external_batch_size, config.epochs)
    index = int(split.silent[0])
    steps = [plan.step for plan in schedule.steps() if index in plan.rows]
    leaf = bytes(bundle.pool_leaves[32 * index : 32 * index + 32]).hex()

    regulator.visit(f"/sessions/{finished.session_id()}/records")
    regulator.page.get_by_label("Find by").select_option("sample")
    regulator.page.get_by_label("Number, or 64").fill(leaf)
    regulator.page.get_by_role("button", name="Find").click()
    assert f"Sample {index:,} of the pool" in regulator.text
    assert "cohort silent" in regulator.text
    shown = regulator.page.locator(".steps li").all_inner_texts()
    assert shown == [f"step {step:,}" for step in steps]


def test_the_registry_is_open_to_all_and_proves_its_entries(
    finished: World, regulator: Reader, new_reader: NewReader
) -> None:
    regulator.visit(f"/sessions/{finished.session_id()}")
    digest = regulator.page.locator("a[href^='/registry/hash/']").first.inner_text()
    citizen = new_reader(finished.url)
    citizen.visit("/registry")
    citizen.page.get_by_label("Find by number or digest").fill(digest)
    citizen.page.get_by_role("button", name="Find").click()
    assert "Grant of a session" in citizen.text
    leaf, proof = citizen.download("Download the entry"), citizen.download("the proof")

    root = open_home(finished.home).trust_root(datetime.now(UTC))
    origin = f"{root.origin}/registry"
    keys = [notes.VerifierKey.ed25519(origin, key) for key in role_keys(root, "registry").values()]
    assert proofs.verify(proofs.parse(proof), merkle.leaf_hash(leaf), origin, keys)
    citizen.visit("/models")
    assert citizen.heading() == "Sign in"


def test_models_show_the_rates_of_their_logs(finished: World, regulator: Reader) -> None:
    regulator.follow("Models")
    with zipfile.ZipFile(finished.export()) as bundle:
        records = map(parse_record, bundle.read("records.jsonl").splitlines())
        evaluation = [found for found in records if isinstance(found, EvaluationRecord)][-1]
    sizes = {metrics.cohort.replace("_", " "): metrics.size for metrics in evaluation.cohorts}
    rows = regulator.page.locator("article tbody tr")
    shown = {
        row.locator("th").inner_text(): int(row.locator("td").first.inner_text())
        for row in rows.all()
    }
    assert shown == {cohort: size for cohort, size in sizes.items() if size}


# On a second screen, only what depends on the screen.
OF_THE_SCREEN = ("color-contrast", "target-size", "scrollable-region-focusable")


@pytest.mark.parametrize(
    ("size", "scheme", "rules"),
    [(DESKTOP, "light", ()), (PHONE, "dark", OF_THE_SCREEN)],
    ids=["desktop", "phone"],
)
def test_every_page_can_be_read_by_everyone(
    finished: World,
    new_reader: NewReader,
    size: tuple[int, int],
    scheme: str,
    rules: tuple[str, ...],
) -> None:
    reader = new_reader(finished.url, size, scheme)
    reader.visit("/")
    assert reader.faults(*rules) == []
    reader.sign_in(Path(finished.token("auditor")).read_text().strip())
    session = f"/sessions/{finished.session_id()}"
    parts = ["", "/verification", "/live", "/records?by=step&value=3", "/records/3"]
    others = ["/", "/registry", "/registry/3", "/models", "/orders", "/orders/digits"]
    faults = {}
    for path in [*(session + part for part in parts), *others, "/order-editor"]:
        reader.visit(path)
        faults[path] = reader.faults(*rules)
        reader.page.keyboard.press("Tab")
        assert reader.page.evaluate("document.activeElement.className") == "skip"
        assert reader.page.locator("h1").count() == 1
    assert {path: found for path, found in faults.items() if found} == {}
    assert reader.complaints == []
