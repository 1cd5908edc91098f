"""Running the auditor's server in this process, or in several that it starts."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from auditor_server import listening, logs, metrics
from auditor_server.app import create_app, create_worker_app, prepare
from auditor_server.errors import PortInUseError
from auditor_server.settings import Bound, Listening, ServerSettings

__all__ = ["PortInUseError", "serve"]


def serve(settings: ServerSettings, at: Listening, on_ready: Callable[[Bound], None]) -> None:
    """Serve until the process is asked to stop (SIGINT or SIGTERM).

    Args:
        settings: home and limits.
        at: where to listen.
        on_ready: called once when connections are accepted.

    Raises:
        PortInUseError: host and port can't be bound.
        HomeError: there is no complete home, or its database can't be used.
        WorkerFailedError: a worker can't start.

    """
    logs.configure(settings.log_format)
    with ExitStack() as stack:
        if at.workers == 1:
            app = create_app(settings)
            bound = _metrics(stack, at, lambda: app.state.auditor.metrics.registry)
            listening.run(app, at.host, at.port, _announcing(on_ready, bound))
            return
        prepare(settings)
        bound = _metrics(stack, at, lambda: stack.enter_context(metrics.collected_from_workers()))
        listening.run_workers(
            partial(_worker_app, settings),
            at.workers,
            at.host,
            at.port,
            _announcing(on_ready, bound),
        )


def _metrics(
    stack: ExitStack, at: Listening, registry: Callable[[], CollectorRegistry]
) -> int | None:
    if at.metrics_port is None:
        return None
    return stack.enter_context(metrics.served(registry(), at.metrics_host, at.metrics_port))


def _announcing(on_ready: Callable[[Bound], None], metrics_port: int | None) -> listening.OnReady:
    return lambda host, port: on_ready(Bound(host, port, metrics_port))


def _worker_app(settings: ServerSettings) -> FastAPI:
    logs.configure(settings.log_format)
    return create_worker_app(settings)
