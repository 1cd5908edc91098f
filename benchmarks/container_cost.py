"""What the closed container costs: seconds per training step inside it and outside it.

Claim: training in the container costs at most 2 % more than in a plain process.

    python benchmarks/container_cost.py --data FOLDER --image TRAINER_ARCHIVE

The CIFAR-10 training of `benchmarks/cifar10_story.py` on a fifth of its pool, several times in turn
inside and outside, each under a grant of its own. The time of a step is read from the log: the
difference between the times of consecutive step records within an epoch, so that neither the start
of the container nor the scoring of cohorts counts. What a container costs once, before its first
step, is printed apart.

Printed on 2026-11-21 on two cores of an AMD EPYC server (AVX512, one thread), torch 2.15.0, Docker
20.10.24, image of 6.2 GB, `--rounds 2`; median over the 50 steps of each run that follow another
one in their epoch:

    round   inside ms/step  outside ms/step   ratio   whole run
    1                347.0            349.0   0.994       +51 s
    2                350.5            366.5   0.956       +59 s
    median ratio 0.975 (0.956 to 0.994)
    median cost of a whole run in a container: +55 s

The ratio below 1 is the noise of two rounds, not a gain. What a run costs more is reading the image
twice before the start: the archive is hashed, and the container's files are compared with it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from auditkit.cli.demo import example
from containers.identity import identify
from developer_agent.environment import describe_environment
from schemas import StepRecord, parse_record

sys.path.insert(0, str(Path(__file__).parent))
from cifar10_story import run, set_up  # the same auditor, server and data

ROUNDS = 3
EPOCHS = 6
POOL, FRESH, CALIBRATION = 6_000, 500, 99


def step_seconds(run_folder: Path) -> list[float]:
    """Return the seconds of every step that follows another one in its epoch."""
    lines = (run_folder / "spool.jsonl").read_bytes().splitlines()
    records = [parse_record(line) for line in lines]
    return [
        (after.time_ms - before.time_ms) / 1000
        for before, after in pairwise(records)
        if isinstance(before, StepRecord)
        and isinstance(after, StepRecord)
        and before.epoch == after.epoch
    ]


def train(folder: Path, name: str, settings: list[str], *options: str) -> list[float]:
    """Run one training and return its steps' seconds."""
    output = folder / name
    run(
        folder,
        "train",
        str(example("cifar10.toml")),
        *options,
        *settings,
        "--set",
        f"training.epochs={EPOCHS}",
        "--set",
        f"training.evaluation_interval_epochs={EPOCHS}",
        "--set",
        f'output="{output}"',
    )
    return step_seconds(output)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--image", type=Path, required=True, help="from `auditkit image build`")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="container-cost-")).resolve()
    image = arguments.image.resolve()
    server, settings = set_up(
        folder,
        arguments.data.resolve(),
        images=[identify(image).config_digest],
        pool=POOL,
        fresh=FRESH,
        calibration=CALIBRATION,
    )
    inside = ["--set", f"container.image={json.dumps(str(image))}"]
    table = []
    try:
        train(folder, "warm-up", settings, *inside)
        for number in range(arguments.rounds):
            started = time.monotonic()
            closed = train(folder, f"inside-{number}", settings, *inside)
            between = time.monotonic()
            plain = train(folder, f"outside-{number}", settings, "--no-container")
            extra = (between - started) - (time.monotonic() - between)
            table.append((statistics.median(closed), statistics.median(plain), extra))
    finally:
        server.terminate()
        server.wait()
    environment = describe_environment(1)
    print(f"\n{environment.platform}, {environment.cpu_capability}, torch {environment.torch}")
    print(f"{'round':<7}{'inside ms/step':>15}{'outside ms/step':>17}{'ratio':>8}{'whole run':>12}")
    for number, (closed_median, plain_median, extra) in enumerate(table, start=1):
        print(
            f"{number:<7}{1000 * closed_median:>15.1f}{1000 * plain_median:>17.1f}"
            f"{closed_median / plain_median:>8.3f}{extra:>+10.0f} s"
        )
    ratios = [closed_median / plain_median for closed_median, plain_median, _ in table]
    print(f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(
        f"median cost of a whole run in a container: "
        f"{statistics.median(extra for _, _, extra in table):+.0f} s"
    )


if __name__ == "__main__":
    main()
