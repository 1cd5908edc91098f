"""How long the training thread waits to record one optimisation step.

Claim: well under 150 microseconds, network and disk synchronisation never included. The floor is
what any recorder must do: `json.dumps` and one `write`. The third row records while another thread
syncs the file to disk every second, as the uplink does; the whole step adds the digest of its batch
and its learning rate, for the batches of examples/cifar10.toml.

    python benchmarks/record_latency.py

Printed on 2026-11-21 on two cores of an AMD EPYC server, Python 3.11, ext4, with other programs
running:

    50,000 steps, microseconds per step    median        p99
    json.dumps + write                        6.9       10.6
    Recorder                                  8.5       22.9
    Recorder, another thread syncing          8.5       22.4
    whole step of 308 samples                26.2       89.7

A record is hashed once when it is written, so that what is signed later is what was recorded.
"""

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from auditkit.evidence.derivation import (
    LEAF_BYTES,
    Schedule,
    batch_digest,
    derive_split,
    learning_rate,
)
from developer_agent.recorder import Recorder
from developer_agent.spool import Spool
from schemas import OptimiserConfig, SplitSizes, StepRecord

STEPS = 50_000
SYNC_INTERVAL_SECONDS = 1.0


def step_fields(step: int) -> dict[str, object]:
    """Return one step's numbers, all digits in use, as a training gives them."""
    return {
        "step": step,
        "epoch": step // 100,
        "batch": f"{step:064x}",
        "task_loss": 2.302585092994046 / step,
        "mint_loss": 0.6931471805599453 / step,
        "objective": 2.1234567890123 / step,
        "task_accuracy": 0.8765432109876543,
        "mint_accuracy": 0.6543210987654321,
        "learning_rate": 0.0123456789012345,
        "task_weight": 1.0,
        "mint_weight": 1.0,
    }


def measure(name: str, record: Callable[[int], object]) -> None:
    """Print median and 99th percentile over many steps."""
    times = []
    for step in range(1, STEPS + 1):
        started = time.perf_counter_ns()
        record(step)
        times.append(time.perf_counter_ns() - started)
    percentiles = statistics.quantiles(times, n=100)
    print(f"{name:<34} {percentiles[49] / 1000:>10.1f} {percentiles[98] / 1000:>10.1f}")


def main() -> None:
    """Measure the floor, the recorder, and the recorder beside a syncing thread."""
    print(f"{STEPS:,} steps, microseconds per step {'median':>9} {'p99':>10}")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        with (Path(folder) / "floor").open("ab", buffering=0) as file:
            measure(
                "json.dumps + write",
                lambda step: os.write(file.fileno(), json.dumps(step_fields(step)).encode()),
            )
        with Spool.open(Path(folder) / "spool") as spool:
            recorder = Recorder(spool)
            measure("Recorder", lambda step: recorder.record(StepRecord, **step_fields(step)))
        with Spool.open(Path(folder) / "synced") as spool:
            recorder = Recorder(spool)
            done = threading.Event()

            def sync() -> None:
                while not done.wait(SYNC_INTERVAL_SECONDS):
                    spool.sync()

            thread = threading.Thread(target=sync)
            thread.start()
            measure(
                "Recorder, another thread syncing",
                lambda step: recorder.record(StepRecord, **step_fields(step)),
            )
            done.set()
            thread.join()
        with Spool.open(Path(folder) / "whole") as spool:
            measure_whole_step(Recorder(spool))


def measure_whole_step(recorder: Recorder) -> None:
    """Measure all that supervision adds to a step of examples/cifar10.toml, states left aside."""
    sizes = SplitSizes(told=4500, silent=400, told_only=400, external=20_000, calibration=5000)
    nonce, optimiser = bytes(32), OptimiserConfig(learning_rate=0.002)
    schedule = Schedule(nonce, derive_split(nonce, sizes), 100, 200, epochs=14)
    leaves = os.urandom(sizes.pool * LEAF_BYTES)
    plans = list(schedule.steps())

    def record(step: int) -> None:
        plan = plans[step % len(plans)]
        digest = batch_digest(leaves, plan)
        rate = learning_rate(optimiser, plan.step, schedule.total_steps)
        fields = {**step_fields(plan.step), "batch": digest, "learning_rate": rate}
        recorder.record(StepRecord, **fields)

    measure("whole step of 308 samples", record)


if __name__ == "__main__":
    main()
