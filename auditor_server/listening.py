"""Serving a web application from this process until it is asked to stop."""

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from auditor_server.errors import PortInUseError

# Time for answers under way when the server is asked to stop.
SHUTDOWN_SECONDS = 10
BACKLOG = 128
# An agent that sends a flush every few seconds keeps its connection; so does a log at its witness.
KEEP_ALIVE_SECONDS = 60


def run(app: FastAPI, host: str, port: int, on_ready: Callable[[str, int], None]) -> None:
    """Serve until the process is asked to stop (SIGINT or SIGTERM).

    Args:
        app: what to serve.
        host: address to listen on.
        port: port to listen on; 0 lets the system choose.
        on_ready: called once with host and port when connections are accepted.

    Raises:
        PortInUseError: host and port can't be bound.

    """
    listener = _listen(host, port)
    try:
        bound_port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_level="warning",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        # The socket accepts from here on: what comes before the loop runs waits in its backlog.
        on_ready(host, bound_port)
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortInUseError(
            f"can't listen on {host} port {port}: {error.strerror}; choose another port, or stop "
            "the program that uses it"
        ) from error
    return listener
