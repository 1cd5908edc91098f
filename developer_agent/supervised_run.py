"""One supervised run from its configuration to its submission, around any training loop.

run = Run.from_file(Path("my-run.toml"), token)
with supervised(run, user_code=[Path(__file__)]) as current:
    supervision = current.supervision
    supervision.enhance(MyModel())      # or nothing: the configured architecture
    ...                                 # the loop of `developer_agent.supervision`
    supervision.seal()
    print(current.finish())
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from auditkit.data.fit import check_pool
from auditkit.data.pools import Pool, open_pool
from developer_agent.client import ServerClient
from developer_agent.codes import fetch_codes
from developer_agent.committer import Committer
from developer_agent.continuation import continue_session
from developer_agent.environment import SourceFile, make_deterministic
from developer_agent.errors import AgentError, RunFileMissingError, ServerError
from developer_agent.remote_mint import RemoteMint
from developer_agent.run_config import RunConfig, parse_run_config, read_toml
from developer_agent.run_folder import RunFolder
from developer_agent.session import Session, load_session, open_session
from developer_agent.source_files import source_files
from developer_agent.spool import Spool
from developer_agent.supervision import StepProgress, Supervision
from developer_agent.uplink import Uplink, UplinkState
from schemas import ContainerRun, SessionRequest, VerificationReport

DRAIN_SECONDS = 30.0  # how long the end of a run waits for the auditor's server
INTERRUPTED_DRAIN_SECONDS = 5.0  # somebody waits for their prompt
SILENT_SERVER = "the auditor's server does not answer"


class RunExistsError(AgentError):
    """The run folder holds a run already, and resuming was not asked for."""


class RunOutcome(Enum):
    """How a run ended."""

    SUBMITTED = "submitted"
    UNACKNOWLEDGED = "unacknowledged"


@dataclass(frozen=True)
class RunResult:
    """What the auditor has of a finished run."""

    session_id: str
    outcome: RunOutcome
    unacknowledged: int = 0
    report: VerificationReport | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Run:
    """One configured run.

    Attributes:
        config: what to train, where.
        base: folder that the paths in `config` are relative to.
        token: the developer's; None in a container, where the relay has it.
        container: the one that this process runs in.
        socket: the relay's Unix socket; None: the server is reached directly.
        trust_root: the auditor's; None: it lies where `config` says.
        code_folder: folder that the paths in `config.code` are relative to; None: `base`.
    """

    config: RunConfig
    base: Path
    token: str | None
    container: ContainerRun | None = None
    socket: Path | None = None
    trust_root: bytes | None = None
    code_folder: Path | None = None

    @classmethod
    def from_file(cls, path: Path, token: str) -> "Run":
        """Read a run's TOML file.

        Raises:
            RunConfigError: it cannot be read, or breaks the schema.
        """
        return cls(parse_run_config(read_toml(path), str(path)), path.resolve().parent, token)

    @property
    def folder_path(self) -> Path:
        """Where the run lives."""
        return self.base / self.config.output

    @property
    def code_path(self) -> Path:
        """Where the developer's own training code lies."""
        return self.base if self.code_folder is None else self.code_folder

    def client(self) -> ServerClient:
        """Return a new client for the auditor's server."""
        return ServerClient(self.config.server.url, self.token, socket=self.socket)

    def trust_root_bytes(self) -> bytes:
        """Return the trust root that the auditor handed over.

        Raises:
            RunFileMissingError: there is no such file.
        """
        if self.trust_root is not None:
            return self.trust_root
        path = self.base / self.config.server.trust_root
        try:
            return path.read_bytes()
        except OSError as error:
            raise RunFileMissingError(
                f"cannot read the auditor's trust root {path}: {error.strerror}; ask the auditor "
                "for it and name it in the configuration as server.trust_root"
            ) from error


@dataclass(frozen=True)
class SupervisedRun:
    """A run under way: its session, the supervision of its loop, and the way to the auditor."""

    session: Session
    supervision: Supervision
    sealed_before: bool
    """True when an earlier process has sealed this run: only `finish` is left to do."""
    _uplink: Uplink
    _client: ServerClient

    @property
    def uplink_state(self) -> UplinkState:
        """How far the auditor is behind."""
        return self._uplink.state

    def finish(self, drain_seconds: float = DRAIN_SECONDS) -> RunResult:
        """Send what is left, for a bounded time, and hand the sealed model over."""
        session_id = self.session.grant.session_id
        remaining = self._uplink.drain(drain_seconds)
        if remaining:
            error = self._uplink.state.error
            return RunResult(
                session_id=session_id,
                outcome=RunOutcome.UNACKNOWLEDGED,
                unacknowledged=remaining,
                problem=str(error) if error else SILENT_SERVER,
            )
        return submit(session_id, self.session.folder, self._client)


