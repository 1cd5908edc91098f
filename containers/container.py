"""One container of the engine: start it, look at it, forward its output, stop it."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO

import requests
from docker import APIClient
from docker.errors import APIError, NotFound

from containers.engine_calls import (
    NOT_RUNNING,
    PIECE_BYTES,
    Progress,
    counted,
    engine_call,
    report_nothing,
)
from containers.engine_errors import ContainerEndedError, EngineLostError
from containers.exported import check_exported
from containers.filesystem import FileState
from containers.inspection import ContainerState, InspectedContainer, read_answer
from schemas import ContainerDescription

END_SECONDS = 30
"""How long after the end of its output a container is given to end as well."""

Frame = tuple[bytes | None, bytes | None]
"""A piece of standard output, or a piece of standard error."""


class Container:
    """A container by its identifier.

    Every method raises `EngineError` when the engine refuses, and `EngineLostError` when it is
    gone.
    """

    def __init__(
        self,
        api: APIClient,
        container_id: str,
        *,
        engine: str,
        rootless: bool,
        terminal: tuple[int, int] | None = None,
    ) -> None:
        """Take the engine's interface and what the description says about the engine.

        Args:
            api: of the engine that has the container.
            container_id: 64 hexadecimal digits.
            engine: name, version and platform of the engine.
            rootless: whether it runs without rights of root.
            terminal: height and width in characters of the container's terminal, if it has one.
        """
        self._api = api
        self._id = container_id
        self._engine = engine
        self._rootless = rootless
        self._terminal = terminal
        self._output: Iterator[Frame] | None = None

    @property
    def id(self) -> str:
        """The identifier, 64 hexadecimal digits."""
        return self._id

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._state().running

    @property
    def out_of_memory(self) -> bool:
        """Whether the system ended it, or a part of it, because its memory was used up."""
        return self._state().out_of_memory

    def start(self) -> None:
        """Start it. Its output waits for `forward_output` from the first byte on."""
        self._output = self._attached()
        with engine_call("start the container"):
            self._api.start(self._id)
        if self._terminal is not None:
            self.resize(*self._terminal)

    def resize(self, height: int, width: int) -> None:
        """Give its terminal another size in characters; nothing happens when it has ended."""
        with engine_call("resize the container's terminal"), suppress(APIError):
            self._api.resize(self._id, height, width)

    def check_files(
        self, expected: Mapping[str, FileState], on_progress: Progress = report_nothing
    ) -> None:
        """Check that its files are exactly those of its image; call it before `start`.

        What the engine stores of an image can be changed without a trace in what it saves: added
        files and changed owners and modes are in no layer. Here is read what the container sees.

        Args:
            expected: from `FileSystem.files` of the archive's verified layers.
            on_progress: is told the bytes that came, and how many the files have together.

        Raises:
            StoredImageError: a file was added, removed or changed.
            EngineLostError: the connection broke off.
        """
        total = sum(state.size for state in expected.values())
        with engine_call("hand out the container's files"):
            pieces = self._api.export(self._id, chunk_size=PIECE_BYTES)
            check_exported(counted(pieces, total, on_progress), expected)

    def describe(self) -> ContainerDescription:
        """Return how it runs, as the engine reports it.

        Raises:
            ContainerEndedError: it does not run.
            EngineAnswerError: the engine's report is not understood.
        """
        found = self._inspect()
        if not found.state.running:
            raise ContainerEndedError(
                f"the container ended with exit code {found.state.exit_code} before it could be "
                "looked at; its output says why"
            )
        return found.described(self._engine, rootless=self._rootless)

    def forward_output(self, stdout: BinaryIO, stderr: BinaryIO) -> None:
        """Write out what the container prints until it ends.

        Call it in a thread of its own. With a terminal, both streams go to `stdout`. A container
        that another process started is joined where it is.

        Raises:
            EngineLostError: the engine went away, so that output may be missing.
            OSError: the output cannot be written.
        """
        frames = self._output or self._attached()
        self._output = None
        while (frame := self._next(frames)) is not None:
            for piece, sink in zip(frame, (stdout, stderr), strict=True):
                if piece:
                    sink.write(piece)
                    sink.flush()
        self._check_end()

    def interrupt(self) -> None:
        """Ask it to end as Ctrl-C does (SIGINT); nothing happens when it has ended."""
        self._signal("SIGINT")

    def kill(self) -> None:
        """End it at once (SIGKILL); nothing happens when it has ended."""
        self._signal("SIGKILL")

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        with engine_call("wait for the container's end"):
            return int(self._api.wait(self._id, timeout=None)["StatusCode"])

    def remove(self) -> None:
        """Remove it, running or not; nothing happens when it is gone."""
        with engine_call("remove the container"), suppress(NotFound):
            self._api.remove_container(self._id, v=True, force=True)

    def _signal(self, name: str) -> None:
        with engine_call(f"send {name} to the container"):
            try:
                self._api.kill(self._id, name)
            except APIError as error:
                if error.status_code != NOT_RUNNING:
                    raise

    def _inspect(self) -> InspectedContainer:
        with engine_call("inspect the container"):
            answer = self._api.inspect_container(self._id)
        return read_answer(InspectedContainer, answer, "a container")

    def _state(self) -> ContainerState:
        return self._inspect().state

    def _attached(self) -> Iterator[Frame]:
        with engine_call("attach to the container"):
            # The request is made here, not when the first piece is asked for.
            return iter(self._api.attach(self._id, stream=True, logs=False, demux=True))

    def _next(self, frames: Iterator[Frame]) -> Frame | None:
        with engine_call("forward the container's output"):
            return next(frames, None)

    def _check_end(self) -> None:
        """Tell the end of a container from the end of its engine: both end the stream alike."""
        with engine_call("say whether the container has ended"):
            try:
                self._api.wait(self._id, timeout=END_SECONDS)
            except requests.ReadTimeout as error:
                raise EngineLostError(
                    "the container engine stopped forwarding the output of a container that goes "
                    "on; was it restarted?"
                ) from error
            except NotFound:
                return  # removed by somebody else, so it has ended
