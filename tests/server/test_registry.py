"""The registry: every document is an entry of one public log, and stays one."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from hand_built import PURPOSE, Client, HandBuiltAgent, is_problem, make_order, sign_order
from live import LiveServer, make_home
from submitted import Submission, as_png, flat_calibration, make_submission, noise_image

from auditkit.evidence import canonical, dsse, merkle, notes
from auditkit.evidence.bundle import read_bundle
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.registry_head import open_head
from auditkit.evidence.subtrees import Span
from auditor_server import registry
from auditor_server.context import Auditor
from auditor_server.errors import RegistryDamagedError, RegistryKeyMissingError
from auditor_server.home import Home
from auditor_server.orders import add_order
from auditor_server.settings import ServerSettings
from auditor_server.store.engine import make_engine
from auditor_server.store.migrations import downgrade
from schemas import (
    ConsistencyProof,
    InclusionProof,
    RegistryEntries,
    RegistryEntry,
    VerificationReport,
)

POWER_CUTS = 3


def head_of(client: Client) -> notes.Checkpoint:
    response = client.get("/registry/checkpoint")
    assert response.status_code == 200, response.text
    return notes.parse_checkpoint(notes.parse(response.content).text)


def leaves_of(client: Client) -> list[bytes]:
    leaves: list[bytes] = []
    while True:
        page = RegistryEntries.from_bytes(
            client.get("/registry/entries", params={"start": len(leaves)}).content
        )
        leaves += [leaf.encode() for leaf in page.leaves]
        if len(leaves) == page.size:
            return leaves


def entries_of(client: Client) -> list[RegistryEntry]:
    return [RegistryEntry.from_bytes(leaf) for leaf in leaves_of(client)]


def submitted_agent(server: LiveServer, order_id: str) -> tuple[HandBuiltAgent, Submission]:
    agent = server.open_session(order_id, server.add_order(order_id))
    submission = make_submission(agent.grant.session_id, flat_calibration(0.0))
    submission.seal(agent)
    response = submission.send(agent)
    assert response.status_code == 200, response.text
    return agent, submission


@pytest.fixture(scope="module")
def story(live_server: LiveServer) -> tuple[HandBuiltAgent, list[RegistryEntry]]:
    """A session from its order to two verdicts, and its entries."""
    agent, _ = submitted_agent(live_server, "registered-story")
    images = [("images", (f"{n}.png", as_png(noise_image(n)))) for n in (1, 2)]
    officer = live_server.client("compliance-officer")
    response = officer.post(f"{agent.path}/queries", data=PURPOSE, files=images)
    assert response.status_code == 200, response.text
    session = agent.grant.session_id
    entries = entries_of(live_server.client(None))
    return agent, [entry for entry in entries if entry.session_id == session]


def test_every_document_is_registered_in_the_order_of_the_story(
    live_server: LiveServer, story: tuple[HandBuiltAgent, list[RegistryEntry]]
) -> None:
    agent, entries = story
    kinds = [entry.kind for entry in entries]
    assert kinds == ["grant", "seal", "submission", "verification", "verdict", "verdict"]
    bundle = read_bundle(live_server.client("auditor").get(f"{agent.path}/bundle").content)
    payloads = [
        dsse.Envelope.from_bytes(data).payload
        for data in (bundle.order, bundle.grant, *bundle.verifications, *bundle.verdicts)
    ]
    digests = {entry.digest for entry in entries_of(live_server.client(None))}
    assert {sha256_hex(payload) for payload in payloads} <= digests
    seal = entries[1]
    lines = tuple(bundle.records)
    assert seal.digest == sha256_hex(lines[-1])
    assert (seal.log_size, seal.log_root) == (len(lines), merkle.root(lines).hex())


def test_the_same_submission_again_is_verified_and_registered_once(
    live_server: LiveServer,
) -> None:
    agent, submission = submitted_agent(live_server, "submitted-twice")
    before = entries_of(live_server.client(None))
    assert submission.send(agent).status_code == 200
    assert entries_of(live_server.client(None)) == before


def test_the_bundle_carries_the_proofs_and_the_verifier_accepts_them(
    live_server: LiveServer, story: tuple[HandBuiltAgent, list[RegistryEntry]]
) -> None:
    agent, _ = story
    response = live_server.client("auditor").get(f"{agent.path}/verification")
    findings = {f.check: f for f in VerificationReport.from_bytes(response.content).findings}
    assert findings["registered"].outcome == "passed", findings["registered"].detail
    assert findings["verification-summaries"].outcome == "passed"


def test_anyone_can_prove_any_entry_and_any_growth(live_server: LiveServer) -> None:
    anyone = live_server.client(None)
    older = head_of(anyone)
    live_server.add_order("one-more")
    newer = head_of(anyone)
    leaves = leaves_of(anyone)
    assert older.size < newer.size <= len(leaves)
    assert newer.root == merkle.root(leaves[: newer.size])
    for index in (0, older.size, newer.size - 1):
        digest = RegistryEntry.from_bytes(leaves[index]).digest
        for asked in ({"index": index}, {"digest": digest}):
            answer = anyone.get("/registry/proof/inclusion", params=asked)
            proof = InclusionProof.from_bytes(answer.content)
            assert (proof.index, proof.leaf.encode()) == (index, leaves[index])
            path = [bytes.fromhex(node) for node in proof.proof]
            leaf = merkle.leaf_hash(leaves[index])
            merkle.verify_inclusion(index, newer.size, leaf, path, newer.root)
    answer = anyone.get("/registry/proof/consistency", params={"old": older.size})
    growth = ConsistencyProof.from_bytes(answer.content)
    assert (growth.old_size, growth.new_size) == (older.size, newer.size)
    path = [bytes.fromhex(node) for node in growth.proof]
    merkle.verify_consistency(older.size, newer.size, path, older.root, newer.root)
    assert anyone.get(f"/registry/entries/{older.size}").content == leaves[older.size]


def test_a_head_without_new_entries_is_the_same_head(live_server: LiveServer) -> None:
    anyone = live_server.client(None)
    first = anyone.get("/registry/checkpoint").content
    assert anyone.get("/registry/checkpoint").content == first
    open_head(first, live_server.home.history())


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/registry/entries/999999", 404, "RegistryEntryNotFoundError"),
        (f"/registry/entries/{2**53 - 1}", 404, "RegistryEntryNotFoundError"),
        ("/registry/entries/-1", 422, "InvalidParameterError"),
        ("/registry/entries?start=999999", 422, "RegistryRangeError"),
        ("/registry/entries?start=3&end=2", 422, "RegistryRangeError"),
        ("/registry/proof/inclusion", 422, "RegistryRangeError"),
        (f"/registry/proof/inclusion?index=0&digest={'a' * 64}", 422, "RegistryRangeError"),
        (f"/registry/proof/inclusion?digest={'a' * 64}", 404, "RegistryEntryNotFoundError"),
        ("/registry/proof/inclusion?digest=abc", 422, "InvalidParameterError"),
        ("/registry/proof/inclusion?index=0&size=0", 422, "RegistryRangeError"),
        ("/registry/proof/inclusion?index=1&size=1", 422, "RegistryRangeError"),
        ("/registry/proof/inclusion?index=0&size=999999", 422, "RegistryRangeError"),
        ("/registry/proof/consistency", 422, "InvalidParameterError"),
        ("/registry/proof/consistency?old=2&new=1", 422, "RegistryRangeError"),
        ("/registry/proof/consistency?old=0&new=999999", 422, "RegistryRangeError"),
    ],
)
def test_what_the_registry_does_not_have_is_refused(
    live_server: LiveServer, path: str, status: int, error: str
) -> None:
    live_server.add_order(f"order-{sha256_hex(path.encode())[:12]}")
    assert is_problem(live_server.client(None).get(path), status, error)


def test_documents_and_entries_outlive_a_power_cut_together(own_server: LiveServer) -> None:
    marks: list[notes.Checkpoint] = []
    sent: list[str] = []
    for cut in range(POWER_CUTS):
        own_server.start()
        anyone = own_server.client(None)
        stop = threading.Event()

        def publish(cut: int = cut, stop: threading.Event = stop, anyone: Client = anyone) -> None:
            number = 0
            while not stop.is_set():
                try:
                    own_server.add_order(f"order-{cut}-{number}")
                    marks.append(head_of(anyone))
                except requests.RequestException:
                    return
                sent.append(f"order-{cut}-{number}")
                number += 1

        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(publish)
            while len(sent) < 4 * (cut + 1) and not publishing.done():
                time.sleep(0.01)
            own_server.kill()
            stop.set()
            publishing.result()
    own_server.start()
    listed = [order["order_id"] for order in own_server.client("auditor").get("/orders").json()]
    assert set(sent) <= set(listed)
    entries = entries_of(own_server.client(None))
    assert sum(entry.kind == "order" for entry in entries) == len(listed)
    leaves = leaves_of(own_server.client(None))
    assert all(mark.root == merkle.root(leaves[: mark.size]) for mark in marks)
    times = [entry.time_ms for entry in entries]
    assert times == sorted(times)


# Without a process in between


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@pytest.fixture
def auditor(home: Home) -> Iterator[Auditor]:
    auditor = Auditor.open(ServerSettings(home=home.path))
    registry.recover(auditor)
    yield auditor
    auditor.store.close()


def digest_of(number: int) -> str:
    return sha256_hex(str(number).encode())


def database(home: Home, *statements: str) -> list[Any]:
    with sqlite3.connect(home.path / "auditor.sqlite3") as connection:
        return [connection.execute(statement).fetchall() for statement in statements]


def test_servers_that_share_a_database_share_one_order(auditor: Auditor, home: Home) -> None:
    """Several processes register the same documents at once; each gets one place."""
    others = [Auditor.open(ServerSettings(home=home.path)) for _ in range(4)]
    with ThreadPoolExecutor(len(others)) as pool:
        places = list(
            pool.map(
                lambda other: [
                    registry.register(other, "verdict", digest_of(number), "session-1")
                    for number in range(25)
                ],
                others,
            )
        )
    assert all(found == places[0] for found in places)
    assert sorted(places[0]) == list(range(1, 26))  # after the trust root's
    registry.recover(auditor)
    for other in others:
        other.store.close()


def test_a_document_is_known_by_kind_session_and_digest(auditor: Auditor) -> None:
    register = registry.register
    first = register(auditor, "verdict", digest_of(1), "session-1")
    assert register(auditor, "verdict", digest_of(1), "session-1") == first
    assert register(auditor, "verdict", digest_of(1), "session-2") == first + 1
    assert register(auditor, "draw", digest_of(1), "session-1") == first + 2


def test_a_clock_that_is_set_back_dates_nothing_back(auditor: Auditor) -> None:
    registry.register(auditor, "verdict", digest_of(1), "session-1")
    registry.head(auditor)
    slow = replace(auditor, now=lambda: datetime.now(UTC) - timedelta(minutes=10))
    index = registry.register(slow, "verdict", digest_of(2), "session-1")
    head = open_head(registry.head(slow), auditor.home.history())
    times = [
        RegistryEntry.from_bytes(registry.leaf(auditor, place)).time_ms
        for place in range(index + 1)
    ]
    assert times == sorted(times)
    assert head.checkpoint.size == index + 1
    assert (head.cosigned_at + 1) * 1000 > times[-1]


def test_a_head_is_cosigned_again_when_it_grows_old(auditor: Auditor) -> None:
    first = open_head(registry.head(auditor), auditor.home.history())
    later = replace(auditor, now=lambda: datetime.now(UTC) + registry.HEAD_LIFETIME)
    second = open_head(registry.head(later), auditor.home.history())
    assert second.checkpoint == first.checkpoint
    assert second.cosigned_at >= first.cosigned_at + registry.HEAD_LIFETIME.total_seconds()


def test_what_an_older_server_stored_is_registered_at_the_next_start(
    own_server: LiveServer,
) -> None:
    own_server.start()
    agent, _ = submitted_agent(own_server, "old")
    image = [("images", ("1.png", as_png(noise_image(1))))]
    officer = own_server.client("compliance-officer")
    officer.post(f"{agent.path}/queries", data=PURPOSE, files=image)
    entries = entries_of(own_server.client(None))
    own_server.stop()
    engine = make_engine(own_server.home.database_url)
    downgrade(engine, "0001")
    engine.dispose()
    registry_tables = [f"registry_{name}" for name in ("entries", "nodes", "heads", "sequencer")]
    for table in (*registry_tables, "alembic_version"):  # there were no migrations then, either
        database(own_server.home, f"DROP TABLE {table}")
    own_server.start()
    again = entries_of(own_server.client(None))
    assert [(e.kind, e.digest) for e in again] == [(e.kind, e.digest) for e in entries]
    assert again[0].time_ms >= entries[-1].time_ms
    # Nor were there organisations, and everybody's token is as good as it was.
    for role in ("auditor", "developer", "compliance-officer"):
        assert own_server.client(role).get(agent.path).status_code == 200


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE registry_entries SET leaf = CAST(replace(leaf, 'session-1', 'session-2') AS BLOB)",
        "DELETE FROM registry_entries WHERE position = 3",
        "DELETE FROM registry_entries WHERE position = 5; UPDATE registry_sequencer SET size = 5",
        "UPDATE registry_nodes SET root = zeroblob(32) WHERE level = 2 AND position = 0",
    ],
    ids=["changed", "dropped", "cut off", "nodes"],
)
def test_a_damaged_registry_is_not_served(auditor: Auditor, home: Home, damage: str) -> None:
    for number in range(5):
        registry.register(auditor, "verdict", digest_of(number), "session-1")
    registry.head(auditor)
    database(home, *damage.split(";"))
    with pytest.raises(RegistryDamagedError, match="restore the database"):
        registry.recover(auditor)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE registry_nodes SET root = zeroblob(32) WHERE level = 2 AND position = 0",
        "UPDATE registry_sequencer SET size = 5",
    ],
    ids=["another root", "a smaller size"],
)
def test_no_second_head_is_signed_for_a_size(auditor: Auditor, home: Home, damage: str) -> None:
    for number in range(5):
        registry.register(auditor, "verdict", digest_of(number), "session-1")
    signed = registry.head(auditor)
    database(home, damage)
    with pytest.raises(RegistryDamagedError):
        registry.head(auditor)
    newest = auditor.store.registry.newest_head()
    assert newest is not None
    assert newest.note.encode() == signed


def test_a_home_without_a_registry_key_goes_on_without_heads(home: Home) -> None:
    (home.path / "keys" / "registry.pem").unlink()
    auditor = Auditor.open(ServerSettings(home=home.path))
    registry.recover(auditor)
    order = sign_order(home, make_order("unseen", datetime.now(UTC)))
    add_order(auditor, order.to_bytes())
    assert auditor.registry_key is None
    assert auditor.store.registry.size() == 2
    with pytest.raises(RegistryKeyMissingError, match="auditkit trust rotate"):
        registry.head(auditor)
    auditor.store.close()


def test_the_kept_nodes_are_the_trees(auditor: Auditor) -> None:
    for number in range(37):
        registry.register(auditor, "verdict", digest_of(number), "session-1")
    leaves = [registry.leaf(auditor, index) for index in range(38)]
    for size in (0, 1, 2, 31, 32, 33, 38):
        (root,) = auditor.store.registry.nodes([Span(0, size)])
        assert root == merkle.root(leaves[:size])
    assert all(canonical.to_bytes(RegistryEntry.from_bytes(leaf)) == leaf for leaf in leaves)
