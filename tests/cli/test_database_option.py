"""An auditor whose database is PostgreSQL, on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from auditkit.cli.application import app
from auditor_server.errors import DatabaseNotFoundError, DatabaseUrlError
from auditor_server.home import DATABASE_FILE, open_home
from auditor_server.settings import DATABASE_URL_VARIABLE

ORDER = Path(__file__).parents[2] / "examples" / "orders" / "digits.toml"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_variable_names_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_postgresql_database: Callable[[], str]
) -> None:
    home, url = tmp_path / "home", new_postgresql_database()
    monkeypatch.setenv(DATABASE_URL_VARIABLE, url)
    for command in (["init"], ["order", "create", ORDER]):
        result = run(*command, "--home", home)
        assert result.exit_code == 0, result.output
        assert url not in result.output
    assert not (home / DATABASE_FILE).exists()
    assert (home / "tokens" / "developer.token").is_file()
    store = open_home(home).open_store(SecretStr(url))
    assert [order.order_id for order in store.lists.orders(None, None, None, 9)] == ["digits"]
    store.close()

    # Without it nothing is filed in a new and empty database, where nobody would look for it.
    monkeypatch.delenv(DATABASE_URL_VARIABLE)
    result = run("order", "create", ORDER, "--home", home)
    assert isinstance(result.exception, DatabaseNotFoundError)
    assert not (home / DATABASE_FILE).exists()


def test_a_database_of_another_kind_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    result = run("init", "--home", home, "--database-url", "mysql://auditor:secret-word@host/name")
    assert isinstance(result.exception, DatabaseUrlError)
    assert "secret-word" not in str(result.exception)
    assert not home.exists()


def test_the_variable_s_value_is_not_in_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_URL_VARIABLE, "postgresql+psycopg://auditor:secret-word@host/name")
    result = run("serve", "--help")
    assert result.exit_code == 0
    assert "secret-word" not in result.output
