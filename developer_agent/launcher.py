"""From a configuration to a training in a closed container, watched from the host.

One launch, in this order; each step is refused with its own error, and nothing runs before all of
those in front of it have passed:

1. the archive's identity is recomputed from its bytes and compared with the order;
2. the engine gets the image, and a container is created by that identity, never by a name;
3. the files that the container will see are compared with those of the archive, one by one: an
   engine's name for an image proves nothing about what lies on its disk;
4. the container is started, and what the engine says of it is checked against the rules of
   containment;
5. only then does the agent inside get its configuration, through the relay's socket. It looks at
   itself, and both views go into the request that the auditor's server judges.
"""

import contextlib
import os
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Protocol

from auditkit.evidence import containment, dsse, policy, statements, trust
from containers.container import Container
from containers.engine import Engine, EngineFacts
from containers.engine_errors import EngineError
from containers.filesystem import FileState
from containers.identity import InspectedImage
from containers.lockdown import Lockdown
from containers.running import (
    AGENT_USER,
    MOST_PROCESSES,
    bring_in,
    inspect_with_files,
    removed_at_the_end,
    user_inside,
)
from containers.signature_file import read_image_signature
from developer_agent.contained_config import (
    ContainedConfig,
    check_packaged_code,
    contained_config,
)
from developer_agent.errors import AgentError
from developer_agent.launch_document import LaunchDocument
from developer_agent.relay import Relay
from developer_agent.run_config import ContainerConfig
from developer_agent.run_folder import RunFolder
from developer_agent.session import read_grant
from developer_agent.supervised_run import Run, RunExistsError
from schemas import AuditOrder, ContainerDescription, ImageSignature

RUN_LABEL = "dev.auditkit.run"
GIB = 2**30
EXIT_KILLED = 137  # 128 + SIGKILL

_Event = int | EngineError | None
"""The exit code, the engine's failure, or None: somebody asks to stop."""


class NoImageError(AgentError):
    """The configuration names no container image, or one that is not there."""


class OutputFolderError(AgentError):
    """The output folder holds something else than a run; all of it would be shown inside."""


class DataUnreadableError(AgentError):
    """The user that the agent is inside the container may not read the data."""


class ContainerLostError(AgentError):
    """The engine went away while the container ran."""


class LaunchDisplay(Protocol):
    """What the launcher tells whoever watches."""

    def identifying(self, archive: Path) -> None:
        """The archive is being hashed."""

    def loading(self, done: int, total: int) -> None:
        """The engine is taking the image in; bytes."""

    def checking(self, done: int, total: int) -> None:
        """The files of the container are being compared with the image's; bytes."""

    def removed(self, container_id: str) -> None:
        """A container that an earlier launch of this run left behind was removed."""

    def started(self, engine: EngineFacts, description: ContainerDescription) -> None:
        """The container runs, and is as locked down as it must be."""

    def stopping(self) -> None:
        """The training was asked to stop."""

    def killed(self, *, out_of_memory: bool) -> None:
        """The container did not end by itself."""


@dataclass(frozen=True)
class Launch:
    """One launch: what to train, and how its output is shown."""

    run: Run
    config_path: str
    """As the user typed it, for messages."""
    resume: bool = False
    as_json: bool = False
    terminal: tuple[int, int] | None = None
    """Rows and columns of the terminal; None when output goes to a file or a pipe."""


@dataclass(frozen=True)
class _Prepared:
    """An image that the order allows and the engine has, and how to run it."""

    launch: Launch
    settings: ContainerConfig
    image: InspectedImage
    files: Mapping[str, FileState]
    signature: ImageSignature | None
    contained: ContainedConfig
    engine: Engine
    image_id: str
    folder: RunFolder


