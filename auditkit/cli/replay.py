"""`draw`, `disclose` and `replay`: executing parts of a training again, to compare the outcome."""

import os
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from auditkit.cli.auditor import database_secret
from auditkit.cli.connection import ServerOption, TokenFileOption, connect
from auditkit.cli.developer import ConfigArgument, SetOption, load_config
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, print_json, quoted
from auditor_server.settings import DATABASE_URL_VARIABLE
from schemas import DrawRequest, PartResult, ReplayResult

if TYPE_CHECKING:
    from developer_agent.disclosing import Disclosure
    from developer_agent.replay_evidence import SealedSession
    from developer_agent.replay_runs import Runner
    from developer_agent.run_config import RunConfig

EXIT_DIFFERENT = 1
DEFAULT_UNIFORM = 3
SECRET_BYTES = 32

GOOD = frozenset({"exact", "within_tolerance"})
STYLES = {
    "exact": "green",
    "within_tolerance": "yellow",
    "differs": "bold red",
    "not_opened": "bold red",
    "not_checked": "dim",
}

COLUMNS = ("steps", "outcome", "seconds", "distance", "tolerance", "first differing step")

DrawOption = Annotated[Path, typer.Option("--draw", help="The signed draw, from `auditkit draw`.")]


def draw(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Identifier of the session.")],
    server: ServerOption,
    token_file: TokenFileOption = None,
    uniform: Annotated[
        int, typer.Option("--uniform", min=1, help="Segments drawn at random among all.")
    ] = DEFAULT_UNIFORM,
    largest: Annotated[
        int, typer.Option("--largest", min=0, help="Further segments, with the largest moves.")
    ] = 0,
    most_steps: Annotated[
        int | None,
        typer.Option(
            "--most-steps",
            min=1,
            help="Refuse to draw from longer segments, which no tolerance can judge.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the draw.")] = Path(
        "draw.json"
    ),
) -> None:
    """Draw segments of a sealed training, to be executed again.

    The last segment, which ends in the sealed weights, is in every draw. Each
    draw is signed, numbered and kept by the server, and goes into every bundle:
    nobody can draw until the segments suit. Hand the file to the developer, who
    opens these segments with [cyan]auditkit disclose[/cyan].

        auditkit draw SESSION --uniform 10 --largest 2 --output draw.json
    """
    asked = DrawRequest(uniform=uniform, largest=largest, most_steps=most_steps)
    with connect(server, token_file) as client:
        envelope = client.draw_segments(session, asked)
    _write(output, envelope.to_bytes())
    console.print(f"wrote {quoted(output)}; hand it to the developer, who opens it with")
    console.print(f"  auditkit disclose CONFIG --draw {output} --output packages", markup=False)


def disclose(
    config: ConfigArgument,
    draw_file: DrawOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the packages; is made if missing.")
    ],
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration", help="Open C as well, so that its scores can be computed again."
        ),
    ] = False,
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect",
            help="For a segment that the auditor disputes: execute it again, and write the digest "
            "of the state after every step.",
        ),
    ] = False,
    step: Annotated[
        int | None,
        typer.Option("--step", min=1, help="Open this one disputed step of a drawn segment."),
    ] = None,
    no_container: Annotated[
        bool,
        typer.Option(
            "--no-container", help="With --bisect or --step: the training ran in a plain process."
        ),
    ] = False,
    overrides: SetOption = None,
) -> None:
    """Open the segments that the auditor drew: two states and the samples of each.

    Every package is checked against the log before it is written. It contains
    the samples in clear: what a segment shows is a few hundred to a few
    thousand of the pool's, and only the auditor should get them. States must
    be kept until the auditor says that no more will be drawn.

        auditkit disclose my-run.toml --draw draw.json --output packages --calibration
        auditkit disclose my-run.toml --draw draw.json --output packages --bisect
    """
    from auditkit.data.pools import open_pool
    from developer_agent.disclosing import (
        Disclosure,
        write_package,
        write_packages,
        write_traces,
    )
    from developer_agent.run_folder import RunFolder
    from developer_agent.segment_package import package_path

    loaded = load_config(config, overrides)
    base = config.resolve().parent
    with error_console.status("reading the pool"):
        disclosure = Disclosure.of(
            RunFolder(base / loaded.output),
            open_pool(loaded.pool, base),
            _read(base / loaded.server.trust_root, "trust root"),
            _read(draw_file, "draw"),
            None if loaded.code is None else loaded.code.loop,
        )
    with ExitStack() as stack:
        if step is not None:
            runner = _developers_runner(loaded, base, stack, no_container=no_container)
            package = disclosure.step_package(step, runner)
            output.mkdir(parents=True, exist_ok=True)
            path = package_path(output, package.description.segment)
            write_package(package, path)
            _print_written(path)
        elif bisect:
            runner = _developers_runner(loaded, base, stack, no_container=no_container)
            write_traces(disclosure, output, runner, _print_written)
        else:
            write_packages(disclosure, output, calibration=calibration, on_written=_print_written)
    console.print(
        f"{_extent(disclosure)}; hand {quoted(output)} to the auditor, and to nobody else"
    )


