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
    as_json: Annotated[bool, typer.Option("--json", help="Print the signed verdicts.")] = False,
) -> None:
    """Was this picture used? One signed verdict per image, at an exact false-positive rate."""
    from auditkit.evidence import canonical, dsse, statements
    from auditkit.mint.calibration import control_false_discoveries
    from schemas import MembershipVerdict

    files = _image_files(images)
    contents = [(visible(file.name), file.read_bytes()) for file in files]
    with connect(server, token_file) as client:
        envelopes = client.query(session, contents, false_positive_rate)
    verdicts = [
        statements.parse(
            dsse.Envelope.from_bytes(data).payload, statements.VERDICT_PREDICATE, MembershipVerdict
        )
        for data in envelopes
    ]
    adjusted = control_false_discoveries([verdict.p_value for verdict in verdicts])
    if as_json:
        print_json(
            [
                {
                    "file": str(file),
                    "verdict": verdict.as_json(),
                    "adjusted_p_value": float(p_value),
                    "envelope": canonical.parse(data),
                }
                for file, verdict, p_value, data in zip(
                    files, verdicts, adjusted, envelopes, strict=True
                )
            ]
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("image", "p-value", "adjusted", "verdict"):
        table.add_column(heading)
    for file, verdict, p_value in zip(files, verdicts, adjusted, strict=True):
        table.add_row(
            quoted(file.name),
            f"{verdict.p_value:.4g}",
            f"{p_value:.4g}",
            PLAIN_WORDS[verdict.outcome],
        )
    console.print(table)
    rate = verdicts[0].false_positive_rate
    console.print(
        f"\nAssurance level {verdicts[0].level.name}: {verdicts[0].level.meaning}.\n"
        f"At a false-positive rate of {rate:g}: of 1,000 strangers, {1000 * rate:g} are called "
        "members on average.\nThe adjusted p-values are for these images together (Benjamini and "
        "Hochberg).\nThe model knows what it was told. A sample that was trained on in "
        "silence looks like a stranger."
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
