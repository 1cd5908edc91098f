"""Serving a web application, from this process or from several, until it is asked to stop."""

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from threading import Thread

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from auditor_server.errors import PortInUseError, ServerError, WorkerFailedError

# Time for answers under way when the server is asked to stop.
SHUTDOWN_SECONDS = 10
BACKLOG = 128
# An agent that sends a flush every few seconds keeps its connection; so does a log at its witness.
KEEP_ALIVE_SECONDS = 60
# A worker that says nothing for so long hangs; a slow machine's imports take a tenth of it.
WORKER_SILENT_SECONDS = 60

_LOG = logging.getLogger(__name__)

OnReady = Callable[[str, int], None]


def run(app: FastAPI, host: str, port: int, on_ready: OnReady) -> None:
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
        # The socket accepts from here on: what comes before the loop runs waits in its backlog.
        on_ready(host, _port(listener))
        uvicorn.Server(_config(app)).run(sockets=[listener])
    finally:
        listener.close()


def run_workers(
    make_app: Callable[[], FastAPI], workers: int, host: str, port: int, on_ready: OnReady
) -> None:
    """Serve from several processes, one socket for all, until this one is asked to stop.

    A worker that dies is replaced. When this process dies, they stop.

    Args:
        make_app: called once in each worker, so it must be picklable.
        workers: how many.
        host: see `run`.
        port: see `run`.
        on_ready: see `run`.

    Raises:
        PortInUseError: host and port can't be bound.
        WorkerFailedError: a worker can't start; its log says why.

    """
    listener = _listen(host, port)
    try:
        on_ready(host, _port(listener))
        make = partial(_in_worker, make_app)
        supervisor = Multiprocess(_config(make, workers), sockets=[listener])
        supervisor.run()
    finally:
        listener.close()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise WorkerFailedError("a worker process could not start; its own message says why")


def _config(app: FastAPI | Callable[[], FastAPI], workers: int = 1) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=not isinstance(app, FastAPI),
        workers=workers,
        log_config=None,  # whoever starts the server says where its log goes
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_worker_healthcheck=WORKER_SILENT_SECONDS,
    )


def _in_worker(make_app: Callable[[], FastAPI]) -> FastAPI:
    Thread(target=_stop_with_parent, name="parent", daemon=True).start()
    try:
        return make_app()
    except ServerError as error:
        # It would fail again in every replacement.
        _LOG.error("%s", error)
        raise SystemExit(STARTUP_FAILURE) from error


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


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