def train_in_container(
    launch: Launch, display: LaunchDisplay, stdout: BinaryIO, stderr: BinaryIO
) -> int:
    """Train in a container and return its exit code, that of `auditkit train`.

    SIGINT and SIGTERM stop the training cleanly; a second one kills the container. Whatever ends
    it, the run can be resumed from what the auditor has acknowledged.

    Raises:
        NoImageError, RunExistsError, RunLockedError: see the messages.
        ContainerError: the archive is no image, or the engine cannot run it.
        PolicyError: the order does not allow the image.
        ContainmentError: the container is not as locked down as it must be; it was killed.
        ServerError, EvidenceError: the order could not be fetched, or is not the auditor's.
    """
    prepared = _prepare(launch, display)
    folder, run = prepared.folder, launch.run
    with folder.launch_lock(), _private_folder() as private:
        _remove_leftovers(prepared.engine, folder, display)
        user = hand_over(folder.path, rootless=prepared.engine.facts().rootless)
        if user == AGENT_USER:
            for path in prepared.contained.binds.values():
                check_readable(path)
        with (
            Relay(
                private,
                server_url=run.config.server.url,
                token=run.token or "",  # the server says what is wrong with that
                order_id=run.config.server.order,
                session_id=read_grant(folder).session_id if folder.grant.exists() else None,
            ) as relay,
            removed_at_the_end(
                prepared.engine.create(prepared.image_id, _lockdown(prepared, relay, user))
            ) as container,
        ):
            return _watch(prepared, container, relay, display=display, stdout=stdout, stderr=stderr)


def _prepare(launch: Launch, display: LaunchDisplay) -> _Prepared:
    run = launch.run
    settings = run.config.container
    if settings is None:
        raise NoImageError(
            f"{launch.config_path} names no container image; make one with `auditkit package "
            f"{launch.config_path} --trainer trainer.tar` and name it as container.image, or try "
            "things out with `--no-container`, which never gets past assurance level L1"
        )
    if RunFolder(run.folder_path).grant.exists() and not launch.resume:
        raise RunExistsError(
            f"{run.folder_path} holds a run already; add --resume to go on with it, or choose "
            "another output folder"
        )
    _check_output(run)
    archive = run.base / settings.image
    if not archive.is_file():
        raise NoImageError(
            f"there is no image {archive}, which container.image names; make it with `auditkit "
            f"package {launch.config_path} --trainer trainer.tar`, or with `auditkit image build`"
        )
    display.identifying(archive)
    image, files = inspect_with_files(archive)
    signature = (
        read_image_signature(run.base / settings.signature, image.manifest)
        if settings.signature
        else None
    )
    policy.check_image(_order(run), image.identity, signature)
    contained = contained_config(run.config, run.base, image.config)
    if run.config.code is not None:
        check_packaged_code(run.config.code, run.base, files)
    engine = Engine.connect()
    return _Prepared(
        launch=launch,
        settings=settings,
        image=image,
        files=files,
        signature=signature,
        contained=contained,
        engine=engine,
        image_id=bring_in(engine, archive, image, display.loading),
        folder=RunFolder.create(run.folder_path),
    )


def _check_output(run: Run) -> None:
    strangers = RunFolder(run.folder_path).strangers()
    if strangers:
        raise OutputFolderError(
            f"the output folder {run.folder_path} holds {', '.join(strangers[:3])}, which is no "
            "part of a run; the container sees and may change all of it, so choose a folder of "
            "its own"
        )


def _order(run: Run) -> AuditOrder:
    """Return the order, from the run folder when the session is open, else from the server."""
    root = trust.open_trust_root(run.trust_root_bytes(), datetime.now(UTC))
    folder = RunFolder(run.folder_path)
    if folder.grant.exists():
        data = folder.order.read()
    else:
        with run.client() as client:
            data = client.order(run.config.server.order)
    return trust.verify_statement(
        root, "order", dsse.Envelope.from_bytes(data), statements.ORDER_PREDICATE, AuditOrder
    )


def _label(folder: RunFolder) -> dict[str, str]:
    return {RUN_LABEL: sha256(bytes(folder.path.resolve())).hexdigest()}


def _remove_leftovers(engine: Engine, folder: RunFolder, display: LaunchDisplay) -> None:
    """Remove containers whose launcher was killed; the launch lock says that none is alive."""
    for container in engine.containers(_label(folder)):
        container.remove()
        display.removed(container.id)


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a folder that only we can enter; its path is short, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="auditkit-") as path:
        yield Path(path)