@contextmanager
def supervised(
    run: Run,
    *,
    resume: bool = False,
    user_code: Sequence[Path] = (),
    on_resume: Callable[[int, int], None] = lambda _step, _discarded: None,
    on_step: Callable[[StepProgress, UplinkState], None] = lambda _progress, _uplink: None,
    on_sealing: Callable[[], None] = lambda: None,
) -> Iterator[SupervisedRun]:
    """Open a session, or the one that was broken off, and supervise a training loop under it.

    Args:
        run: what to train, and where.
        resume: go on with the run in the output folder.
        user_code: the developer's own source files, hashed into the code digest together with
            those that the configuration names.
        on_resume: told the step that training goes on from, and how many steps were lost.
        on_step: told about each recorded step and how far the auditor is behind.
        on_sealing: told that training is over and all cohorts are being scored.

    Raises:
        RunExistsError: the folder holds a run, and `resume` is false.
        RunMismatchError: data, code or configuration are not those of the run to resume.
        PoolShapeError: the data do not fit the model's configuration.
        SourceFileError: a source file is missing, or lies outside the code's folder.
        AgentError, EvidenceError, DataError: see the messages; nothing recorded is lost.
    """
    make_deterministic(run.config.training.threads)
    trust_root = run.trust_root_bytes()
    pool, test = open_pool(run.config.pool, run.base), open_pool(run.config.test, run.base)
    for what, data in (("pool", pool), ("test set", test)):
        check_pool(what, data, run.config.training.model)
    files = [SourceFile(path.name, path) for path in user_code]
    if run.config.code is not None:
        files += source_files(run.config.code, run.code_path)
    folder = RunFolder.create(run.folder_path)
    with folder.lock(), run.client() as client:
        session = _session(
            run,
            folder,
            client,
            trust_root=trust_root,
            pool=pool,
            test=test,
            user_code=files,
            resume=resume,
        )
        with Spool.open(folder.spool_path) as spool:
            if run.container is not None:
                session = continue_session(session, spool, client, run.container)
            committer = Committer.open(folder, spool, run.client(), session.trust_root, session.key)
            with (
                Uplink(
                    committer,
                    spool,
                    policy=session.order.outage_policy,
                    late_after_seconds=session.order.late_after_seconds,
                ) as uplink,
                Supervision(
                    session,
                    spool,
                    uplink.permit,
                    fetch_codes=lambda: fetch_codes(session, client),
                    remote_mint=(
                        RemoteMint(session, client)
                        if session.config.mint.custody == "auditor"
                        else None
                    ),
                    on_resume=on_resume,
                    on_step=lambda progress: on_step(progress, uplink.state),
                    on_sealing=on_sealing,
                ) as supervision,
            ):
                current = SupervisedRun(session, supervision, supervision.sealed, uplink, client)
                try:
                    yield current
                except KeyboardInterrupt:
                    if run.container is not None:
                        # The key ends with this process: what is not sent now never will be.
                        uplink.drain(INTERRUPTED_DRAIN_SECONDS)
                    raise


def submit(session_id: str, folder: RunFolder, client: ServerClient) -> RunResult:
    """Hand over M+, whose log the auditor has; a silent server leaves that for later.

    Raises:
        ServerError: the server refuses what it was handed.
    """
    held = _is_held(folder)
    parts = [folder.description] if held else [folder.weights, folder.description, folder.scores]
    for file in parts:
        if not file.exists():
            file.read()  # says what is missing
    paths = [file.path for file in parts]
    try:
        report = (
            client.submit_description(session_id, *paths)
            if held
            else client.submit(session_id, *paths)
        )
    except ServerError as error:
        if not error.temporary:
            raise
        return RunResult(session_id, RunOutcome.UNACKNOWLEDGED, problem=str(error))
    return RunResult(session_id, RunOutcome.SUBMITTED, report=report)


def _is_held(folder: RunFolder) -> bool:
    """Tell whether the auditor holds T of a run, and so has put M+ together."""
    return SessionRequest.from_bytes(folder.request.read()).config.mint.custody == "auditor"


def _session(
    run: Run,
    folder: RunFolder,
    client: ServerClient,
    *,
    trust_root: bytes,
    pool: Pool,
    test: Pool,
    user_code: Sequence[SourceFile],
    resume: bool,
) -> Session:
    config = run.config.training
    if folder.grant.exists():
        if not resume:
            raise RunExistsError(
                f"{folder.path} holds a run already; add --resume to go on with it, or choose "
                "another output folder"
            )
        return load_session(
            folder,
            config,
            pool,
            test,
            user_code=user_code,
            container=run.container,
            trust_root_bytes=trust_root,
        )
    return open_session(
        client,
        folder,
        trust_root_bytes=trust_root,
        order_id=run.config.server.order,
        developer=run.config.developer,
        config=config,
        pool=pool,
        test=test,
        user_code=user_code,
        container=run.container,
    )
