"""Running the auditor's server in this process, or in several that it starts."""

from collections.abc import Callable
from functools import partial

from auditor_server import listening
from auditor_server.app import create_app, create_worker_app, prepare
from auditor_server.errors import PortInUseError
from auditor_server.settings import ServerSettings

__all__ = ["PortInUseError", "serve"]


def serve(
    settings: ServerSettings,
    host: str,
    port: int,
    on_ready: Callable[[str, int], None],
    workers: int = 1,
) -> None:
    """Serve until the process is asked to stop (SIGINT or SIGTERM).

    Args:
        settings: home and limits.
        host: address to listen on.
        port: port to listen on; 0 lets the system choose.
        on_ready: called once with host and port when connections are accepted.
        workers: processes that serve; with more than one, this process only looks after them.

    Raises:
        PortInUseError: host and port can't be bound.
        HomeError: there is no complete home, or its database can't be used.
        WorkerFailedError: a worker can't start.

    """
    if workers == 1:
        listening.run(create_app(settings), host, port, on_ready)
        return
    prepare(settings)
    listening.run_workers(partial(create_worker_app, settings), workers, host, port, on_ready)
