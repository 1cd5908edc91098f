"""A training loop of the developer's own, named in the configuration."""

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from own_auditor import OwnAuditor, own_auditor

from developer_agent import trainer
from developer_agent.errors import AgentError
from developer_agent.run_config import CodeConfig, parse_run_config
from developer_agent.session import RunMismatchError, Session
from developer_agent.source_files import SourceFileError, source_files
from developer_agent.supervised_run import Run, RunOutcome
from developer_agent.supervision import StepProgress
from developer_agent.training_loop import (
    LoopFileMissingError,
    LoopFunctionMissingError,
    LoopImportError,
    LoopResultError,
    LoopUnsealedError,
    load_loop,
)
from developer_agent.uplink import UplinkState
from schemas import SessionRequest

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop"
HALF_LOOP = """
from helper import build

def train(run):
    supervision = run.supervision
    supervision.enhance(build())
    optimiser = supervision.optimiser()
    for batch in supervision.batches():
        losses = supervision.losses(batch)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        supervision.step(batch, losses)
    {end}
"""
HELPER = """
from tests.agent.own_auditor import small

def build():
    return small(seed=1)
"""


class Watcher:
    """A display that remembers."""

    def __init__(self) -> None:
        self.steps: list[StepProgress] = []
        self.said: list[str] = []

    def session_opened(self, session: Session, total_steps: int) -> None:
        self.said.append(f"opened {total_steps}")

    def resumed(self, step: int, discarded: int) -> None:
        self.said.append(f"resumed {step} {discarded}")

    def step_done(self, step: StepProgress, uplink: UplinkState) -> None:
        assert uplink.spooled > step.step
        self.steps.append(step)

    def sealing(self) -> None:
        self.said.append("sealing")

    def sending(self) -> None:
        self.said.append("sending")


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnAuditor]:
    folder = tmp_path_factory.mktemp("auditor")
    with own_auditor(folder, allow_without_container=True, most_sessions=100) as auditor:
        yield auditor


@pytest.fixture
def run(auditor: OwnAuditor, tmp_path: Path) -> Run:
    """A run with a loop in the folder `code`, apart from the configuration as in an image."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(HALF_LOOP.format(end="return supervision.seal()"))
    (code / "helper.py").write_text(HELPER)
    path = auditor.config(tmp_path)
    path.write_text(path.read_text() + '[code]\nloop = "train.py"\nfiles = ["helper.py"]\n')
    return replace(Run.from_file(path, auditor.token), code_folder=code)


def test_the_example_trains_and_verifies(auditor: OwnAuditor, tmp_path: Path) -> None:
    document = tomllib.loads((EXAMPLE / "digits.toml").read_text())
    document["output"] = str(tmp_path / "run")
    document["server"] = {"url": auditor.url, "order": "own", "trust_root": str(auditor.trust_root)}
    document["training"]["epochs"] = 3
    run = Run(parse_run_config(document, "digits.toml"), EXAMPLE, auditor.token)
    watcher = Watcher()
    result, cohorts = trainer.train(run, watcher)
    assert result.outcome is RunOutcome.SUBMITTED
    assert result.report is not None
    assert result.report.passed, result.report
    assert set(cohorts) == {"told", "silent", "external", "calibration", "test"}
    total = watcher.steps[-1].total_steps
    assert [step.step for step in watcher.steps] == list(range(1, total + 1))
    assert watcher.said == [f"opened {total}", "sealing", "sending"]


def test_a_loop_with_a_module_of_its_own_is_resumed(run: Run) -> None:
    class Impatient(Watcher):
        def step_done(self, step: StepProgress, uplink: UplinkState) -> None:
            if step.step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(run, Impatient())
    watcher = Watcher()
    result, _ = trainer.train(run, watcher, resume=True)
    assert result.report is not None
    assert result.report.passed
    assert "resumed 2 1" in watcher.said


def test_all_files_that_the_configuration_names_are_in_the_code_digest(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer.train(run, Interrupting())
    assert run.code_folder is not None
    for name in ("train.py", "helper.py"):
        path = run.code_folder / name
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        with pytest.raises(RunMismatchError, match="training code"):
            trainer.train(run, Watcher(), resume=True)
        path.write_text(text)
    digest = SessionRequest.from_bytes((run.folder_path / "request.json").read_bytes()).code_digest
    assert len(digest) == 64


class Interrupting(Watcher):
    def session_opened(self, session: Session, total_steps: int) -> None:
        raise KeyboardInterrupt


def test_files_are_named_by_their_place_below_the_code_folder(tmp_path: Path) -> None:
    for name in ("train.py", "lib/a.py", "lib/deep/b.py", "lib/table.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    code = CodeConfig(loop="train.py", files=("lib", "lib/a.py", "lib/table.csv"))
    files = source_files(code, tmp_path)
    names = ["lib/a.py", "lib/deep/b.py", "lib/table.csv", "train.py"]
    assert [file.name for file in files] == names
    for wrong in ("../other.py", "/etc/hostname"):
        with pytest.raises(SourceFileError, match="outside"):
            source_files(CodeConfig(loop=wrong), tmp_path)
    with pytest.raises(SourceFileError, match="there is no"):
        source_files(CodeConfig(loop="train.py", files=("gone.py",)), tmp_path)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, LoopFileMissingError, "code.loop"),
        ("x = 1\n", LoopFunctionMissingError, "no function `train`"),
        ("train = 1\n", LoopFunctionMissingError, "no function `train`"),
        ("import no_such_module_at_all\n", LoopImportError, "no_such_module_at_all"),
        ("def train(run:\n", LoopImportError, "SyntaxError"),
        ("def f():\n    return 1 / 0\nf()\n", LoopImportError, r"in f\n(.|\n)*ZeroDivisionError"),
    ],
)
def test_a_loop_that_cannot_be_loaded_says_why(
    tmp_path: Path, text: str | None, error: type[AgentError], message: str
) -> None:
    path = tmp_path / "loop.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=message) as caught:
        load_loop(path)
    assert "importlib" not in str(caught.value)


def test_a_mistake_shows_before_a_session_is_opened(run: Run) -> None:
    assert run.code_folder is not None
    (run.code_folder / "train.py").write_text("import nothing_like_it\n")
    with pytest.raises(LoopImportError):
        trainer.train(run, Watcher())
    assert not run.folder_path.exists()


@pytest.mark.parametrize(
    ("end", "error"), [("return {}", LoopUnsealedError), ("supervision.seal()", LoopResultError)]
)
def test_a_loop_that_ends_otherwise_than_it_must_is_told(
    run: Run, end: str, error: type[AgentError]
) -> None:
    assert run.code_folder is not None
    (run.code_folder / "train.py").write_text(HALF_LOOP.format(end=end))
    with pytest.raises(error, match=r"supervision\.seal"):
        trainer.train(run, Watcher())
