"""`train`, `sync`, `submit` and `open`: what a developer does under supervision."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from auditkit.cli.cohorts import print_cohorts
from auditkit.cli.connection import read_token
from auditkit.cli.errors import UsageError
from auditkit.cli.output import (
    console,
    error_console,
    holds,
    print_error,
    print_json,
    print_verification,
    quoted,
)
from auditkit.cli.png import write_png

if TYPE_CHECKING:
    from developer_agent.run_config import RunConfig
    from developer_agent.run_folder import RunFolder
    from developer_agent.supervised_run import Run, RunResult
    from developer_agent.trainer import Cohorts

EXIT_NOT_VERIFIED = 1
EXIT_UNACKNOWLEDGED = 3
EXIT_INTERRUPTED = 130

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The run's TOML file; see examples/.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, e.g. --set training.epochs=2 --set pool.path=/data. Repeatable.",
    ),
]


def train(
    config: ConfigArgument,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the output folder.")
    ] = False,
    no_container: Annotated[
        bool,
        typer.Option(
            "--no-container",
            help="Train in a plain process, to try things out. Is recorded, caps the level at L1.",
        ),
    ] = False,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model under supervision: open a session, train, stream the log, seal, submit.

    Trains in the closed container that the configuration names as container.image: no network, no
    capabilities, a read-only root, and every byte of the image verified before it starts.

    Exit code 0 when the submission verifies, 1 when it does not, 3 when the auditor's server does
    not have everything yet (the message names the command to run then), 130 after Ctrl-C, 137
    when the container was killed.

        auditkit train my-run.toml
        auditkit train examples/digits.toml --no-container
    """
    run = _run(config, overrides)
    if no_container:
        supervise(run, str(config), resume=resume, as_json=as_json)
        return
    code = train_in_container(run, str(config), resume=resume, as_json=as_json)
    if code:
        sys.exit(code)


def supervise(run: "Run", config_path: str, *, resume: bool, as_json: bool) -> None:
    """Train in this very process, show it, and end with the exit code of `auditkit train`."""
    from auditkit.cli.progress import ProgressDisplay
    from developer_agent import trainer

    screen = Console(quiet=True) if as_json else console
    try:
        with ProgressDisplay(screen) as display:
            result, cohorts = trainer.train(run, display, resume=resume)
    except KeyboardInterrupt:
        safe = "Everything recorded" if run.container is None else "What the auditor acknowledged"
        print_error(
            f"stopped. {safe} is safe in the run folder; go on with\n"
            f"  auditkit train {config_path} --resume{_mode(run)}"
        )
        sys.exit(EXIT_INTERRUPTED)
    _finish(result, cohorts, run, config_path, as_json=as_json)


def _mode(run: "Run") -> str:
    """Return the option that a command for this run must repeat."""
    return " --no-container" if run.container is None else ""


def train_in_container(
    run: "Run", config_path: str, *, resume: bool = False, as_json: bool = False
) -> int:
    """Train in the closed container, show it, and return the exit code of `auditkit train`."""
    from auditkit.cli.launching import LaunchProgress
    from developer_agent import launcher

    size = shutil.get_terminal_size()
    launch = launcher.Launch(
        run=run,
        config_path=config_path,
        resume=resume,
        as_json=as_json,
        terminal=(size.lines, size.columns) if sys.stdout.isatty() and not as_json else None,
    )
    with LaunchProgress(error_console) as display:
        return launcher.train_in_container(launch, display, sys.stdout.buffer, sys.stderr.buffer)


