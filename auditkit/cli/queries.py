"""`query` and `report`: what a submitted model says, and the document for the desk."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from auditkit.cli.connection import ServerOption, TokenFileOption, connect
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, print_json, quoted, visible

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
PLAIN_WORDS = {
    "member": "[bold]told to the model as a training sample[/bold]",
    "not_shown": "not shown to be a training sample",
}
RESTS_ON = {
    "declared": "own code",
    "calibrated": "calibration",
    "undeclared": "set of samples",
}
MEANING = {
    "declared": (
        "Own code: a sample that was never told agrees so well with its own code in at most this "
        "share of cases, whatever it looks like. That is proven, and rests on no other sample."
    ),
    "calibrated": (
        "Calibration: the p-value is the rank among samples that nobody was shown. It holds for "
        "strangers drawn like those, on average over the samples that could have been drawn, and "
        "says less about others."
    ),
    "undeclared": "Set of samples: the p-value is of all of them together, and of none alone.",
}


def query(
    session: Annotated[str, typer.Argument(metavar="MODEL", help="Session of the model.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Images, or folders.")],
    server: ServerOption,
    token_file: TokenFileOption = None,
    false_positive_rate: Annotated[
        float | None,
        typer.Option(
            "--fpr",
            min=0.0,
            max=1.0,
            help="How often a stranger may be called a member. Default: the order's rate.",
        ),
    ] = None,
    openings: Annotated[
        list[Path] | None,
        typer.Option(
            "--opening",
            metavar="FILE",
            help="What opens the image as a sample of the pool (`auditkit open`), to ask the model "
            "for its own code. One for each image, in their order, or none.",
        ),
    ] = None,
    purpose: Annotated[
        str | None,
        typer.Option(
            "--purpose",
            metavar="TEXT",
            envvar="AUDITKIT_PURPOSE",
            help="Why you ask, for the server's audit trail: for example the number of a "
            "complaint. Only auditors may leave it out.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the signed verdicts.")] = False,
) -> None:
    """Was this picture used? One signed verdict per image, at an exact false-positive rate.

    Of a model with membership codes, an image with its opening is asked for its own code, and any
    other image for the code of any member.
    """
    from auditkit.evidence import canonical, dsse, statements
    from schemas import AssuranceLevel, MembershipVerdict

    files = _image_files(images)
    contents = [(visible(file.name), file.read_bytes()) for file in files]
    opened = _openings(openings or [], len(files))
    with connect(server, token_file) as client:
        answer = client.query(
            session,
            contents,
            false_positive_rate=false_positive_rate,
            openings=opened,
            purpose=purpose,
        )
    envelopes = [canonical.to_bytes(verdict) for verdict in answer.verdicts]
    verdicts = [
        statements.parse(
            dsse.Envelope.from_bytes(data).payload, statements.VERDICT_PREDICATE, MembershipVerdict
        )
        for data in envelopes
    ]
    adjusted = answer.adjusted_p_values
    if as_json:
        print_json(
            [
                {
                    "file": str(file),
                    "verdict": verdict.as_json(),
                    "adjusted_p_value": p_value,
                    "envelope": canonical.parse(data),
                }
                for file, verdict, p_value, data in zip(
                    files, verdicts, adjusted, envelopes, strict=True
                )
            ]
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    codes = any(verdict.code_index is not None for verdict in verdicts)
    for heading in ("image", "p-value", "adjusted", "rests on", "verdict"):
        table.add_column(heading)
    if codes:
        table.add_column("code of sample", justify="right")
    for file, verdict, p_value in zip(files, verdicts, adjusted, strict=True):
        table.add_row(
            quoted(file.name),
            f"{verdict.p_value:.4g}",
            f"{p_value:.4g}",
            RESTS_ON[verdict.evidence],
            PLAIN_WORDS[verdict.outcome],
            *([str(verdict.code_index)] if codes else []),
        )
    console.print(table)
    rate = verdicts[0].false_positive_rate
    kinds = {verdict.evidence for verdict in verdicts}
    meanings = "\n".join(text for kind, text in MEANING.items() if kind in kinds)
    level = verdicts[0].level
    replayed = (
        "How probable it is that its replay missed a forgery: `auditkit verify`, or the report.\n"
        if level >= AssuranceLevel.L3
        else ""
    )
    console.print(
        f"\nAssurance level {level.name}: {level.meaning}.\n{replayed}"
        f"At a false-positive rate of {rate:g}: of 1,000 strangers, {1000 * rate:g} are called "
        "members on average.\n"
        + meanings
        + "\nThe adjusted p-values are for the different images among these together "
        "(Benjamini and Hochberg).\nThe model knows what it was told. A sample that was "
        "trained on in silence looks like a stranger."
    )


def report(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Session to report on.")],
    server: ServerOption,
    token_file: TokenFileOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the page.")] = Path(
        "report.html"
    ),
) -> None:
    """Write the report of a session: one self-contained HTML page."""
    with connect(server, token_file) as client:
        page = client.report(session)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error
    console.print(f"wrote {quoted(output)} ({len(page) / 1e3:.0f} kB); open it in any browser")


def _openings(paths: list[Path], images: int) -> list[bytes]:
    if paths and len(paths) != images:
        raise UsageError(
            f"{len(paths)} openings for {images} images; give one --opening for each image, in "
            "their order, or none"
        )
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise UsageError(f"cannot read the opening {error.filename}: {error.strerror}") from error


def _image_files(paths: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise UsageError(f"the folder {path} holds no image ({', '.join(IMAGE_SUFFIXES)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f"there is no image {path}")
    return files