def replay(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The evidence bundle, from `auditkit export`.")
    ],
    draw_file: DrawOption,
    packages: Annotated[
        Path, typer.Option("--packages", help="Folder that the developer's `disclose` wrote.")
    ],
    trust_root: Annotated[
        Path, typer.Option("--trust-root", help="The auditor's trust root, received out of band.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write the result.")
    ] = Path("result.json"),
    image: Annotated[
        Path | None, typer.Option("--image", help="The image that trained, in a file.")
    ] = None,
    no_container: Annotated[
        bool,
        typer.Option(
            "--no-container",
            help="The training ran in a plain process: execute it in one, with the code installed "
            "here.",
        ),
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="The auditor's home, for the secret of membership codes."),
    ] = None,
    code_secret: Annotated[
        Path | None,
        typer.Option("--code-secret", help="File with that secret instead: 32 bytes, or as hex."),
    ] = None,
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect", help="Find the first differing step, with what `disclose --bisect` gave."
        ),
    ] = False,
    submit: Annotated[
        bool,
        typer.Option("--submit", help="Hand the result to the server, which signs and keeps it."),
    ] = False,
    server: Annotated[
        str | None, typer.Option("--server", envvar="AUDITKIT_SERVER", help="For --submit.")
    ] = None,
    token_file: TokenFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    r"""Execute the drawn segments again, and compare with what the log commits to.

    Everything that the developer opened is checked against the log first. On
    a machine of the training's class (same torch, timm, threads and processor
    model) the states must be equal bit by bit. Elsewhere segments of at most
    five steps are judged by a tolerance, which is measured here, and the
    result is called weak.

    Exit code 0 when every segment holds, 1 when one differs or was not opened.

        auditkit replay evidence.bundle --draw draw.json --packages packages \
            --trust-root trust-root.json --image image.tar --output result.json
    """
    from developer_agent.replay_evidence import open_draw, open_packages
    from developer_agent.replaying import Replaying

    if (image is None) == (not no_container):
        raise UsageError("give the training's image with --image, or else --no-container")
    if submit and server is None:
        raise UsageError("--submit needs the server's address: --server, or AUDITKIT_SERVER")
    with error_console.status("verifying the bundle"):
        sealed = _open_sealed(bundle, trust_root, home, code_secret)
        drawn = open_draw(sealed, _read(draw_file, "draw"))
    with error_console.status("checking the packages"):
        opened = open_packages(sealed, drawn.document, packages)
    with ExitStack() as stack:
        result = Replaying(
            sealed,
            drawn,
            opened,
            _auditors_runner(image, stack),
            bisect=bisect,
            steps_folder=packages,
            say=lambda text: error_console.print(text, markup=False),
        ).run()
    _write(output, result.model_dump_json(indent=2).encode() + b"\n")
    if submit and server is not None:
        with connect(server, token_file) as client:
            client.add_replay(result.session_id, result)
    if as_json:
        print_json(result.as_json())
    else:
        _print_result(result, output)
    if not _holds(result):
        sys.exit(EXIT_DIFFERENT)


