"""What the server counts for whoever watches over it (Prometheus).

In one process the numbers are in its memory. With several workers each keeps its own in files of a
folder that they share, and the first process adds them up (prometheus_client's multiprocess mode,
which the variable below switches on in processes that are started with it).
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from auditor_server.errors import PortInUseError

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# From a log's flush to a submission that rebuilds a model, and a query about many images.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The numbers of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter(
            "auditkit_requests", "Requests that were answered.", "method", "route", "status"
        )
        self._request_seconds = self._histogram(
            "auditkit_request_seconds", "Time to answer a request.", "method", "route"
        )
        self._refusals = self._counter(
            "auditkit_refusals", "Requests that were refused by a rule.", "error"
        )
        self.records = self._counter("auditkit_records_appended", "Records that came.")
        self.checkpoints = self._counter(
            "auditkit_checkpoints_cosigned", "Checkpoints of sessions that were cosigned."
        )
        self.verdicts = self._counter("auditkit_verdicts", "Verdicts that were signed.", "outcome")
        self._inference_waiting = Gauge(
            "auditkit_inference_waiting",
            "Calls that wait for a process that opens images or runs models.",
            ["kind"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._inference_wait_seconds = self._histogram(
            "auditkit_inference_wait_seconds", "Time that calls waited for a process.", "kind"
        )
        self._inference_seconds = self._histogram(
            "auditkit_inference_seconds", "Time that calls had a process.", "kind"
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its template, so that no name of anything is in it."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def refused(self, error: str) -> None:
        """Count a refusal by the name of its rule."""
        self._refusals.labels(error).inc()

    @contextmanager
    def waiting(self, kind: str) -> Iterator[None]:
        """Count a call that waits for a process of one kind, and how long it does."""
        with (
            self._inference_waiting.labels(kind).track_inprogress(),
            self._inference_wait_seconds.labels(kind).time(),
        ):
            yield

    @contextmanager
    def working(self, kind: str) -> Iterator[None]:
        """Count how long a call has a process of one kind."""
        with self._inference_seconds.labels(kind).time():
            yield

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, *labels: str) -> Histogram:
        return Histogram(name, what, labels, registry=self.registry, buckets=SECONDS)


class _OfWorkers(Collector):
    """The sum over all workers, also over those that have been replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all = MultiProcessCollector(CollectorRegistry(), str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """Return all numbers; nobody waits in a process that is gone."""
        for path in self._folder.glob("gauge_live*.db"):
            process = path.stem.rpartition("_")[2]
            if not Path(f"/proc/{process}").exists():
                mark_process_dead(int(process), str(self._folder))  # type: ignore[no-untyped-call]
        found: Iterable[Metric] = self._all.collect()  # type: ignore[no-untyped-call]
        return found


@contextmanager
def collected_from_workers() -> Iterator[CollectorRegistry]:
    """Give the numbers of the workers that are started meanwhile."""
    with tempfile.TemporaryDirectory(prefix="auditkit-metrics-") as folder:
        registry = CollectorRegistry()
        registry.register(_OfWorkers(Path(folder)))
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield registry
        finally:
            del os.environ[FOLDER_VARIABLE]


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve metrics at an address of their own, for whoever reaches it; give the port.

    Raises:
        PortInUseError: host and port can't be bound.

    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise PortInUseError(
            f"can't serve metrics on {host} port {port}: {error.strerror}; choose another port"
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
