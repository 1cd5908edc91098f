"""Help that someone can learn from, and examples that stay true."""

import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditkit.cli.auditor import read_order
from auditkit.cli.demo import example
from auditkit.cli.errors import UsageError
from auditkit.cli.overrides import apply_overrides
from auditkit.evidence.policy import split_sizes
from auditkit.mint.enhanced import EnhancedAuditedModel
from developer_agent.errors import AgentError
from developer_agent.run_config import parse_run_config, read_toml

NAMES = ["digits", "mnist", "cifar10"]
COMMANDS = [
    ("init",),
    ("serve",),
    ("order", "create"),
    ("order", "show"),
    ("order", "list"),
    ("access", "organisation", "add"),
    ("access", "organisation", "list"),
    ("access", "token", "create"),
    ("access", "token", "list"),
    ("access", "token", "revoke"),
    ("access", "user", "add"),
    ("access", "user", "list"),
    ("access", "user", "disable"),
    ("access", "user", "password"),
    ("access", "trail"),
    ("trust", "init"),
    ("trust", "show"),
    ("trust", "key"),
    ("trust", "rotate"),
    ("trust", "sign"),
    ("trust", "revoke"),
    ("trust", "update"),
    ("train",),
    ("sync",),
    ("submit",),
    ("open",),
    ("verify",),
    ("export",),
    ("query",),
    ("report",),
    ("package",),
    ("evaluate",),
    ("study", "factors"),
    ("image", "identity"),
    ("image", "verify"),
    ("image", "diff"),
    ("doctor",),
    ("demo",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.split()) > 20


def test_version_and_help_do_not_wait_for_torch() -> None:
    code = "import sys, auditkit.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_valid_and_fit_their_orders(name: str) -> None:
    config = parse_run_config(read_toml(example(f"{name}.toml")), name)
    order = read_order(example(f"orders/{name}.toml"), "Authority", datetime.now(UTC))
    assert config.server.order == order.order_id
    assert config.developer == order.developer
    pool_size = config.pool.selection.limit
    assert pool_size is not None
    assert split_sizes(order.split, pool_size).calibration >= order.least_calibration_samples
    EnhancedAuditedModel.build(config.training, seed=0)


def test_typo_is_answered_with_the_right_name() -> None:
    document = tomllib.loads(example("digits.toml").read_text())
    document["training"]["mint"]["hiden"] = [1]
    with pytest.raises(AgentError, match=r"training\.mint\.hiden: .*did you mean 'hidden'"):
        parse_run_config(document, "digits.toml")


def test_typo_in_an_optional_section_is_answered_with_the_right_name() -> None:
    document = tomllib.loads(example("digits.toml").read_text())
    document["container"] = {"image": "image.tar", "memory": 4}
    document["code"] = {"lop": "loop.py"}
    with pytest.raises(AgentError) as caught:
        parse_run_config(document, "digits.toml")
    assert "container.memory: unknown setting; did you mean 'memory_gib'?" in str(caught.value)
    assert "code.lop: unknown setting; did you mean 'loop'?" in str(caught.value)


def test_overrides_change_one_setting_and_keep_the_rest() -> None:
    document = {"training": {"epochs": 3, "name": "x"}, "output": "run"}
    changed = apply_overrides(
        document, ["training.epochs=5", "output=/tmp/elsewhere", "pool.path=a b"]
    )
    assert changed == {
        "training": {"epochs": 5, "name": "x"},
        "output": "/tmp/elsewhere",
        "pool": {"path": "a b"},
    }
    assert document["training"] == {"epochs": 3, "name": "x"}


@pytest.mark.parametrize("override", ["epochs", "=3", "output.path=3"])
def test_broken_overrides_are_refused(override: str) -> None:
    with pytest.raises(UsageError):
        apply_overrides({"output": "run"}, [override])


def test_demo_refuses_a_folder_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
