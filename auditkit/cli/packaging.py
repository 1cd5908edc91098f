"""`package`: close the developer's code, and the data if wanted, into an image."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditkit.cli.building import BuildProgress, check_writable
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, print_json, quoted

if TYPE_CHECKING:
    from containers.progress import Progress
    from developer_agent.run_config import RunConfig
    from schemas import ImageIdentity

DATA = ("pool", "test")


def package(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="The run's TOML file; see examples/.")
    ],
    trainer: Annotated[
        Path,
        typer.Option("--trainer", help="The trainer's image, from `auditkit image build`."),
    ],
    include_data: Annotated[
        bool,
        typer.Option(
            "--include-data",
            help="Close the data in as well; else they are mounted, read-only, when training.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The archive to write. Default: container.image of the configuration.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the identity as JSON.")] = False,
) -> None:
    """Close the training code of a configuration into an image, ready for the auditor's list.

    Adds one layer to the trainer's image: the files that code.loop and
    code.files name, and with --include-data the pool and the test set. The same
    inputs give the same image. Send the auditor the [bold]image[/bold] digest.

        auditkit package run.toml --trainer trainer.tar
    """
    from auditkit.cli.image import print_identity

    loaded = read_config(config)
    target = output or _configured_image(loaded, config)
    check_writable(target)
    with BuildProgress(error_console) as progress:
        identity = package_run(
            loaded, config, trainer, target, DATA if include_data else (), progress
        )
    if as_json:
        print_json({"path": str(target), **identity.as_json()})
    else:
        console.print(f"written   {quoted(target)}", soft_wrap=True)
        print_identity(identity)


def read_config(path: Path) -> "RunConfig":
    """Read a run's configuration.

    Raises:
        RunConfigError: it cannot be read, or is not valid.
    """
    from developer_agent.run_config import parse_run_config, read_toml

    return parse_run_config(read_toml(path), str(path))


def package_run(
    config: "RunConfig",
    path: Path,
    trainer: Path,
    output: Path,
    data: Collection[str],
    progress: "Progress",
) -> "ImageIdentity":
    """Write the image of a run.

    Args:
        config: the run.
        path: of the configuration, which its own paths are relative to.
        trainer: the trainer's image.
        output: the archive to write.
        data: which of `DATA` are closed in; those that no path leads to need not be.
        progress: is told how far it is.

    Raises:
        OSError: a file cannot be read or written.
        AgentError: the configuration names code that is not there.
        ContainerError: the trainer's image does not hold, or a file cannot be put into a layer.
    """
    from containers.package import package as write_package
    from developer_agent.source_files import source_files

    folder = path.resolve().parent
    sources = {"pool": config.pool.path, "test": config.test.path}
    return write_package(
        trainer,
        output,
        root=folder,
        code=[] if config.code is None else [one.name for one in source_files(config.code, folder)],
        loop=None if config.code is None else config.code.loop,
        data={
            name: folder / place
            for name, place in sources.items()
            if name in data and place is not None
        },
        progress=progress,
    )


def _configured_image(config: "RunConfig", path: Path) -> Path:
    if config.container is None:
        raise UsageError(
            f"{path} names no image (container.image); add it, or say with --output where to "
            "write the archive"
        )
    return path.resolve().parent / config.container.image
