"""`demo`: the whole story in a few minutes, on real handwritten digits."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

import auditkit
from auditkit.cli.errors import UsageError
from auditkit.cli.evidence import verify_file
from auditkit.cli.output import console, error_console, holds, print_verification

if TYPE_CHECKING:
    from auditkit.data.pools import Pool
    from auditkit.evidence.derivation import Split
    from developer_agent.supervised_run import Run

AUDITOR = "Demo Data Protection Authority"
ORIGIN = "audit.demo"
MARKER = ".auditkit-demo"  # folders with this file may be emptied by the next demo
SERVER_STOP_SECONDS = 15
DEMO_MEMORY_GIB = 4
QUERIES = {"told": 4, "silent": 3, "test": 5}
EXAMPLE_NAMES = {"told": "member", "silent": "silent", "test": "stranger"}
COHORT_WORDS = {
    "told": "trained on, and told to T",
    "silent": "trained on in silence",
    "test": "never seen",
}


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to work in.")] = Path(
        "demo"
    ),
    container: Annotated[
        bool,
        typer.Option("--container", help="Train in the closed container; reaches level L2."),
    ] = False,
    image: Annotated[
        Path,
        typer.Option(
            "--image",
            help="With --container: archive of the trainer's image. Is built if missing, which "
            "takes a few minutes and 20 GB of disk for a while.",
        ),
    ] = Path("trainer.tar"),
) -> None:
    """Run the whole story: order, grant, training, verification, queries, report.

    A real server on a free local port, real handwritten digits, about a minute on two cores.
    With --container, the training runs in the closed container as for a real audit.
    """
    from developer_agent.run_folder import RunFolder
    from developer_agent.session import read_grant

    folder = _fresh_folder(output)
    archive = _trainer_image(image) if container else None
    _say(1, "The auditor sets up keys, a trust root and a server, and signs an order")
    tokens = _set_up_auditor(folder, archive)
    with _server(folder / "auditor") as url:
        _say(2, "The developer trains under supervision; every step is logged, signed, cosigned")
        run = _run(folder, url, tokens["developer"], archive)
        if archive is None:
            _train(run)
        else:
            _train_in_container(run)
        session_id = read_grant(RunFolder(run.folder_path)).session_id
        _say(3, "The compliance officer asks: was this picture used?")
        _query(folder, url, tokens["compliance-officer"], run)
        _say(4, "Report and evidence are written")
        _write_evidence(folder, url, tokens["compliance-officer"], session_id)
    _say(5, "The server is stopped; the evidence is verified offline")
    verified = _verify(folder)
    _print_next(folder, session_id)
    if not verified:
        sys.exit(1)


def example(name: str) -> Path:
    """Return the path of an example file, of the installed package or of a checkout."""
    package = Path(auditkit.__file__).parent
    packaged = package / "examples" / name
    return packaged if packaged.is_file() else package.parent / "examples" / name


def _say(number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}.[/bold cyan] [bold]{text}[/bold]")


def _fresh_folder(path: Path) -> Path:
    if path.exists() and any(path.iterdir()):
        if not (path / MARKER).is_file():
            raise UsageError(
                f"{path} is not empty and was not made by an earlier demo; choose another folder "
                "with --output"
            )
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / MARKER).touch()
    return path.resolve()


def _trainer_image(path: Path) -> Path:
    """Return the archive of the trainer's image, built now unless it is there."""
    if path.is_file():
        console.print(f"   image {_relative(path.resolve())}, built before")
        return path.resolve()
    from auditkit.cli.building import build_trainer_image, check_writable

    check_writable(path)
    console.print(f"   building the trainer's image {path}, once; it is kept for the next demo")
    build_trainer_image(path)
    return path.resolve()


def _set_up_auditor(folder: Path, image: Path | None) -> dict[str, str]:
    from auditkit.cli.auditor import read_order, sign_order
    from auditor_server.context import Auditor
    from auditor_server.home import create_home, write_private
    from auditor_server.orders import add_order
    from auditor_server.settings import ServerSettings
    from containers.identity import identify

    now = datetime.now(UTC)
    home = create_home(folder / "auditor", AUDITOR, ORIGIN, now)
    shutil.copy(folder / "auditor" / "trust-root.json", folder / "trust-root.json")
    tokens_folder = folder / "tokens"
    tokens_folder.mkdir(mode=0o700)
    for role, token in home.tokens.items():
        write_private(tokens_folder / f"{role}.token", token.encode() + b"\n")
    order = read_order(example("orders/digits.toml"), AUDITOR, now)
    if image is not None:
        with error_console.status(f"hashing every byte of {image.name}"):
            digest = identify(image).config_digest
        order = order.model_copy(update={"images": (digest,), "allow_without_container": False})
        console.print(f"   image [bold]{digest}[/bold], the only one that the order allows")
    add_order(Auditor.open(ServerSettings(home=home.path)), sign_order(home, order))
    console.print(
        f"   order [bold]{order.order_id}[/bold] for {order.developer}, in force until "
        f"{order.expires_at:%Y-%m-%d}"
    )
    return {str(role): token for role, token in home.tokens.items()}


