"""What a replay costs and what it finds: time against the probability of detection, and tolerance.

Claims: executing c segments again costs what their steps cost, and finds a forgery of a share f of
the segments with probability 1 - (1 - f)^c or more. Measured beside it: whether one swapped sample
lies outside the tolerance that honest noise gives over five steps, where machines differ in class.

    python benchmarks/replay_cost.py --data FOLDER  # train/<class>/*.jpg, test/<class>/*.jpg
    python benchmarks/replay_cost.py --digits       # the same on handwritten digits

The CIFAR-10 training of examples/cifar10.toml on a fifth of its pool, with a state every five
steps, trained, drawn, disclosed and replayed by the product's own commands. The time of the
training is that of its steps, read from the log, so that neither the scoring of cohorts nor the
start counts; the time of the replay is that of its steps; what it costs once is printed apart.

Noise and forgery are measured on drawn segments: executed again as the replay does where machines
differ (another number of threads, lesser processors), and once with one sample's pixels replaced.

What it printed is in benchmarks/results/replay_cost.md.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path

from torch import Tensor

from auditkit.cli.demo import example
from auditkit.evidence.bundle import open_bundle
from auditkit.evidence.replay import detection_probability
from auditkit.evidence.trust_history import TrustHistory
from developer_agent.environment import describe_environment
from developer_agent.replay_evidence import (
    Opened,
    SealedSession,
    open_draw,
    open_packages,
    open_session,
)
from developer_agent.replay_execution import SegmentTask
from developer_agent.replay_runs import Execution, ProcessRunner
from developer_agent.replay_tolerance import (
    TOLERANCE_FACTOR,
    Deviation,
    Variant,
    deviation,
    honest_variants,
    state_parts,
)
from developer_agent.run_folder import RunFolder
from developer_agent.segment_package import SegmentPackage, with_one_swapped
from developer_agent.session import read_grant
from developer_agent.state import distance, read_tensors
from schemas import Environment, ReplayResult, ReplaySegment, StepRecord, parse_record

sys.path.insert(0, str(Path(__file__).parent))
from cifar10_story import run, set_up  # the same auditor, server and data

COUNTS = (1, 3, 10, 30)
SHARES = (0.01, 0.05, 0.10)
MEASURED = 4  # segments on which noise and forgery are measured
EPOCHS, DIGITS_EPOCHS = 24, 40
POOL, FRESH, CALIBRATION = 6_000, 500, 99
INTERVAL = 5
KIND = "model/weight"  # whose distances are printed


def training_seconds(run_folder: Path) -> tuple[float, int]:
    """Return the seconds that all steps took, and their number.

    Steps that follow something else than a step are counted at the mean of the others.
    """
    lines = (run_folder / "spool.jsonl").read_bytes().splitlines()
    records = [parse_record(line) for line in lines]
    between = [
        (after.time_ms - before.time_ms) / 1000
        for before, after in pairwise(records)
        if isinstance(before, StepRecord) and isinstance(after, StepRecord)
    ]
    steps = sum(isinstance(record, StepRecord) for record in records)
    return sum(between) / len(between) * steps, steps


def sealed_session(folder: Path) -> SealedSession:
    """Open the exported evidence of the training in a folder."""
    history = TrustHistory.open((folder / "auditor/trust-root.json").read_bytes())
    with (folder / "evidence.bundle").open("rb") as file:
        return open_session(open_bundle(file), history, None, datetime.now(UTC))


def machine(environment: Environment) -> str:
    """Return what was measured on, and when."""
    return (
        f"{os.cpu_count()} cores of {environment.device}, {environment.cpu_capability}, "
        f"{environment.threads} thread, torch {environment.torch}, "
        f"{datetime.now(UTC).date().isoformat()}"
    )


def print_costs(
    result: ReplayResult, segments: int, trained: float, fixed: float, interval: int = INTERVAL
) -> None:
    """Print the table of cost against detection."""
    shares = "".join(f" f = {100 * share:g} % |" for share in SHARES)
    print(f"| segments c | steps | replay / training |{shares}")
    print("|---" * (3 + len(SHARES)) + "|")
    for count in COUNTS:
        taken = result.segments[:count]
        if len(taken) < count:
            break
        seconds = sum(one.seconds for one in taken)
        found = "".join(
            f" {100 * detection_probability(segments, count, share):.1f} % |" for share in SHARES
        )
        steps = sum(one.steps for one in taken)
        print(f"| {count} | {steps} | {100 * seconds / trained:.1f} % |{found}")
    print(
        f"\n{segments} segments of {interval} steps; besides, once per replay: {fixed:.0f} s "
        "(verifying the bundle, checking the packages, starting the process, initial state)\n"
    )


@dataclass(frozen=True)
class Measured:
    """What was measured on one segment: distances of its end, in the kind named."""

    segment: ReplaySegment
    other_threads: float
    lesser_processor: float
    swapped: float
    forged: Deviation
    """One swapped sample, in the kind of numbers in which it shows most."""


def measure(sealed: SealedSession, opened: Opened, work: Path) -> list[Measured]:
    """Measure honest noise and the smallest forgery on some segments."""
    found = []
    for number, (segment, package) in enumerate(islice(opened.segments.items(), MEASURED)):
        execution = Execution(sealed, opened, ProcessRunner(), work / str(number))
        base = end_of(execution, segment)
        tried = honest_variants(describe_environment(sealed.request.config.threads))
        variants = [end_of(execution, segment, one) for one in tried]
        other = with_one_swapped(package, sealed.session.schedule)
        forged = end_of(execution, segment, instead=other)
        threads, *processors = (distance(base[KIND], one[KIND]) for one in variants)
        found.append(
            Measured(
                segment,
                threads,
                max(processors, default=0.0),
                distance(base[KIND], forged[KIND]),
                deviation(base, forged, variants),
            )
        )
    return found


def end_of(
    execution: Execution,
    segment: ReplaySegment,
    variant: Variant | None = None,
    instead: SegmentPackage | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Execute a segment, and return the state that it ends in."""
    executed = execution.run([SegmentTask(segment=segment)], variant=variant, instead=instead)
    return state_parts(read_tensors(executed.state(segment, segment.last_state_step)))


