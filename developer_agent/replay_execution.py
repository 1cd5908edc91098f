"""Executing a replay: a folder of inputs in, a folder of outputs out, and no judgement.

    python -m developer_agent.replay_execution INPUT OUTPUT [CODE]

This is what runs in the image of the training, or in a plain process. It is never told which end
states the log commits to: what it hands back is compared outside, by the auditor's own toolkit.

| input | what it is |
|---|---|
| `task.json` | what to execute |
| `codes` | the packed codes of all members, where T learned codes |
| `<segment>/start.safetensors`, `<segment>/samples.safetensors` | one folder per segment |
| `calibration/weights.safetensors`, `calibration/samples.safetensors` | to score C |

| output | what it is |
|---|---|
| `outcome.json` | what was executed, and where |
| `<segment>/step-<n>.safetensors` | the state after the last step, and after each one asked for |
| `calibration/scores.safetensors` | the scores of C |
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from auditkit.evidence import canonical
from auditkit.evidence.membership_codes import SessionCodes
from auditkit.mint.scores import write_scores
from developer_agent.environment import (
    SourceFile,
    code_digest,
    describe_environment,
    make_deterministic,
)
from developer_agent.granted import GrantedTraining
from developer_agent.replayed_loop import (
    InitialReplay,
    Loop,
    PackageSamples,
    ScoresReplay,
    SegmentReplay,
    execute,
)
from developer_agent.segment_package import SAMPLES, START, OpenedSamples, segment_name
from developer_agent.state import state_digest, state_name
from developer_agent.trainer import built_in_loop
from developer_agent.training_loop import load_loop
from schemas import (
    Environment,
    InsideView,
    Normalisation,
    ReplaySegment,
    SessionGrant,
    SessionRequest,
)
from schemas.base import Schema, Sha256

TASK, OUTCOME, CODES = "task.json", "outcome.json", "codes"
CALIBRATION_FOLDER = "calibration"
WEIGHTS, SCORES = "weights.safetensors", "scores.safetensors"

CpuCapability = Literal["default", "avx2", "avx512"]
"""As torch names the instructions that its own kernels use, in lower case."""

LESSER_PROCESSORS: Mapping[CpuCapability, Mapping[str, str]] = {
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "avx512": {},
}
"""Variables that torch, oneDNN and MKL read when a process starts."""


class SegmentTask(Schema):
    """One segment to execute."""

    segment: ReplaySegment
    keep: tuple[int, ...] = Field(default=(), description="steps after which to keep the state")
    traced: bool = Field(default=False, description="digest the state after every step")


class ReplayTask(Schema):
    """Everything to execute in one process, from one folder."""

    schema_version: Literal[1] = 1
    request: SessionRequest
    grant: SessionGrant
    normalisation: Normalisation
    loop: str | None = Field(description="the developer's own training loop; None: the built-in")
    code: tuple[str, ...] = Field(description="the developer's own source files")
    threads: int = Field(ge=1)
    cpu_capability: CpuCapability | None = Field(
        default=None, description="to execute as a lesser processor would"
    )
    initial: bool = Field(default=False, description="make the initial state")
    calibration: bool = Field(default=False, description="score C")
    segments: tuple[SegmentTask, ...] = ()


class ExecutedSegment(Schema):
    """What executing a segment gave."""

    segment: ReplaySegment
    end_digest: Sha256
    moved: float = Field(description="L2 distance of all parameters of M+ over the segment")
    seconds: float
    trace: tuple[Sha256, ...] = Field(description="digest of the state after every step, if asked")


class ReplayOutcome(Schema):
    """What executing a task gave."""

    schema_version: Literal[1] = 1
    environment: Environment
    code_digest: Sha256
    inside: InsideView | None = Field(description="of the container; None: a plain process")
    initial_state: Sha256 | None
    initial_weights: Sha256 | None
    segments: tuple[ExecutedSegment, ...]


def run_task(
    source: Path, target: Path, code_folder: Path | None = None, inside: InsideView | None = None
) -> None:
    """Execute a task.

    Args:
        source: the folder of inputs.
        target: the folder of outputs; it exists and is empty.
        code_folder: where the developer's own source files lie, in an image.
        inside: what this process sees of its container.

    Raises:
        AgentError, DataError, EvidenceError, MintError: see the messages.
    """
    task = ReplayTask.from_bytes((source / TASK).read_bytes())
    _limit_processor(task.cpu_capability)
    make_deterministic(task.threads)
    execution = _Execution(task, source, target, code_folder)
    initial = execution.initial() if task.initial else None
    segments = tuple(execution.segment(one) for one in task.segments)
    if task.calibration:
        execution.calibration()
    outcome = ReplayOutcome(
        environment=describe_environment(torch.get_num_threads()),
        code_digest=code_digest(
            SourceFile(name, (code_folder or source) / name) for name in task.code
        ),
        inside=inside,
        initial_state=None if initial is None else state_digest(initial.state),
        initial_weights=None if initial is None else canonical.sha256_hex(initial.weights),
        segments=segments,
    )
    (target / OUTCOME).write_bytes(canonical.to_bytes(outcome))


class _Execution:
    def __init__(
        self, task: ReplayTask, source: Path, target: Path, code_folder: Path | None
    ) -> None:
        self._task = task
        self._source = source
        self._target = target
        self._loop: Loop = (
            built_in_loop if task.loop is None else load_loop((code_folder or source) / task.loop)
        )
        self._session = GrantedTraining(request=task.request, grant=task.grant)
        codes = source / CODES
        self._codes = (
            SessionCodes.unpack(
                codes.read_bytes(), task.grant.split, task.request.config.mint.code_length
            )
            if codes.exists()
            else None
        )

    def initial(self) -> InitialReplay:
        no_samples = PackageSamples(OpenedSamples.none(), self._task.normalisation)
        replay = InitialReplay(self._session, no_samples, self._codes)
        execute(self._loop, self._session, replay)
        return replay

    def segment(self, task: SegmentTask) -> ExecutedSegment:
        folder, output = self._folders(segment_name(task.segment))
        replay = SegmentReplay(
            self._session,
            self._samples(folder),
            self._codes,
            segment=task.segment,
            start=(folder / START).read_bytes(),
            keep=frozenset(task.keep),
            traced=task.traced,
        )
        seconds = _timed(lambda: execute(self._loop, self._session, replay))
        for step, state in replay.states.items():
            (output / state_name(step)).write_bytes(state)
        return ExecutedSegment(
            segment=task.segment,
            end_digest=state_digest(replay.states[task.segment.last_state_step]),
            moved=replay.moved,
            seconds=seconds,
            trace=tuple(replay.trace),
        )

    def calibration(self) -> None:
        folder, output = self._folders(CALIBRATION_FOLDER)
        weights = (folder / WEIGHTS).read_bytes()
        replay = ScoresReplay(self._session, self._samples(folder), self._codes, weights)
        execute(self._loop, self._session, replay)
        if replay.scores is not None:
            (output / SCORES).write_bytes(write_scores({"calibration": replay.scores}))

    def _folders(self, name: str) -> tuple[Path, Path]:
        output = self._target / name
        output.mkdir()
        return self._source / name, output

    def _samples(self, folder: Path) -> PackageSamples:
        samples = OpenedSamples.from_bytes((folder / SAMPLES).read_bytes())
        return PackageSamples(samples, self._task.normalisation)


def _timed(action: Callable[[], None]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def _limit_processor(capability: CpuCapability | None) -> None:
    """Become a process in which torch takes the processor for a lesser one."""
    variables = {} if capability is None else LESSER_PROCESSORS[capability]
    if variables.items() <= os.environ.items():
        return
    environment = {**os.environ, **variables}
    os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - this very program


def main() -> None:
    """Execute the task of the first folder into the second; own code lies in the third, if any."""
    source, target, *code_folder = map(Path, sys.argv[1:])
    run_task(source, target, code_folder[0] if code_folder else None)


if __name__ == "__main__":
    main()
