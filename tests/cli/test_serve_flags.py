"""The server is told the same things in the same words, however it is started."""

import pytest
import typer
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditor_server import flags

HOME = ["--home", "home"]


def serve_options() -> dict[str, object]:
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {
        parameter.opts[0]: parameter.default
        for parameter in command.params
        if parameter.opts[0] not in {"--home", "--help"}
    }


def test_both_ways_take_the_same_flags_with_the_same_defaults() -> None:
    said = vars(flags.read("auditor_server", None, HOME))
    assert {flag.name: said[flag.field] for flag in flags.FLAGS} == serve_options()


@pytest.mark.parametrize(
    "words",
    [
        ["--trail-days", "0"],
        ["--workers", "0"],
        ["--port", "65536"],
        ["--log-format", "xml"],
        ["--model-workers", "0"],
        ["--model-memory-mib", "1"],
        ["--model-seconds", "0"],
    ],
)
def test_both_ways_refuse_the_same(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        flags.read("auditor_server", None, [*HOME, *words])
    result = CliRunner().invoke(app, ["serve", *HOME, *words])
    assert ended.value.code == result.exit_code == 2


def test_what_is_said_becomes_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITKIT_BLOBS", "s3://bucket/prefix")
    monkeypatch.setenv("AUDITKIT_DATABASE_URL", "")
    words = ["--trail-days", "7", "--log-format", "json", "--model-memory-mib", "1024"]
    said = flags.read("auditor_server", None, [*HOME, *words, "--model-seconds", "30"])
    settings = flags.settings_of(said.home, vars(said))
    assert (settings.blobs_url, settings.database_url) == ("s3://bucket/prefix", None)
    assert (settings.trail_days, settings.log_format) == (7.0, "json")
    assert settings.most_model_memory_bytes == 2**30
    assert settings.most_model_seconds == 30
