"""Models of others run in processes that may be slow, greedy or dead, and nothing else is."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_built import CONFIG, PURPOSE, HandBuiltAgent, is_problem, make_request
from live import LiveServer
from PIL import Image
from processes import children, model_workers, processor_ticks, state
from submitted import MINT, MODEL, NORMALISATION, TAPS, as_png, flat_calibration, noise_image
from submitted import make_submission as submission_for

from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.model_checks import RebuildingError
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import (
    NonFiniteScoreError,
    UnbuildableModelError,
    WeightsMismatchError,
)
from auditkit.mint.evaluation import ask
from auditkit.mint.initial import initial_weights_digest
from auditkit.mint.models import thread_count
from auditor_server.errors import (
    InferenceBusyError,
    InferenceCrashedError,
    InferenceMemoryError,
    InferenceTimeoutError,
)
from auditor_server.inference.service import Inference
from auditor_server.loaded_models import LoadedModel
from auditor_server.settings import MEBIBYTE, ServerSettings
from auditor_server.store.blobs import BlobFolder
from schemas import ModelDescription, SessionRequest

CODES = MINT.model_copy(update={"evidence": "codes"})
# 200,000 classes: 51 MB of weights, which are copied twice while they are loaded.
GREEDY = MODEL.model_copy(update={"classes": 200_000})
IMAGE = noise_image(1)
ENDLESS = [IMAGE] * 100_000


class Submitted:
    """A model as it lies in the blob store."""

    def __init__(
        self, blobs: BlobFolder, model: Any = MODEL, mint: Any = MINT, *, broken: bool = False
    ) -> None:
        self.model = EnhancedAuditedModel.build((model, TAPS, mint), 7).eval()
        if broken:
            for parameter in self.model.parameters():
                torch.nn.init.constant_(parameter, 1e30)  # overflows
        weights = self.model.weights()
        self.description = ModelDescription(
            session_id="session-1",
            model=model,
            taps=TAPS,
            mint=mint,
            normalisation=NORMALISATION,
            class_names=tuple(f"class {number}" for number in range(model.classes)),
            weights_digest=sha256_hex(weights),
            parameters=1,
        )
        self.digests = (
            blobs.write(BytesIO(weights)),
            blobs.write(BytesIO(to_bytes(self.description))),
        )

    def expected(self, images: list[np.ndarray]) -> np.ndarray:
        with thread_count(1):
            return np.concatenate(
                [ask(self.model, image[None], NORMALISATION).outputs for image in images]
            )


@pytest.fixture(name="blobs", scope="module")
def fixture_blobs(tmp_path_factory: pytest.TempPathFactory) -> BlobFolder:
    folder = tmp_path_factory.mktemp("home") / "blobs"
    folder.mkdir()
    (folder.parent / "secret.pem").write_text("the auditor's key")
    return BlobFolder(folder)


@pytest.fixture(name="small", scope="module")
def fixture_small(blobs: BlobFolder) -> Submitted:
    return Submitted(blobs)


@pytest.fixture(name="inference", scope="module")
def fixture_inference(blobs: BlobFolder) -> Iterator[Inference]:
    """As in a server whose environment holds a password."""
    settings = ServerSettings(
        home=blobs.folder.parent,
        most_model_memory_bytes=128 * MEBIBYTE,
        most_waiting=4,
    )
    inference = Inference(settings, blobs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_PASSWORD", "secret-1234")
        yield inference
    inference.stop()


def request_for(model: Any) -> SessionRequest:
    config = CONFIG.model_copy(update={"model": model, "mint": MINT})
    return make_request("00" * 32, SigningKey.generate(), config=config)


def wait_until_it_computes(pid: int) -> None:
    start, end = processor_ticks(pid), time.monotonic() + 60
    while processor_ticks(pid) < start + 10:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_says_bit_for_bit_what_the_model_says(
    inference: Inference, blobs: BlobFolder, small: Submitted
) -> None:
    images = [noise_image(seed) for seed in range(8)]
    for submitted in (small, Submitted(blobs, mint=CODES)):
        found = inference.outputs(submitted.description, submitted.digests, images)
        np.testing.assert_array_equal(found, submitted.expected(images))


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_initial_weights_are_the_same_in_a_worker(inference: Inference, seed: int) -> None:
    request = request_for(MODEL)
    assert inference.initial_weights_digest(request, seed) == initial_weights_digest(request, seed)


def test_what_is_wrong_with_a_model_is_told_with_its_own_error(
    inference: Inference, blobs: BlobFolder, small: Submitted
) -> None:
    other = Submitted(blobs, MODEL.model_copy(update={"classes": 3}))
    with pytest.raises(WeightsMismatchError, match="belong to another model"):
        inference.outputs(small.description, (other.digests[0], small.digests[1]), [IMAGE])
    unknown = request_for(MODEL.model_copy(update={"architecture": "no_such_network"}))
    with pytest.raises(UnbuildableModelError, match="cannot be built"):
        inference.initial_weights_digest(unknown, 1)


@pytest.mark.parametrize("mint", [MINT, CODES], ids=["membership", "codes"])
def test_a_model_that_says_no_numbers_has_no_answer(
    inference: Inference, blobs: BlobFolder, mint: Any
) -> None:
    broken = Submitted(blobs, mint=mint, broken=True)
    scores = flat_calibration(0.0)
    loaded = LoadedModel(inference, broken.digests, broken.description, scores)
    with pytest.raises(NonFiniteScoreError, match="session-1"):
        loaded.outputs([IMAGE])


def test_a_worker_has_no_secret_and_little_of_the_machine(
    inference: Inference, small: Submitted
) -> None:
    inference.outputs(small.description, small.digests, [IMAGE])
    (worker,) = model_workers(os.getpid())
    place = Path(f"/proc/{worker}")
    assert b"secret-1234" not in (place / "environ").read_bytes()  # see `inference`
    assert os.getpgid(worker) == worker
    lines = (place / "limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:].split()[0] for line in lines}
    assert (limits["Max core file size"], limits["Max file size"]) == ("0", "0")
    assert limits["Max open files"] == "64"
    assert limits["Max cpu time"] != "unlimited"
    assert limits["Max address space"] != "unlimited"
    connections = {str(entry.readlink()) for entry in (place / "fd").iterdir()} - {"/dev/null"}
    assert len(connections) == 1


def test_greedy_and_killed_models_cost_nobody_else_anything(
    inference: Inference, blobs: BlobFolder, small: Submitted
) -> None:
    def works() -> bool:
        outputs = inference.outputs(small.description, small.digests, [IMAGE])
        return np.array_equal(outputs, small.expected([IMAGE]))

    greedy = Submitted(blobs, GREEDY)
    with pytest.raises(InferenceMemoryError, match="raise the limit"):
        inference.outputs(greedy.description, greedy.digests, [IMAGE])
    with pytest.raises(RebuildingError, match="memory"):
        inference.initial_weights_digest(request_for(GREEDY), 1)
    assert works()
    (worker,) = model_workers(os.getpid())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(inference.outputs, small.description, small.digests, ENDLESS)
        wait_until_it_computes(worker)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(InferenceCrashedError, match="SIGKILL"):
            asked.result()
    assert works()
    (idle,) = model_workers(os.getpid())
    os.kill(idle, signal.SIGKILL)
    while state(idle) != "Z":
        time.sleep(0.01)
    assert works()  # that it died while nobody used it is nobody's business


def test_a_slow_model_is_given_up(blobs: BlobFolder, small: Submitted) -> None:
    before = set(children(os.getpid()))
    hurried = Inference(ServerSettings(home=blobs.folder.parent, most_model_seconds=0.5), blobs)
    with pytest.raises(InferenceTimeoutError, match=r"not done within 0\.5 s"):
        hurried.outputs(small.description, small.digests, ENDLESS)
    assert set(children(os.getpid())) == before


def test_threads_are_served_one_after_the_other_and_get_their_own_answers(
    inference: Inference, small: Submitted
) -> None:
    images = [noise_image(seed) for seed in range(5)]
    expected = small.expected(images)

    def answer(place: int) -> bool:
        found = inference.outputs(small.description, small.digests, [images[place]] * 3)
        return np.array_equal(found, np.repeat(expected[place : place + 1], 3))

    with ThreadPoolExecutor(len(images)) as pool:
        assert all(pool.map(answer, range(len(images))))
    assert len(model_workers(os.getpid())) == 1


def plain_text_image(side: int) -> bytes:
    """A picture as decimal numbers, which takes very long to read."""
    return b"P3 %d %d 255\n" % (side, side) + b"17 " * (3 * side * side)


def decoder(blobs: BlobFolder, **limits: Any) -> Inference:
    return Inference(ServerSettings(home=blobs.folder.parent, **limits), blobs)


def test_an_image_that_takes_too_much_costs_a_decoder_and_nothing_else(blobs: BlobFolder) -> None:
    picture = [("a.png", as_png(IMAGE))]
    frugal = decoder(blobs, most_decoding_memory_bytes=48 * MEBIBYTE)
    large = Image.new("RGB", (5_000, 5_000))
    file = BytesIO()
    large.save(file, "PNG")
    with pytest.raises(InferenceMemoryError, match=r"decoding large\.png: needs more memory"):
        frugal.decode([("large.png", file.getvalue())], 5_000, 5_000, 3)
    np.testing.assert_array_equal(frugal.decode(picture, 32, 32, 3), [IMAGE])
    hurried = decoder(blobs, most_decoding_seconds=1.0)
    with pytest.raises(InferenceTimeoutError, match=r"decoding slow\.ppm: not done within 1 s"):
        hurried.decode([("slow.ppm", plain_text_image(1_500))] * 1_000, 1_500, 1_500, 3)
    for each in (frugal, hurried):
        each.stop()


def test_a_decoder_that_dies_takes_its_own_call_with_it(blobs: BlobFolder) -> None:
    inference, before = decoder(blobs), set(children(os.getpid()))
    picture = [("a.png", as_png(IMAGE))]
    np.testing.assert_array_equal(inference.decode(picture, 32, 32, 3), [IMAGE])
    (worker,) = set(children(os.getpid())) - before
    with ThreadPoolExecutor(1) as pool:
        slow = [("slow.ppm", plain_text_image(1_500))] * 1_000
        asked = pool.submit(inference.decode, slow, 1_500, 1_500, 3)
        wait_until_it_computes(worker)
        os.kill(worker, signal.SIGSEGV)
        with pytest.raises(InferenceCrashedError, match=r"slow\.ppm.*SIGSEGV"):
            asked.result()
    np.testing.assert_array_equal(inference.decode(picture, 32, 32, 3), [IMAGE])
    inference.stop()


OUT_OF_REACH = """
import os, socket, sys, threading
from pathlib import Path
from auditor_server.inference.confinement import confine

