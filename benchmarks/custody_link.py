"""What an auditor-held MINT Model costs: bytes and seconds per step, over fast and slow links.

    python benchmarks/custody_link.py

Trains a small ResNet on images of 32 x 32, 64 members and 64 external samples a step: T in the same
process, T behind a loopback connection, and T behind a link of 50 ms one way and 10 Mbit/s. The
link is a proxy that delays each block by its own time on the line. The first two are given in
processor time of both sides together, which other programs do not change, the last one in seconds
on the clock. Signing, journal and database of the real server come on top, some milliseconds a
step. Prints a table in Markdown.
"""

import socket
import socketserver
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import numpy as np
import requests
import torch
from torch import Tensor

from auditkit.mint import split_training, steps
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.objective import Objective
from auditkit.mint.split_training import HeldMint, HeldStep, pack_maps, unpack_maps
from schemas import (
    MintConfig,
    ModelConfig,
    Normalisation,
    OptimiserConfig,
    TapConfig,
    TrainingConfig,
)
from schemas.training import HeadName, TapSetup, WirePrecision

STEPS = 3  # the first is left out of the median: it builds what later ones reuse
SEED = 11
ROWS = steps.RowCounts(told=64, silent=0, told_only=0, external=64)
NORMALISATION = Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3)
BLOCK_BYTES = 2**14


@dataclass(frozen=True)
class Link:
    """A way between agent and server."""

    name: str
    delay_seconds: float = 0.0  # one way
    bits_per_second: float = 0.0  # 0: not limited


LOOPBACK = Link("loopback")
SLOW = Link("50 ms, 10 Mbit/s", 0.05, 10e6)


