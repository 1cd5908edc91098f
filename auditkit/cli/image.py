"""`image`: which container image it is, whether it is allowed, what differs; and building it."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from auditkit.cli.building import BuildProgress, WorkOption, check_writable, work_place
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, error_console, print_json, quoted
from schemas import AuditOrder, ImageIdentity

if TYPE_CHECKING:
    from collections.abc import Callable

    from containers.diff import FileChange, ImageDifference

EXIT_DIFFERENT = 1
SIGNS = {"added": "+", "removed": "-", "changed": "~"}

T = TypeVar("T")

ArchiveArgument = Annotated[
    Path,
    typer.Argument(
        metavar="ARCHIVE",
        help="The image in a file, from `docker save`, `podman save` or `skopeo copy`.",
    ),
]

image_app = typer.Typer(
    no_args_is_help=True,
    help="Identify, verify, compare, build and rebuild container images, from their files alone. "
    "None of this needs root, and no engine is believed.",
)


@image_app.command("identity")
def image_identity(
    archive: ArchiveArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the identity as JSON.")] = False,
) -> None:
    """Recompute which image a saved archive contains, from every byte of it.

    The [bold]image[/bold] digest is what an order's `images` lists. It covers the
    configuration (entry point, environment, user) and, through it, every
    uncompressed layer, so it does not depend on how the image was saved.
    `docker image inspect` shows it as the Id, but an engine that keeps images
    in containerd's store shows the manifest digest there.

        docker save --output training.tar training:1.0
        auditkit image identity training.tar
    """
    _print_result(_identify(archive), as_json=as_json)


@image_app.command("verify")
def image_verify(
    archive: ArchiveArgument,
    order: Annotated[
        Path,
        typer.Option("--order", help="The signed order, from `auditkit order create --output`."),
    ],
    trust_root: Annotated[
        Path, typer.Option("--trust-root", help="The auditor's trust root, received out of band.")
    ],
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature",
            help="What `cosign download signature` gave, where the order allows images by key.",
        ),
    ] = None,
) -> None:
    """Check that a saved image is one that a signed order, now in force, allows.

    Exit code 0 when it is, 1 when it is not, or when anything on the way does not hold.

        auditkit image verify training.tar --order order.json --trust-root trust-root.json
    """
    from auditkit.evidence.policy import check_image, check_order_in_force
    from containers.identity import inspect_image
    from containers.signature_file import read_image_signature

    now = datetime.now(UTC)
    opened = _open_order(order, trust_root, now)
    check_order_in_force(opened, now)
    image = _read(lambda: inspect_image(archive), f"hashing every byte of {archive}")
    signed = None if signature is None else read_image_signature(signature, image.manifest)
    check_image(opened, image.identity, signed)
    print_identity(image.identity)
    console.print(f"[green]allowed[/green] by order {opened.order_id} of {opened.auditor}")


@image_app.command("diff")
def image_diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="The one image, in a file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other image, in a file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
) -> None:
    """Show what differs between two saved images, configuration and files, both verified first.

    A line beginning with + is only in B, - only in A, ~ in both and not the
    same. Times of files are not compared, as two builds of the same files
    differ in them. Exit code 0 when both are the same image, 1 when not.

        auditkit image diff allowed.tar found.tar
    """
    from containers.diff import compare

    difference = _read(lambda: compare(first, second), f"comparing {first} and {second}")
    if as_json:
        print_json(difference.as_json())
    else:
        _print_difference(difference)
    if not difference.is_same_image:
        sys.exit(EXIT_DIFFERENT)


@image_app.command("base")
def image_base(
    output: Annotated[Path, typer.Option("--output", "-o", help="The archive to write.")],
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            "--mirror",
            help="Debian mirror: an address, a line or a file of apt's sources. Repeatable. "
            "Default: this machine's own if it runs that release, else Debian's.",
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option("--suite", help="Debian release; its Python must be 3.11.")
    ] = "bookworm",
    work: WorkOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the identity as JSON.")] = False,
) -> None:
    r"""Make a base with Python from Debian packages, where no registry can be reached.

    Needs [cyan]mmdebstrap[/cyan], no root and no engine; takes half a minute.
    The same packages give the same image; a mirror moves on, so keep the file,
    or name a snapshot:

        auditkit image base --output base.tar
        auditkit image base --output base.tar \
            --mirror http://snapshot.debian.org/archive/debian/20260101T000000Z
    """
    from containers.base import build_base

    check_writable(output)
    with work_place(work) as place, BuildProgress(error_console) as progress:
        identity = build_base(
            output, place, suite=suite, mirrors=tuple(mirror or ()), progress=progress
        )
    _print_result(identity, as_json=as_json)


@image_app.command("build")
def image_build(
    output: Annotated[Path, typer.Option("--output", "-o", help="The archive to write.")],
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            help="Archive of the base. Default: the published slim Python image, by its digest, "
            "which the container engine fetches.",
        ),
    ] = None,
    work: WorkOption = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Leave the prepared files in the work folder, for `docker build`."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the identity as JSON.")] = False,
) -> None:
    """Build the trainer's image: base, pinned packages, this toolkit.

    Reproducible: the same base, packages and version of auditkit give the same
    image, anywhere. Needs no root and no engine, 14 GB of disk for a while, and
    pip's usual way to an index. About three minutes.

        auditkit image base --output base.tar
        auditkit image build --base base.tar --output trainer.tar
    """
    from containers.build import build_trainer, default_recipe
    from containers.pull import pull_base

    check_writable(output)
    with work_place(work, keep=keep) as place, BuildProgress(error_console) as progress:
        if base is None:
            base = place / "base.tar"
            pull_base(default_recipe().default_base, base, progress)
        identity = build_trainer(base, output, place, progress)
    if keep:
        error_console.print(f"kept {quoted(place)}; remove it when you are done", soft_wrap=True)
    _print_result(identity, as_json=as_json)


@image_app.command("rebuild")
def image_rebuild(
    archive: ArchiveArgument,
    base: Annotated[
        Path, typer.Option("--base", help="Archive of the base, from a source that you trust.")
    ],
    code: Annotated[
        Path | None,
        typer.Option(
            "--code",
            metavar="CONFIG",
            help="The run's TOML file, where the archive is from `auditkit package`. Data are "
            "taken in if the archive has them.",
        ),
    ] = None,
    work: WorkOption = None,
) -> None:
    """Build an image again from your own inputs, and compare.

    Takes this installation of auditkit, its pinned packages and your base. Exit
    code 0 when that gives the same image, 1 and the difference when not.

        auditkit image rebuild trainer.tar --base base.tar
        auditkit image rebuild image.tar --base base.tar --code run.toml
    """
    from auditkit.cli.packaging import package_run, read_config
    from containers.build import build_trainer
    from containers.diff import compare
    from containers.identity import inspect_image
    from containers.package import packaged

    config = None if code is None else read_config(code)
    expected = _read(lambda: inspect_image(archive), f"hashing every byte of {archive}")
    with work_place(work) as place, BuildProgress(error_console) as progress:
        rebuilt = place / "rebuilt.tar"
        identity = build_trainer(base, rebuilt, place, progress)
        if code is not None and config is not None:
            trainer = rebuilt.rename(place / "trainer.tar")
            parts = packaged(expected.config).data
            identity = package_run(config, code, trainer, rebuilt, parts, progress)
            trainer.unlink()
        progress("comparing")
        is_same = identity.config_digest == expected.identity.config_digest
        difference = None if is_same else compare(archive, rebuilt)
    if difference is not None:
        _print_difference(difference)
        sys.exit(EXIT_DIFFERENT)
    print_identity(identity)
    console.print("[green]the same image[/green]")


def _print_result(identity: ImageIdentity, *, as_json: bool) -> None:
    if as_json:
        print_json(identity.as_json())
    else:
        print_identity(identity)


def _identify(archive: Path) -> ImageIdentity:
    from containers.identity import identify

    return _read(lambda: identify(archive), f"hashing every byte of {archive}")


def _open_order(order: Path, trust_root: Path, now: datetime) -> AuditOrder:
    from auditkit.evidence import dsse, statements
    from auditor_server.trust_files import TrustFile

    history = _read(TrustFile(trust_root).read, "reading the trust root")
    history.check_current(now)
    envelope = dsse.Envelope.from_bytes(_read(order.read_bytes, "reading the order"))
    return history.verify_statement(
        "order",
        envelope,
        statements.ORDER_PREDICATE,
        AuditOrder,
        dated=lambda order: order.issued_at,
    )


def _read(action: "Callable[[], T]", what: str) -> T:
    try:
        with error_console.status(what):
            return action()
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error


def print_identity(identity: ImageIdentity) -> None:
    """Print which image it is."""
    source = "of the archive" if identity.manifest_source == "archive" else "derived"
    console.print(f"image     {identity.config_digest}", soft_wrap=True)
    console.print(f"manifest  {identity.manifest_digest}  ({source})", soft_wrap=True)
    for number, diff_id in enumerate(identity.diff_ids, start=1):
        console.print(f"layer {number:<3} {diff_id}", soft_wrap=True)
    console.print(f"archive   {identity.archive_digest}", soft_wrap=True)


def _print_difference(difference: "ImageDifference") -> None:
    console.print(f"A  {difference.first.config_digest}", soft_wrap=True)
    console.print(f"B  {difference.second.config_digest}", soft_wrap=True)
    for field in difference.config:
        _print_line(f"~ {field.field}: {field.before!r} -> {field.after!r}")
    for file in difference.files:
        _print_line(f"{SIGNS[file.kind]} {file.path}{_details(file)}")
    if difference.is_same_image:
        console.print("the same image")
        return
    console.print(
        f"{len(difference.config)} fields of the configuration and {len(difference.files)} files "
        "differ"
    )


def _details(change: "FileChange") -> str:
    details = []
    for name in change.changed:
        before, after = getattr(change.before, name), getattr(change.after, name)
        shown = (oct(before), oct(after)) if name == "mode" else (str(before), str(after))
        details.append(f"{name} {shown[0]} -> {shown[1]}")
    return f"  ({', '.join(details)})" if details else ""


def _print_line(text: str) -> None:
    """Print text of an image so that it cannot steer the terminal."""
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
    console.print(shown, markup=False, soft_wrap=True)