def sync(
    config: ConfigArgument,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Send what the auditor does not have yet, and submit the model if the log is sealed.

    For runs whose server was away. Needs neither the data nor the training environment.
    """
    from auditkit.evidence.trust import open_trust_root
    from developer_agent.run_folder import RunFolder
    from developer_agent.uplink import sync as send

    run = _run(config, overrides)
    folder = RunFolder(run.folder_path)
    root = open_trust_root(folder.trust_root.read(), datetime.now(UTC))
    with run.client() as client, Progress(console=console, disable=as_json) as progress:
        task = progress.add_task("sending records", total=None)
        sent = send(
            folder,
            client,
            root,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        progress.update(task, completed=sent.sent, total=max(1, sent.sent))
    if not as_json:
        console.print(f"{sent.sent} records sent; the log has {sent.log_size}, all acknowledged")
    if sent.sealed:
        _finish(_submit(run, folder), {}, run, str(config), as_json=as_json)
    elif as_json:
        print_json({"sent": sent.sent, "sealed": False})
    else:
        console.print("the training is not finished; go on with `auditkit train --resume`")


def submit(
    config: ConfigArgument,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Hand the sealed model over (again); `train` and `sync` do this by themselves."""
    from developer_agent.run_folder import RunFolder

    run = _run(config, overrides)
    _finish(_submit(run, RunFolder(run.folder_path)), {}, run, str(config), as_json=as_json)


def open_one(
    config: ConfigArgument,
    sample: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLE", help="Index of a sample of the pool, or an image with its pixels."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the opening.")],
    image: Annotated[
        Path | None, typer.Option("--image", help="Write the sample here as well, as PNG.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Open one sample of the pool, so that the auditor can ask the model for its own code.

    Whoever has the opening can show that the image is that sample, and can ask for a p-value that
    rests on nothing but the secret of the codes. It opens no other sample.

        auditkit open my-run.toml 17 --output opening.json --image sample.png
        auditkit open my-run.toml photo.png --output opening.json
    """
    from auditkit.data.images import decode_image
    from auditkit.data.pools import open_pool
    from developer_agent.openings import find_sample, open_sample
    from developer_agent.run_folder import RunFolder

    loaded = load_config(config, overrides)
    base = config.resolve().parent
    pool = open_pool(loaded.pool, base)
    if sample.isdecimal():
        index = int(sample)
    else:
        try:
            data = Path(sample).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read the image {sample}: {error.strerror}") from error
        index = find_sample(pool, decode_image(data, *pool.shape, name=sample))
    opening = open_sample(RunFolder(base / loaded.output), pool, index)
    try:
        output.write_bytes(opening.model_dump_json().encode() + b"\n")
        if image is not None:
            write_png(image, pool.images[index])
    except OSError as error:
        raise UsageError(f"cannot write {error.filename}: {error.strerror}") from error
    console.print(f"opened sample {index} in {quoted(output)}; send it with the query:")
    console.print(f"  auditkit query SESSION IMAGE --opening {quoted(output)}", markup=False)


def _submit(run: "Run", folder: "RunFolder") -> "RunResult":
    from developer_agent.session import read_grant
    from developer_agent.supervised_run import submit as hand_over

    with run.client() as client:
        return hand_over(read_grant(folder).session_id, folder, client)


def _run(config: Path, overrides: list[str] | None) -> "Run":
    loaded = load_config(config, overrides)
    base = config.resolve().parent
    token_file = loaded.server.token_file
    token = read_token(None if token_file is None else base / token_file)
    # Only now, since it loads torch: a mistyped setting is told at once.
    from developer_agent.supervised_run import Run

    return Run(loaded, base, token)


def load_config(config: Path, overrides: list[str] | None) -> "RunConfig":
    """Read a run's TOML file, with the settings that were changed on the command line."""
    from auditkit.cli.overrides import apply_overrides
    from developer_agent.run_config import parse_run_config, read_toml

    return parse_run_config(apply_overrides(read_toml(config), overrides or []), str(config))


def _finish(
    result: "RunResult", cohorts: "Cohorts", run: "Run", config_path: str, *, as_json: bool
) -> None:
    from developer_agent.supervised_run import RunOutcome

    if as_json:
        print_json(
            {
                "session_id": result.session_id,
                "outcome": result.outcome.value,
                "unacknowledged": result.unacknowledged,
                "problem": result.problem,
                "cohorts": {name: m.as_json() for name, m in cohorts.items()},
                "verification": result.report.as_json() if result.report else None,
            }
        )
    if result.outcome is RunOutcome.UNACKNOWLEDGED:
        what = (
            f"{result.unacknowledged} records unacknowledged"
            if result.unacknowledged
            else "the model is not submitted"
        )
        command = (
            f"auditkit train {config_path} --resume"
            if run.container is not None and result.unacknowledged
            else f"auditkit sync {config_path}"
        )
        kept = (
            "what the auditor has not acknowledged will be trained again"
            if run.container is not None and result.unacknowledged
            else "safe on disk"
        )
        print_error(
            f"{what}: {result.problem}.\nThe training is complete, and {kept}; when the server is "
            f"back, run\n  {command}"
        )
        sys.exit(EXIT_UNACKNOWLEDGED)
    if result.report is None:
        raise UsageError("the run ended without a verification")
    if not as_json:
        if cohorts:
            print_cohorts(list(cohorts.values()))
        print_verification(result.report)
    if not holds(result.report):
        sys.exit(EXIT_NOT_VERIFIED)