@contextmanager
def _server(home: Path) -> Iterator[str]:
    """Run the real server in its own process, on a free port."""
    log = (home / "server.log").open("wb")
    process = subprocess.Popen(  # noqa: S603 - our own module, by the running interpreter
        [sys.executable, "-m", "auditor_server", "--home", str(home), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=log,
    )
    try:
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            raise UsageError(
                f"the server did not start; see {home / 'server.log'}:\n"
                + (home / "server.log").read_text(errors="replace")[-2000:]
            )
        address = json.loads(line)
        yield f"http://{address['host']}:{address['port']}"
    finally:
        process.terminate()
        try:
            process.wait(SERVER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _run(folder: Path, url: str, token: str, image: Path | None) -> "Run":
    from developer_agent.run_config import parse_run_config, read_toml
    from developer_agent.supervised_run import Run

    document = read_toml(example("digits.toml"))
    document["server"] |= {"url": url, "trust_root": "trust-root.json"}
    document["server"].pop("token_file", None)
    document["output"] = "run"
    if image is not None:
        document["container"] = {"image": str(image), "memory_gib": DEMO_MEMORY_GIB}
    return Run(parse_run_config(document, "examples/digits.toml"), folder, token)


def _train(run: "Run") -> None:
    from auditkit.cli.cohorts import print_cohorts
    from auditkit.cli.progress import ProgressDisplay
    from developer_agent import trainer

    with ProgressDisplay(console) as display:
        result, cohorts = trainer.train(run, display)
    if result.report is None:
        raise UsageError(f"the demo could not submit its model: {result.problem}")
    print_cohorts(list(cohorts.values()))


def _train_in_container(run: "Run") -> None:
    from auditkit.cli.developer import train_in_container

    code = train_in_container(run, "the demo's configuration")
    if code:
        raise UsageError(f"the demo's training ended with exit code {code}; see above")


def _query(folder: Path, url: str, token: str, run: "Run") -> None:
    from auditkit.client import AuditorClient
    from auditkit.data.pools import open_pool
    from auditkit.evidence import canonical, dsse, statements
    from auditkit.evidence.derivation import derive_split
    from developer_agent.run_folder import RunFolder
    from developer_agent.session import read_grant
    from schemas import MembershipVerdict

    grant = read_grant(RunFolder(run.folder_path))
    split = derive_split(bytes.fromhex(grant.nonce), grant.split)
    images = _query_images(
        folder / "queries",
        split,
        open_pool(run.config.pool, run.base),
        open_pool(run.config.test, run.base),
    )
    _leave_examples(folder / "auditor", grant.session_id, images)
    with AuditorClient(url, token) as client:
        answers = client.query(
            grant.session_id,
            [(p.name, p.read_bytes()) for p, _ in images],
            purpose="to see how it works",
        ).verdicts
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 3))
    for heading in ("image", "in truth", "p-value", "verdict"):
        table.add_column(heading)
    rate = 0.0
    for (path, cohort), answer in zip(images, answers, strict=True):
        payload = dsse.Envelope.from_bytes(canonical.to_bytes(answer)).payload
        verdict = statements.parse(payload, statements.VERDICT_PREDICATE, MembershipVerdict)
        rate = verdict.false_positive_rate
        table.add_row(
            path.name,
            COHORT_WORDS[cohort],
            f"{verdict.p_value:.4f}",
            "[bold]member[/bold]" if verdict.outcome == "member" else "not shown to be one",
        )
    console.print(table)
    console.print(
        f"   at a false-positive rate of {rate:g}. Samples trained on in silence look like "
        "strangers:\n   T knows what it was told. That M saw nothing else is what the log is for."
    )


def _query_images(
    folder: Path, split: "Split", pool: "Pool", test: "Pool"
) -> list[tuple[Path, str]]:
    from PIL import Image

    folder.mkdir()
    chosen: list[tuple[Path, str]] = []
    for cohort, count in QUERIES.items():
        images = test.images if cohort == "test" else pool.images
        indices = range(count) if cohort == "test" else getattr(split, cohort)[:count]
        for number, index in enumerate(indices, start=1):
            path = folder / f"{cohort}-{number}.png"
            buffer = io.BytesIO()
            Image.fromarray(images[index].squeeze()).save(buffer, format="PNG")
            path.write_bytes(buffer.getvalue())
            chosen.append((path, cohort))
    return chosen


def _leave_examples(home: Path, session_id: str, images: list[tuple[Path, str]]) -> None:
    """Offer the demo's public digits as examples on the server's pages."""
    from auditor_server.examples import EXAMPLES_FOLDER

    folder = home / EXAMPLES_FOLDER / session_id
    folder.mkdir(parents=True)
    for path, cohort in images:
        number = path.stem.partition("-")[2]
        shutil.copyfile(path, folder / f"{EXAMPLE_NAMES[cohort]}-{number}.png")


def _write_evidence(folder: Path, url: str, token: str, session_id: str) -> None:
    from auditkit.client import AuditorClient

    with AuditorClient(url, token) as client:
        (folder / "report.html").write_text(client.report(session_id), encoding="utf-8")
        with (folder / "evidence.bundle").open("wb") as file:
            client.bundle(session_id, file)
    for name in ("report.html", "evidence.bundle"):
        size = (folder / name).stat().st_size
        console.print(f"   {_relative(folder / name)} ({size / 1e6:.1f} MB)")


def _verify(folder: Path) -> bool:
    report = verify_file(folder / "evidence.bundle", folder / "trust-root.json")
    print_verification(report)
    return holds(report)


def _print_next(folder: Path, session_id: str) -> None:
    here = _relative(folder)
    console.print("\n[bold]Try next[/bold]")
    lines = [
        f"open {here}/report.html in a browser",
        f"auditkit verify {here}/evidence.bundle --trust-root {here}/trust-root.json",
        f"auditkit serve --home {here}/auditor &",
        f"open http://127.0.0.1:8470/desk, and sign in with {here}/tokens/compliance-officer.token",
        (
            f"auditkit query {session_id} {here}/queries --server http://127.0.0.1:8470 "
            f"--token-file {here}/tokens/compliance-officer.token --purpose 'to try it'"
        ),
    ]
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