def hand_over(folder: Path, *, rootless: bool) -> tuple[int, int]:
    """Return who the agent inside is, and see to it that the run folder is theirs."""
    user = user_inside(rootless=rootless)
    if user == AGENT_USER:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *AGENT_USER, follow_symlinks=False)
    return user


def check_readable(path: Path) -> None:
    """Check that everybody may read a folder or file, as far as its first level tells.

    Raises:
        DataUnreadableError: not everybody may.
    """
    for one in (path, *(path.iterdir() if path.is_dir() else ())):
        needed = stat.S_IROTH | (stat.S_IXOTH if one.is_dir() else 0)
        if one.stat().st_mode & needed != needed:
            raise DataUnreadableError(
                f"root launches the container, inside it the agent is user {AGENT_USER[0]}, and "
                f"that user may not read {one}; let everybody read the data, for instance with "
                f"`chmod -R o+rX {path}`, or launch as an ordinary user"
            )


def _lockdown(prepared: _Prepared, relay: Relay, user: tuple[int, int]) -> Lockdown:
    settings, binds = prepared.settings, prepared.contained.binds
    return Lockdown(
        relay_folder=relay.socket_folder,
        output=prepared.folder.path.resolve(),
        pool=binds.get("pool"),
        test=binds.get("test"),
        user=user,
        memory_bytes=int(settings.memory_gib * GIB),
        # The engine may have been given fewer cores than the machine has, and refuses more.
        cpus=settings.cpus or float(prepared.engine.facts().cpus),
        most_processes=MOST_PROCESSES,
        gpus=tuple(settings.gpus.split(",")) if settings.gpus else (),
        terminal=prepared.launch.terminal,
        labels=_label(prepared.folder),
    )


def _watch(
    prepared: _Prepared,
    container: Container,
    relay: Relay,
    *,
    display: LaunchDisplay,
    stdout: BinaryIO,
    stderr: BinaryIO,
) -> int:
    """Check a container, start it, check it again, give it its task, and see it through."""
    image = prepared.image
    events: SimpleQueue[_Event] = SimpleQueue()
    container.check_files(prepared.files, display.checking)
    with _stop_signals(events):
        container.start()
        description = container.describe()
        containment.check_description(image.identity, image.config.decode(), description)
        display.started(prepared.engine.facts(), description)
        copying = threading.Thread(target=_copy, args=(container, stdout, stderr), daemon=True)
        copying.start()
        threading.Thread(target=_await_end, args=(container, events), daemon=True).start()
        relay.publish(_document(prepared, description))
        interrupted = False
        while True:
            event = events.get()
            if isinstance(event, EngineError):
                raise ContainerLostError(
                    f"{event}. What the auditor has acknowledged is safe; when the engine runs "
                    f"again, go on with `auditkit train {prepared.launch.config_path} --resume`"
                ) from event
            if event is not None:
                copying.join()
                if event == EXIT_KILLED:
                    display.killed(out_of_memory=container.out_of_memory)
                return event
            display.stopping()
            if interrupted:
                container.kill()
            else:
                container.interrupt()
            interrupted = True


def _document(prepared: _Prepared, description: ContainerDescription) -> LaunchDocument:
    launch = prepared.launch
    return LaunchDocument(
        image=prepared.image.identity,
        image_config=prepared.image.config.decode(),
        signature=prepared.signature,
        description=description,
        run=prepared.contained.config,
        trust_root=launch.run.trust_root_bytes().decode(),
        config_path=launch.config_path,
        resume=launch.resume,
        json_output=launch.as_json,
    )


def _copy(container: Container, stdout: BinaryIO, stderr: BinaryIO) -> None:
    with contextlib.suppress(EngineError):  # `_await_end` says so
        container.forward_output(stdout, stderr)


def _await_end(container: Container, events: "SimpleQueue[_Event]") -> None:
    try:
        events.put(container.wait())
    except EngineError as error:
        events.put(error)


@contextlib.contextmanager
def _stop_signals(events: "SimpleQueue[_Event]") -> Iterator[None]:
    """Turn SIGINT and SIGTERM into events; a SimpleQueue may be filled from a signal's handler."""
    before = {
        number: signal.signal(number, lambda *_: events.put(None))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