def _open_sealed(
    bundle: Path, trust_root: Path, home: Path | None, code_secret: Path | None
) -> "SealedSession":
    from auditkit.evidence.bundle import open_bundle
    from auditkit.evidence.trust_history import TrustHistory
    from developer_agent.replay_evidence import open_session

    now = datetime.now(UTC)
    history = TrustHistory.open(_read(trust_root, "trust root"))
    history.check_current(now)
    try:
        with bundle.open("rb") as file:
            contents = open_bundle(file)
            secret = _code_secret(contents.grant, home, code_secret)
            return open_session(contents, history, secret, now)
    except OSError as error:
        raise UsageError(f"cannot read the bundle {bundle}: {error.strerror}") from error


def _code_secret(grant: bytes, home: Path | None, file: Path | None) -> bytes | None:
    """Return the secret of the codes: from a file, or from the auditor's own database."""
    if file is not None:
        data = _read(file, "code secret")
        try:
            return data if len(data) == SECRET_BYTES else bytes.fromhex(data.decode().strip())
        except ValueError as error:
            raise UsageError(
                f"{file} holds no code secret, which is {SECRET_BYTES} bytes, or their digits"
            ) from error
    if home is None:
        return None
    from auditkit.evidence import dsse, statements
    from auditor_server.home import open_home
    from schemas import SessionGrant

    granted = statements.parse(
        dsse.Envelope.from_bytes(grant).payload, statements.GRANT_PREDICATE, SessionGrant
    )
    database_url = database_secret(os.environ.get(DATABASE_URL_VARIABLE))
    store = open_home(home).open_store(database_url)
    try:
        return store.code_secret(granted.session_id)
    finally:
        store.close()


def _auditors_runner(image: Path | None, stack: ExitStack) -> "Runner":
    from developer_agent.replay_runs import ProcessRunner

    return ProcessRunner() if image is None else _container_runner(image, stack)


def _developers_runner(
    config: "RunConfig", base: Path, stack: ExitStack, *, no_container: bool
) -> "Runner":
    from developer_agent.replay_runs import ProcessRunner
    from developer_agent.source_files import source_files

    if config.container is not None and not no_container:
        return _container_runner(base / config.container.image, stack)
    if config.code is None:
        return ProcessRunner()
    files = source_files(config.code, base)
    return ProcessRunner(tuple(file.name for file in files), base)


def _container_runner(image: Path, stack: ExitStack) -> "Runner":
    from auditkit.cli.launching import LaunchProgress
    from developer_agent.replay_container import ContainerRunner

    display = stack.enter_context(LaunchProgress(error_console))
    return ContainerRunner(image, display, sys.stderr.buffer)


def _holds(result: ReplayResult) -> bool:
    parts = {result.initialisation.outcome, result.scores.outcome}
    return {one.outcome for one in result.segments} <= GOOD and parts <= GOOD | {"not_checked"}


def _print_result(result: ReplayResult, output: Path) -> None:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in COLUMNS:
        shown.add_column(heading)
    for one in result.segments:
        shown.add_row(
            f"{one.segment.first_state_step + 1} to {one.segment.last_state_step}",
            _styled(one.outcome),
            f"{one.seconds:.1f}",
            _number(one.distance),
            _number(one.tolerance),
            "" if one.first_differing_step is None else str(one.first_differing_step),
        )
    for what, part in (("initial state", result.initialisation), ("scores of C", result.scores)):
        shown.add_row(what, _styled(part.outcome), "", *_numbers(part), "")
    console.print(shown)
    executed = sum(one.steps for one in result.segments)
    verdict = "[green]holds[/green]" if _holds(result) else "[bold red]does NOT hold[/bold red]"
    console.print(
        f"\n{executed} steps executed again, {result.grade}: the training {verdict}; wrote "
        f"{quoted(output)}"
    )


def _numbers(part: PartResult) -> tuple[str, str]:
    return _number(part.distance), _number(part.tolerance)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _styled(outcome: str) -> str:
    return f"[{STYLES[outcome]}]{outcome.replace('_', ' ')}[/{STYLES[outcome]}]"


def _extent(disclosure: "Disclosure") -> str:
    steps = sum(segment.steps for segment in disclosure.segments)
    return f"{len(disclosure.segments)} segments of {steps} steps"


def _print_written(path: Path) -> None:
    console.print(f"wrote {quoted(path)} ({path.stat().st_size / 1e6:.1f} MB)")


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