@dataclass(frozen=True)
class Cost:
    """Median seconds of one step: on the clock, and of processor time on both sides."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    taps: TapSetup
    head: HeadName
    precision: WirePrecision
    sent: int
    together: Cost
    loopback: Cost
    slow: Cost


def make_config(taps: TapSetup, head: HeadName, precision: WirePrecision) -> TrainingConfig:
    """Return a small ResNet on images of 32 x 32."""
    return TrainingConfig(
        name="link",
        model=ModelConfig(
            architecture="resnet18",
            classes=10,
            channels=3,
            height=32,
            width=32,
            stem_stride=1,
            stem_pool=False,
            arguments={"channels": (16, 32, 64, 128)},
        ),
        taps=TapConfig(setup=taps),
        mint=MintConfig(head=head, custody="auditor", wire_precision=precision),
        optimiser=OptimiserConfig(learning_rate=0.01),
        epochs=1,
        batch_size=ROWS.trained,
        external_batch_size=ROWS.external,
        threads=1,
    )


def make_batch(config: TrainingConfig, number: int) -> steps.Batch:
    """Return a batch of noise."""
    generator = np.random.default_rng(number)
    count = ROWS.trained + ROWS.told_only + ROWS.external
    return steps.new_batch(
        generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        generator.integers(0, 10, count),
        ROWS,
        words=generator.integers(0, 2**32, count, dtype=np.uint32),
        config=config,
        normalisation=NORMALISATION,
    )


def train(config: TrainingConfig, url: str | None) -> Cost:
    """Return what a step costs, with T here or behind a connection."""
    model = EnhancedAuditedModel.build(config, SEED, head=url is None)
    model.to(memory_format=torch.channels_last)
    optimiser = steps.new_optimiser(model, config.optimiser)
    shapes = tuple(model.aad_shapes.values())
    weight = config.mint.mint_weight if url is None else 0.0
    objective = Objective(config.mint.task_weight, weight)
    http = requests.Session()

    def exchange(maps: Sequence[Tensor]) -> HeldStep:
        payload = pack_maps(maps, config.mint.wire_precision)
        answer = http.post(f"{url}/", data=payload)
        answer.raise_for_status()
        gradients = unpack_maps(answer.content, shapes, len(maps[0]), config.mint.wire_precision)
        return HeldStep(1.0, 0.5, 1.0, gradients)

    model.train()
    costs = []
    for number in range(STEPS):
        batch = make_batch(config, number)
        started, computed = time.perf_counter(), time.process_time()
        if url is None:
            losses = steps.joint_losses(model, objective, batch, config)
        else:
            losses = split_training.split_losses(model, objective, batch, config, exchange)
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call] # torch
        optimiser.step()
        costs.append(Cost(time.perf_counter() - started, time.process_time() - computed))
    return Cost(
        statistics.median(cost.clock for cost in costs[1:]),
        statistics.median(cost.processor for cost in costs[1:]),
    )


@contextmanager
def serving(config: TrainingConfig) -> Iterator[int]:
    """Hold T behind a port until the end of the block."""
    shapes = tuple(EnhancedAuditedModel.build(config, SEED, head=False).aad_shapes.values())
    held = HeldMint(config, shapes, SEED)
    told = split_training.targets(ROWS, None)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            maps = unpack_maps(data, shapes, len(told.membership), config.mint.wire_precision)
            found = held.step(maps, told, learning_rate=0.01, seed=SEED)
            answer = pack_maps(found.gradients, config.mint.wire_precision)
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Keep the output a table."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


@contextmanager
def linked(port: int, link: Link) -> Iterator[str]:
    """Return an address that leads to the port over a link."""
    if not link.bits_per_second:
        yield f"http://127.0.0.1:{port}"
        return

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as upstream:
                there = threading.Thread(target=carry, args=(self.request, upstream, link))
                there.start()
                carry(upstream, cast(socket.socket, self.request), link)
                there.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def carry(source: socket.socket, target: socket.socket, link: Link) -> None:
    """Pass on bytes as a line does: one after the other, each after its time on the way."""
    free_at = 0.0
    waiting: list[tuple[float, bytes]] = []
    arrived = threading.Condition()

    def deliver() -> None:
        while True:
            with arrived:
                while not waiting:
                    arrived.wait()
                due, block = waiting.pop(0)
            time.sleep(max(0.0, due - time.monotonic()))
            if not block:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(block)

    delivery = threading.Thread(target=deliver, daemon=True)
    delivery.start()
    while True:
        block = source.recv(BLOCK_BYTES)
        free_at = max(free_at, time.monotonic()) + 8 * len(block) / link.bits_per_second
        with arrived:
            waiting.append((free_at + link.delay_seconds, block))
            arrived.notify()
        if not block:
            delivery.join()
            return


def measure(taps: TapSetup, head: HeadName, precision: WirePrecision) -> Row:
    """Measure one configuration over every link."""
    config = make_config(taps, head, precision)
    shapes = EnhancedAuditedModel.build(config, SEED, head=False).aad_shapes.values()
    rows = ROWS.members + ROWS.external
    sent = len(pack_maps([torch.zeros(rows, *shape) for shape in shapes], precision))
    with serving(config) as port:
        with linked(port, LOOPBACK) as url:
            loopback = train(config, url)
        with linked(port, SLOW) as url:
            slow = train(config, url)
    return Row(taps, head, precision, sent, train(config, None), loopback, slow)


CASES: tuple[tuple[TapSetup, HeadName, WirePrecision], ...] = (
    ("entry", "strided", "float16"),
    ("middle", "convolutional", "float16"),
    ("middle", "fully_connected", "float16"),
    ("middle", "fully_connected", "float32"),
    ("middle", "strided", "float16"),
    ("output", "fully_connected", "float16"),
)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    columns = ("taps", "head", "on the wire", "MB each way", "one process", "two sides", SLOW.name)
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---:|---:|---:|---:|")
    for case in CASES:
        row = measure(*case)
        print(
            f"| {row.taps} | {row.head} | {row.precision} | {row.sent / 1e6:.2f} "
            f"| {row.together.processor:.2f} | {row.loopback.processor:.2f} "
            f"| {row.slow.clock:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
