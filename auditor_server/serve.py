"""Running the auditor's server in this process."""

from collections.abc import Callable

from auditor_server import listening
from auditor_server.app import create_app
from auditor_server.errors import PortInUseError
from auditor_server.settings import ServerSettings

__all__ = ["PortInUseError", "serve"]


def serve(
    settings: ServerSettings, host: str, port: int, on_ready: Callable[[str, int], None]
) -> None:
    """Serve until the process is asked to stop (SIGINT or SIGTERM).

    Args:
        settings: home and limits.
        host: address to listen on.
        port: port to listen on; 0 lets the system choose.
        on_ready: called once with host and port when connections are accepted.

    Raises:
        PortInUseError: host and port can't be bound.
        HomeError: there is no complete home.

    """
    listening.run(create_app(settings), host, port, on_ready)