blobs = Path(sys.argv[1])
ready = confine(blobs)
assert ready.network_closed and ready.files_closed, ready
attempts = {
    "read a key": lambda: (blobs.parent / "secret.pem").read_bytes(),
    "read what the server may": lambda: Path("/etc/passwd").read_bytes(),
    "list the home": lambda: os.listdir(blobs.parent),
    "write": lambda: (blobs / "mine").write_bytes(b""),
    "delete": lambda: (blobs / "blob").unlink(),
    "connect": lambda: socket.socket(),
    "pair": lambda: socket.socketpair(),
    "fork": os.fork,
    "execute": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "kill the server": lambda: os.kill(os.getppid(), 0),
    "limit the server": lambda: __import__("resource").prlimit(os.getppid(), 7),
    "look into the server": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except PermissionError:
        continue
    print(name)
assert (blobs / "blob").read_bytes() == b"weights"
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
"""


def test_a_confined_process_reaches_the_submitted_files_and_nothing_else(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / "blob").write_bytes(b"weights")
    (tmp_path / "secret.pem").write_text("the auditor's key")
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_REACH, str(blobs)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_too_many_waiting_are_sent_away(inference: Inference, small: Submitted) -> None:
    (worker,) = model_workers(os.getpid())
    with ThreadPoolExecutor(6) as pool:
        asked = [
            pool.submit(inference.outputs, small.description, small.digests, ENDLESS)
            for _ in range(6)
        ]
        wait_until_it_computes(worker)
        # Which of the six comes last is not for a test to say.
        (sent_away,) = wait(asked, return_when=FIRST_COMPLETED).done
        with pytest.raises(InferenceBusyError, match="4 calls are waiting"):
            sent_away.result()
        inference.stop()
        errors = [call.exception() for call in asked if call is not sent_away]
    assert {type(error) for error in errors} == {InferenceCrashedError, InferenceBusyError}


@pytest.fixture(name="submitted")
def fixture_submitted(new_agent: Any) -> HandBuiltAgent:
    agent: HandBuiltAgent = new_agent()
    submission = submission_for(agent.grant.session_id, flat_calibration(0.0))
    submission.seal(agent)
    assert submission.send(agent).status_code == 200
    return agent


def test_a_worker_killed_in_the_middle_of_a_query_costs_that_query_only(
    submitted: HandBuiltAgent, live_server: LiveServer
) -> None:
    client = live_server.client("compliance-officer")

    def query(count: int) -> Any:
        files = [("images", (f"{i}.png", as_png(IMAGE))) for i in range(count)]
        return client.post(f"{submitted.path}/queries", data=PURPOSE, files=files)

    first = query(1)
    assert first.status_code == 200, first.text
    server = live_server.process.pid
    (worker,) = model_workers(server)
    killer = threading.Thread(
        target=lambda: (wait_until_it_computes(worker), os.kill(worker, signal.SIGKILL))
    )
    killer.start()
    response = query(256)
    killer.join()
    assert is_problem(response, 503, "InferenceCrashedError")
    assert "SIGKILL" in response.json()["detail"]
    assert query(1).status_code == 200


def test_no_worker_outlives_its_server(own_server: LiveServer) -> None:
    own_server.start()
    agent = own_server.open_session("digits-2026", own_server.add_order("digits-2026"))
    submission = submission_for(agent.grant.session_id, flat_calibration(0.0))
    submission.seal(agent)
    assert submission.send(agent).status_code == 200
    files = [("images", ("not-an-image.png", b"GIF89a"))]
    response = own_server.client("auditor").post(f"{agent.path}/queries", files=files)
    assert is_problem(response, 422, "NotAnImageError")
    (decoder,) = children(own_server.process.pid)
    own_server.kill()
    while Path(f"/proc/{decoder}/cmdline").exists() and state(decoder) != "Z":
        time.sleep(0.01)  # one that stays keeps the test run from ending
