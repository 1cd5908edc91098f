"""Executing a replay in the image of the training, locked down as the training was.

There is no relay and no network at all: what the container is to do lies, read-only, where a
training finds its relay's socket, and what it finds goes to the output folder. The rules of
containment are checked on the started container, by the same code as for a training.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from auditkit.evidence import containment
from containers.container import Container
from containers.engine import Engine
from containers.engine_errors import EngineError
from containers.filesystem import FileState
from containers.identity import InspectedImage
from containers.lockdown import Lockdown
from containers.package import packaged
from containers.running import (
    MOST_PROCESSES,
    bring_in,
    inspect_with_files,
    make_readable,
    removed_at_the_end,
)
from developer_agent.launcher import GIB, NoImageError, hand_over
from developer_agent.launcher import LaunchDisplay as Display
from developer_agent.replay_execution import OUTCOME, ReplayOutcome
from developer_agent.replay_runs import ExecutionFailedError
from developer_agent.run_config import DEFAULT_MEMORY_GIB
from schemas.records import ExecutionMode

REPLAY_LABEL = "dev.auditkit.replay"


@dataclass(frozen=True)
class ContainerRunner:
    """Executes in closed containers of one image, a fresh one each time.

    Attributes:
        archive: the image in a file.
        display: what one sees while a container is prepared.
        output: where the containers' own output goes.
        memory_gib: what a container may take.
        cpus: cores that a container may take; None: all that the engine has.
    """

    archive: Path
    display: Display
    output: BinaryIO
    memory_gib: float = DEFAULT_MEMORY_GIB
    cpus: float | None = None
    mode: ExecutionMode = field(default="container", init=False)
    code_digest: None = field(default=None, init=False)  # the image's digest says which code it is

    @property
    def image_digest(self) -> str | None:
        """Of the image, recomputed from every byte of its archive."""
        return self._image[0].identity.config_digest

    @property
    def code(self) -> tuple[str, ...]:
        """The developer's own source files in the image."""
        return packaged(self._image[0].config).code

    def run(self, source: Path, target: Path) -> None:
        """Execute the task of a folder into another one.

        Raises:
            ContainmentError: the container is not as locked down as it must be; it was killed.
            ContainerError: the engine cannot run it, or its files are not the image's.
            ExecutionFailedError: the execution failed.
        """
        image, files = self._image
        user = self._hand_over(source, target)
        lockdown = Lockdown(
            relay_folder=source,
            output=target,
            pool=None,
            test=None,
            user=user,
            memory_bytes=int(self.memory_gib * GIB),
            cpus=self.cpus or float(self._engine.facts().cpus),
            most_processes=MOST_PROCESSES,
            labels={REPLAY_LABEL: target.name},
        )
        with removed_at_the_end(self._engine.create(self._image_id, lockdown)) as container:
            container.check_files(files, self.display.checking)
            container.start()
            description = container.describe()
            containment.check_description(image.identity, image.config.decode(), description)
            self.display.started(self._engine.facts(), description)
            code = self._await_end(container)
        if code:
            raise ExecutionFailedError(
                f"the execution in the container ended with exit code {code}; see what it printed"
            )
        outcome = ReplayOutcome.from_bytes((target / OUTCOME).read_bytes())
        if outcome.inside is None:
            raise ExecutionFailedError(
                "the execution does not say what it saw of its container; the image is of a "
                "version of auditkit that cannot replay"
            )
        containment.check_inside(description, outcome.inside)

    @cached_property
    def _image(self) -> tuple[InspectedImage, Mapping[str, FileState]]:
        if not self.archive.is_file():
            raise NoImageError(
                f"there is no image {self.archive}; ask the developer for the archive that trained"
            )
        self.display.identifying(self.archive)
        return inspect_with_files(self.archive)

    @cached_property
    def _engine(self) -> Engine:
        return Engine.connect()

    @cached_property
    def _image_id(self) -> str:
        return bring_in(self._engine, self.archive, self._image[0], self.display.loading)

    def _await_end(self, container: Container) -> int:
        try:
            container.forward_output(self.output, self.output)
            return container.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(EngineError):
                container.kill()
            raise

    def _hand_over(self, source: Path, target: Path) -> tuple[int, int]:
        """Let the user inside read the one folder and write to the other."""
        make_readable(source)
        return hand_over(target, rootless=self._engine.facts().rootless)
