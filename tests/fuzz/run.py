"""Coverage-guided fuzzing of every reader of other parties' bytes, with Atheris (libFuzzer).

    python -m tests.fuzz.run                        # every target, ten thousand inputs each
    python -m tests.fuzz.run note bundle --runs 1000000 --seed 7
    python -m tests.fuzz.run --runs 100000 --table tests/fuzz/RESULTS.md

Each target runs in a process of its own, since libFuzzer ends the process that it runs in. An input
that makes a target raise anything but a typed error is kept in `--findings` and printed; run it
again with `python -m tests.fuzz.run TARGET --input FILE`.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["auditkit.evidence", "schemas"]):
    from tests.fuzz.targets import TARGETS

DEFAULT_RUNS = 10_000
MAX_INPUT_BYTES = 8_192
"""Longest input tried; every format's limits beyond it have tests of their own."""

TIMEOUT_SECONDS = 20
"""Longest time for one input, after which it is a finding."""

MEMORY_MEGABYTES = 2_048

STATUS = re.compile(r"^#(\d+)\t\w+\s+cov: (\d+) ft: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What fuzzing one target came to.

    Attributes:
        target: its name.
        inputs: how many have been tried.
        edges: branches of the instrumented code that inputs have reached.
        features: what libFuzzer counts: branches, and how often each was taken.
        seconds: wall time.
        finding: end of the output when an input was found; empty otherwise.
    """

    target: str
    inputs: int
    edges: int
    features: int
    seconds: float
    finding: str


def fuzz(name: str, runs: int, seed: int, findings: Path) -> Outcome:
    """Fuzz one target in a child process and read what libFuzzer says of it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        corpus, log = Path(folder, "corpus"), Path(folder, "log")
        corpus.mkdir()
        for number, data in enumerate(TARGETS[name].seeds):
            (corpus / f"seed{number}").write_bytes(data)
        child = os.fork()
        if child == 0:
            _become_fuzzer(name, runs, seed, corpus, log, findings)
        _, status = os.waitpid(child, 0)
        output = log.read_text(encoding="utf-8", errors="replace")
    inputs, edges, features = _last_status(output)
    return Outcome(
        target=name,
        inputs=inputs,
        edges=edges,
        features=features,
        seconds=round(time.monotonic() - started, 1),
        finding="" if status == 0 else output[-4_000:],
    )


def _become_fuzzer(
    name: str, runs: int, seed: int, corpus: Path, log: Path, findings: Path
) -> None:
    """Never returns: libFuzzer ends the process."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    options = {
        "runs": runs,
        "seed": seed,
        "max_len": MAX_INPUT_BYTES,
        "timeout": TIMEOUT_SECONDS,
        "rss_limit_mb": MEMORY_MEGABYTES,
        "artifact_prefix": f"{findings / name}-",
        "print_final_stats": 1,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    target = TARGETS[name]
    try:
        atheris.Setup(
            [sys.argv[0], *arguments, str(corpus)],
            target,
            custom_mutator=_mutator(target.mutate) if target.mutate else None,
        )
        atheris.Fuzz()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent reads it in the log
        traceback.print_exc()
    finally:
        os._exit(1)  # not reached as long as libFuzzer ends the process


def _mutator(
    mutate: Callable[[bytes, Random], bytes],
) -> Callable[[bytes, int, int], bytes]:
    """Return a mutator of Atheris: libFuzzer's own changes, the target's, or both."""

    def changed(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.7:
            data = mutate(data, random)
        if len(data) > longest or random.random() < 0.4:
            data = atheris.Mutate(data[:longest], longest)
        return data

    return changed


def _last_status(output: str) -> tuple[int, int, int]:
    lines = [tuple(int(number) for number in found) for found in STATUS.findall(output)]
    inputs, edges, features = lines[-1] if lines else (0, 0, 0)
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    return (int(executed[1]) if executed else inputs), edges, features


def table(outcomes: Sequence[Outcome], seed: int) -> str:
    """Return the outcomes as a Markdown page."""
    rows = "\n".join(
        f"| {found.target} | {found.inputs:,} | {found.edges:,} | {found.features:,} | "
        f"{found.seconds:,.0f} | {'see below' if found.finding else 'none'} |"
        for found in outcomes
    )
    inputs = sum(found.inputs for found in outcomes)
    seconds = sum(found.seconds for found in outcomes)
    date = datetime.now(UTC).date().isoformat()
    return (
        "# Fuzzing, the long run\n\n"
        "Coverage-guided (Atheris), started from the published test vectors; written by\n"
        f"`python -m tests.fuzz.run --table` with seed {seed} on {date}. Nothing but typed errors\n"
        "(`EvidenceError`) may leave a reader; what it read must survive being written again; and\n"
        "what it verified must be what was signed.\n\n"
        "| target | inputs | branches reached | features | seconds | other exceptions |\n"
        "|---|---:|---:|---:|---:|---|\n"
        f"{rows}\n"
        f"| **all** | **{inputs:,}** | | | **{seconds:,.0f}** | "
        f"**{'see below' if any(found.finding for found in outcomes) else 'none'}** |\n"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz the readers of other parties' bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, default=DEFAULT_RUNS, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--input", type=Path, help="try this one input only")
    parser.add_argument("--json", type=Path, help="write the outcomes here, as JSON")
    parser.add_argument("--table", type=Path, help="write the outcomes here, as Markdown")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"unknown targets {', '.join(sorted(unknown))}; known: {', '.join(TARGETS)}")
    return arguments


def main() -> int:
    arguments = _arguments()
    names = arguments.targets or list(TARGETS)
    if arguments.input is not None:
        for name in names:
            TARGETS[name](arguments.input.read_bytes())
        return 0
    arguments.findings.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for name in names:
        outcome = fuzz(name, arguments.runs, arguments.seed, arguments.findings)
        outcomes.append(outcome)
        print(f"{name}: {outcome.inputs} inputs, {outcome.edges} branches, {outcome.seconds} s")
        print(outcome.finding, end="", flush=True)
    if not any(arguments.findings.iterdir()):
        arguments.findings.rmdir()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(found) for found in outcomes]))
    if arguments.table is not None:
        arguments.table.write_text(table(outcomes, arguments.seed), encoding="utf-8")
    return 1 if any(found.finding for found in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
