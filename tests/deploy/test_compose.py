"""The compose file and the image's recipe say what this version of the programs understands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from auditkit.cli.application import app
from auditor_server import flags
from auditor_server.settings import DATABASE_PASSWORD_VARIABLE, DATABASE_URL_VARIABLE
from auditor_server.store_checks import RULES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
OURS = ("server", "witness")


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_started_as_the_command_line_has_it(name: str) -> None:
    command, words = get_command(app), list(SERVICES[name]["command"])
    context = None
    while hasattr(command, "commands"):
        word = words.pop(0)
        context = command.make_context(word, [word], parent=context, resilient_parsing=True)
        command = command.commands[word]
    parsed = command.make_context(command.name, words, parent=context)
    assert parsed.params["host"] == "0.0.0.0"
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words} <= known
    port = parsed.params["port"]
    assert f"127.0.0.1:{port}:{port}" in SERVICES[name]["ports"]
    assert str(port) in str(SERVICES[name]["healthcheck"]["test"])
    assert str(parsed.params["home"]).startswith(SERVICES[name]["volumes"][0].partition(":")[2])


def test_every_service_is_watched_and_nothing_is_fetched_or_open_to_others() -> None:
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["pull_policy"] == "never", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert set(service["networks"]) <= COMPOSE["networks"].keys(), name
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= (
            COMPOSE["volumes"].keys()
        ), name
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys(), name
    for name in OURS:
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert SERVICES["database"]["networks"] == ["inside"]


def test_no_password_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SERVICES["server"]["environment"]
    secret = tmp_path / "database_password"
    secret.write_text("word with / and @ in it\n")
    url = environment[DATABASE_URL_VARIABLE]
    assert flags.database_secret(url).get_secret_value() == url  # type: ignore[union-attr]
    monkeypatch.setenv(DATABASE_PASSWORD_VARIABLE, str(secret))
    assert environment[DATABASE_PASSWORD_VARIABLE] == "/run/secrets/database_password"
    (place,) = COMPOSE["secrets"].values()
    assert "secrets/" in place["file"]
    found = flags.database_secret(url)
    assert found is not None
    assert "word" not in repr(found)
    assert found.get_secret_value() == (
        "postgresql+psycopg://auditor:word with %2F and %40 in it@database/auditor"
    )


def test_the_recipe_copies_what_is_there_on_the_base_of_the_trainer_s_image() -> None:
    base = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    trainer = (ROOT / "containers" / "Dockerfile").read_text()
    assert base is not None
    assert base.group() in trainer
    copied = []
    for line in DOCKERFILE.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied += shlex.split(line)[1:-1]
    assert all((ROOT / name).exists() for name in copied)
    wheel = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert wheel is not None
    assert {f"{name}/" for name in re.findall(r'"(\w+)"', wheel.group(1))} < set(copied)


def test_the_image_is_without_what_only_tests_need() -> None:
    program = [sys.executable, str(DEPLOY / "unneeded.py"), "auditkit[s3]"]
    found = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    assert {"mypy", "pytest", "hypothesis", "playwright", "ruff"} <= set(found)
    needed = {"auditkit", "torch", "timm", "fastapi", "uvicorn", "psycopg", "psycopg-binary", "pip"}
    assert not needed & set(found)


def test_the_operator_s_guide_has_every_flag_and_every_rule() -> None:
    guide = (ROOT / "docs" / "guides" / "operator.md").read_text()
    assert not [rule for rule in RULES if f"`{rule}`" not in guide]
    own = [flag for flag in flags.FLAGS if flag not in {flags.HOST, flags.PORT}]
    assert not [flag.name for flag in own if f"`{flag.name}`" not in guide]
    assert not [flag.name for flag in own if flag.variable and f"`{flag.variable}`" not in guide]
