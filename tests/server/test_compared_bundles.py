"""`auditkit monitor --bundle` beside a real server: does a bundle show all that is registered?"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hand_built import HandBuiltAgent
from live import LiveServer
from test_replays import answer, ask, bundle_of, drawn, hand_in, seal_states

from auditkit.evidence import canonical
from auditkit.evidence.bundle import Bundle, write_bundle
from auditkit.evidence.registry_checks import entry_identity, registered_documents
from auditor_server import registry
from auditor_server.context import Auditor
from schemas import RegistryExcerpt, SealRecord, parse_record
from schemas.replay import SegmentOutcome

NewAgent = Callable[[], HandBuiltAgent]


@pytest.fixture
def sealed(new_agent: NewAgent) -> HandBuiltAgent:
    return seal_states(new_agent())


@pytest.fixture
def folder(live_server: LiveServer, tmp_path: Path) -> Path:
    (tmp_path / "trust-root.json").write_bytes(live_server.home.trust_root_bytes)
    return tmp_path


@pytest.fixture
def auditor(live_server: LiveServer) -> Iterator[Auditor]:
    """The same home, in this process: whatever it registers, the server shows."""
    auditor = Auditor.open(live_server.settings)
    yield auditor
    auditor.store.close()


def replay(server: LiveServer, agent: HandBuiltAgent, outcome: SegmentOutcome) -> None:
    found, digest = drawn(ask(server, agent))
    assert hand_in(server, agent, answer(found, digest, outcome)).status_code == 201


def compare(
    server: LiveServer, bundle: Bundle, folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    (folder / "evidence.bundle").write_bytes(write_bundle(bundle))
    return monitor(server, folder, *options)


def monitor(server: LiveServer, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from auditkit.cli import main; main()", "monitor", server.url]
    files = {"trust-root": "trust-root.json", "state": "mark.json", "bundle": "evidence.bundle"}
    named = [part for name, file in files.items() for part in (f"--{name}", str(folder / file))]
    return subprocess.run(
        [*command, *named, *options], capture_output=True, text=True, timeout=120, check=False
    )


def shown(bundle: Bundle) -> RegistryExcerpt:
    return RegistryExcerpt.from_bytes(bundle.registry or b"")


def last_replay_taken_out(bundle: Bundle) -> Bundle:
    """What anybody can do to a bundle who has it."""
    edited = replace(bundle, replays=bundle.replays[:-1], verifications=())
    seal = parse_record(tuple(bundle.records)[-1])
    assert isinstance(seal, SealRecord)
    kept = {document.identity for document in registered_documents(edited, seal)}
    found = shown(bundle)
    entries = tuple(one for one in found.entries if entry_identity(one.entry) in kept)
    excerpt = canonical.to_bytes(found.model_copy(update={"entries": entries}))
    return replace(edited, registry=excerpt)


def test_a_whole_bundle_is_compared_with_the_registry(
    live_server: LiveServer, sealed: HandBuiltAgent, folder: Path
) -> None:
    replay(live_server, sealed, "exact")
    replay(live_server, sealed, "differs")
    bundle = bundle_of(live_server, sealed)
    done = compare(live_server, bundle, folder)
    assert done.returncode == 0, done.stderr
    own = [one for one in shown(bundle).entries if one.entry.session_id is not None]
    session = sealed.grant.session_id
    assert f"{session}: {len(own)} entries, the bundle shows all\n" in done.stdout
    # The mark is kept as without a bundle, and nothing is new to it.
    again = monitor(live_server, folder, "--json")
    check, end = json.JSONDecoder().raw_decode(again.stdout)
    assert check["new"] == 0
    assert json.loads(again.stdout[end:]) == {
        "session_id": session,
        "entries": len(own),
        "verdicts_not_shown": 0,
    }


def test_a_failed_replay_that_was_taken_out_is_missed_by_its_entries(
    live_server: LiveServer, sealed: HandBuiltAgent, folder: Path
) -> None:
    replay(live_server, sealed, "exact")
    replay(live_server, sealed, "differs")
    whole = bundle_of(live_server, sealed)
    done = compare(live_server, last_replay_taken_out(whole), folder)
    assert done.returncode == 1
    assert "ALARM BundleIncompleteError" in done.stderr
    last = {one.entry.kind: one.index for one in shown(whole).entries}
    assert f"{last['draw']} (draw), {last['replay']} (replay)" in " ".join(done.stderr.split())
    (kept,) = (folder / "mark.json.alarms").iterdir()
    assert (kept / "found.note").read_bytes() == whole.registry_checkpoint
    assert (kept / "alarm.txt").read_text().startswith("BundleIncompleteError")


def test_a_bundle_from_before_the_failed_replay_is_incomplete(
    live_server: LiveServer, sealed: HandBuiltAgent, folder: Path
) -> None:
    replay(live_server, sealed, "exact")
    before = bundle_of(live_server, sealed)
    assert compare(live_server, before, folder).returncode == 0
    replay(live_server, sealed, "differs")
    done = compare(live_server, before, folder)
    assert done.returncode == 1
    assert "BundleIncompleteError" in done.stderr
    assert compare(live_server, bundle_of(live_server, sealed), folder).returncode == 0


def test_verdicts_that_a_bundle_was_exported_without_are_counted(
    live_server: LiveServer, sealed: HandBuiltAgent, folder: Path, auditor: Auditor
) -> None:
    session = sealed.grant.session_id
    for name in (b"one", b"two"):
        registry.register(
            auditor, "verdict", canonical.sha256_hex(name + session.encode()), session
        )
    content = sealed.client.get(f"{sealed.path}/bundle").content
    (folder / "evidence.bundle").write_bytes(content)
    done = monitor(live_server, folder)
    assert done.returncode == 0, done.stderr
    assert "the bundle shows all but 2 verdicts" in done.stdout


def test_what_cannot_be_compared_is_no_alarm(
    live_server: LiveServer, sealed: HandBuiltAgent, folder: Path
) -> None:
    missing = monitor(live_server, folder)
    (folder / "evidence.bundle").write_bytes(b"no bundle")
    other = monitor(live_server, folder)
    bare = replace(bundle_of(live_server, sealed), registry=None, registry_checkpoint=None)
    unregistered = compare(live_server, bare, folder)
    for done in (missing, other, unregistered):
        assert done.returncode == 1
        assert "ALARM" not in done.stderr
        assert "Traceback" not in done.stderr
    assert "export it again" in unregistered.stderr
    assert not (folder / "mark.json").exists()


def test_a_bundle_of_another_auditors_registry_is_an_alarm(
    live_server: LiveServer, own_server: LiveServer, sealed: HandBuiltAgent, folder: Path
) -> None:
    own_server.start()
    agent = own_server.open_session("digits-2026", own_server.add_order("digits-2026"))
    found = bundle_of(own_server, agent)
    done = compare(live_server, found, folder)
    assert done.returncode == 1
    assert "ALARM UnsignedNoteError" in done.stderr
    (kept,) = (folder / "mark.json.alarms").iterdir()
    assert (kept / "found.note").read_bytes() == found.registry_checkpoint
