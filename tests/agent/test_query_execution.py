"""A question to a model of the developer's own code, as the container answers it."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from own_auditor import own_auditor, small
from test_training_loop import HALF_LOOP, HELPER, Watcher

from auditkit.evidence import canonical
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.evaluation import ask
from containers.query_task import QueryTask, lay_out, read_answer
from developer_agent import trainer
from developer_agent.run_folder import RunFolder
from developer_agent.session import read_grant
from developer_agent.supervised_run import Run
from schemas import ModelDescription, SessionRequest

ASK = (
    "import sys; from pathlib import Path; from developer_agent.query_execution import *; "
    "print(answer_query(Path(sys.argv[1]), Path(sys.argv[2])))"
)
CODES = '[training.mint]\nevidence = "codes"\ncode_length = 128\n'
PICTURES = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)


@dataclass(frozen=True)
class Trained:
    folder: RunFolder
    code: Path

    @property
    def description(self) -> ModelDescription:
        return ModelDescription.from_bytes(self.folder.description.read())

    def task(self) -> QueryTask:
        return QueryTask(
            request=SessionRequest.from_bytes(self.folder.request.read()),
            grant=read_grant(self.folder),
            normalisation=self.description.normalisation,
            loop="train.py",
        )


@pytest.fixture(scope="module", params=["membership", "codes"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("own")
    (folder / "train.py").write_text(HALF_LOOP.format(end="return supervision.seal()"))
    (folder / "helper.py").write_text(HELPER)
    with own_auditor(folder, allow_without_container=True) as auditor:
        path = auditor.config(folder, epochs=1)
        text = path.read_text()
        if request.param == "codes":
            text = text.replace("[training.mint]\n", CODES)
        path.write_text(text + '[code]\nloop = "train.py"\nfiles = ["helper.py"]\n')
        run = Run.from_file(path, auditor.token)
        trainer.train(run, Watcher())
        yield Trained(RunFolder(run.folder_path), folder)


def test_the_developers_loop_builds_the_model_and_nothing_is_taught(
    trained: Trained, tmp_path: Path
) -> None:
    """Also where T says codes: none is in the question."""
    weights = trained.folder.weights.read()
    lay_out(tmp_path, canonical.to_bytes(trained.task()), weights, PICTURES.tobytes())
    done = subprocess.run(
        [sys.executable, "-c", ASK, tmp_path, trained.code], capture_output=True, check=True
    )
    expected = expected_outputs(trained, weights)
    outputs = np.frombuffer(read_answer(done.stdout, expected.shape), dtype="<f4")
    assert outputs.reshape(expected.shape) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def expected_outputs(trained: Trained, weights: bytes) -> np.ndarray:
    description = trained.description
    parts = (description.model, description.taps, description.mint)
    model = EnhancedAuditedModel.build(parts, 0, small(seed=2))
    model.load_weights(weights)
    outputs: np.ndarray = ask(model, PICTURES, description.normalisation).outputs
    return outputs