def print_tolerances(found: Sequence[Measured]) -> None:
    """Print honest noise, and how far one swapped sample lies outside the tolerance."""
    print("| steps | other threads | lesser processor | one swapped sample | / tolerance | in |")
    print("|---|---|---|---|---|---|")
    for one in found:
        first, last = one.segment.first_state_step + 1, one.segment.last_state_step
        print(
            f"| {first} to {last} | {one.other_threads:.1e} | {one.lesser_processor:.1e} | "
            f"{one.swapped:.1e} | {one.forged.ratio:.3g} | {one.forged.kind} |"
        )
    print(
        f"\nL2 distances of {KIND}; the tolerance is {TOLERANCE_FACTOR:g} times the largest honest "
        "distance, of each kind of numbers on its own, and the ratio is that of the kind named."
    )


def main() -> None:
    """Train, draw, disclose, replay, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with train/ and test/")
    parser.add_argument("--digits", action="store_true", help="handwritten digits instead")
    parser.add_argument(
        "--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of the training"
    )
    parser.add_argument("--epochs", type=int, help="another length of the training")
    arguments = parser.parse_args()
    if arguments.digits == (arguments.data is not None):
        parser.error("give --data, or --digits")
    folder = Path(tempfile.mkdtemp(prefix="replay-cost-")).resolve()
    epochs = arguments.epochs or (DIGITS_EPOCHS if arguments.digits else EPOCHS)
    data = folder if arguments.digits else arguments.data.resolve()
    server, settings = set_up(folder, data, pool=POOL, fresh=FRESH, calibration=CALIBRATION)
    url = json.loads(settings[1].partition("=")[2])
    if arguments.digits:
        run(folder, "order", "create", str(example("orders/digits.toml")), "--home", "auditor")
        settings = settings[:6]  # the server's address, trust root and token
    config = example("digits.toml" if arguments.digits else "cifar10.toml")
    output = folder / "run"
    for setting in (
        f"training.epochs={epochs}",
        f"training.evaluation_interval_epochs={epochs}",
        f"training.state_interval_steps={INTERVAL}",
        f'training.precision="{arguments.precision}"',
        f'output="{output}"',
    ):
        settings += ["--set", setting]
    access = ["--server", url, "--token-file", "auditor/tokens/auditor.token"]
    try:
        run(folder, "train", "--no-container", str(config), *settings)
        session = read_grant(RunFolder(output)).session_id
        run(folder, "draw", session, "--uniform", str(max(COUNTS)), *access, "-o", "draw.json")
        run(folder, "export", session, "--output", "evidence.bundle", *access)
    finally:
        server.terminate()
        server.wait()
    opening = run(
        *(folder, "disclose", str(config), "--draw", "draw.json", "--output", "packages"), *settings
    )
    whole = run(
        *(folder, "replay", "evidence.bundle", "--draw", "draw.json", "--packages", "packages"),
        *("--trust-root", "auditor/trust-root.json", "--no-container", "--output", "result.json"),
    )
    result = ReplayResult.from_bytes((folder / "result.json").read_bytes())
    trained, steps = training_seconds(output)
    print(
        f"\n{machine(result.environment)}\n\n{config.name}, {arguments.precision}: "
        f"{steps} steps in {trained:.0f} s; disclosing {len(result.segments)} segments took "
        f"{opening:.0f} s\n"
    )
    sealed = sealed_session(folder)
    executed = sum(one.seconds for one in result.segments)
    print_costs(result, len(sealed.log.segments), trained, whole - executed)
    drawn = open_draw(sealed, (folder / "draw.json").read_bytes())
    opened = open_packages(sealed, drawn.document, folder / "packages")
    started = time.monotonic()
    print_tolerances(measure(sealed, opened, folder / "measured"))
    print(f"Measured in {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
