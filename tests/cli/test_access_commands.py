"""The auditor gives access, takes it back, and sees who used it, on the command line."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from auditkit.cli.application import app
from auditkit.cli.auditor import DEFAULT_FIRST_TOKENS_DAYS
from auditor_server.access import trail
from auditor_server.access.principals import AUTHORITY, ROLES, Principal
from auditor_server.access.sign_in import principal_of_cookie, sign_in
from auditor_server.context import Auditor
from auditor_server.errors import (
    AccessNameError,
    NotSignedInError,
    OrganisationExistsError,
    OrganisationNotFoundError,
    PasswordTooShortError,
    RoleOrganisationError,
    SessionNotFoundError,
    SignInError,
    TokenExpiredError,
    TokenNotFoundError,
    TokenRevokedError,
    UserExistsError,
    UserNotFoundError,
)
from auditor_server.home import FIRST_DEVELOPER, create_home, open_home
from auditor_server.settings import ServerSettings
from auditor_server.tokens import authenticate

PASSWORD = "correct horse battery staple"


class Shell:
    """Commands on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *arguments: object) -> Result:
        command = ["access", *map(str, arguments), "--home", str(self.home)]
        return CliRunner().invoke(app, command)

    def done(self, *arguments: object) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    def listed(self, *arguments: object) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.done(*arguments, "--json"))
        return found

    def refused(self, *arguments: object) -> type[BaseException]:
        result = self.run(*arguments)
        assert result.exit_code != 0
        return type(result.exception)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    home = tmp_path_factory.mktemp("access") / "home"
    create_home(home, "The Auditor", "audit.example.org", datetime.now(UTC))
    return Shell(home)


@pytest.fixture
def auditor(shell: Shell) -> Auditor:
    return Auditor.open(ServerSettings(home=shell.home))


def test_a_developer_joins_and_leaves(shell: Shell, auditor: Auditor) -> None:
    shell.done("organisation", "add", "imaging", "--name", "Example Imaging Ltd")
    names = {row["id"]: row["name"] for row in shell.listed("organisation", "list")}
    assert names["imaging"] == "Example Imaging Ltd"
    assert {AUTHORITY, FIRST_DEVELOPER} < set(names)

    developer = ("--role", "developer", "--organisation", "imaging")
    printed = shell.done("token", "create", *developer, "--note", "Ms Ito", "--days", 30)
    token = printed.strip()
    now = datetime.now(UTC)
    principal = authenticate(auditor.store, f"Bearer {token}", now)
    assert principal == Principal(token.partition(".")[0], "developer", "imaging")

    (row,) = [row for row in shell.listed("token", "list") if row["note"] == "Ms Ito"]
    assert row["name"] == principal.name
    assert (row["state"], row["session"]) == ("active", None)
    assert 29 < (datetime.fromisoformat(row["expires_at"]) - now).days + 1 <= 30
    for command in (("token", "list"), ("token", "list", "--json")):
        assert token.partition(".")[2] not in shell.done(*command)

    assert token.partition(".")[2] not in shell.done("token", "revoke", token)
    shell.done("token", "revoke", principal.name)
    with pytest.raises(TokenRevokedError):
        authenticate(auditor.store, f"Bearer {token}", now)
    (row,) = [row for row in shell.listed("token", "list") if row["note"] == "Ms Ito"]
    assert row["state"] == "revoked"


def test_a_token_can_go_straight_into_a_file(shell: Shell, tmp_path: Path) -> None:
    officer = ("--role", "compliance-officer", "--organisation", AUTHORITY)
    file = tmp_path / "officer.token"
    output = shell.done("token", "create", *officer, "--output", file)
    assert file.read_text().strip().partition(".")[2] not in output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = shell.listed("token", "list")
    assert shell.run("token", "create", *officer, "--output", file).exit_code != 0
    assert shell.listed("token", "list") == before


def test_a_new_home_has_a_token_for_each_role(shell: Shell) -> None:
    found = {
        row["role"]: row["organisation"] for row in shell.listed("token", "list")[: len(ROLES)]
    }
    assert found == dict.fromkeys(ROLES, AUTHORITY) | {"developer": FIRST_DEVELOPER}


def test_a_person_comes_and_goes(shell: Shell, auditor: Auditor, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\nsecond line\n")
    desk = ("--role", "data-subject-desk", "--organisation", AUTHORITY, "--password-file", file)
    assert PASSWORD not in shell.done("user", "add", "j.mori", *desk)
    cookie = sign_in(auditor, "j.mori", PASSWORD)
    shell.done("user", "disable", "j.mori")
    assert [row["state"] for row in shell.listed("user", "list")] == ["disabled"]
    with pytest.raises(NotSignedInError):
        principal_of_cookie(auditor, cookie)
    with pytest.raises(SignInError):
        sign_in(auditor, "j.mori", PASSWORD)
    file.write_text("another four good words")
    shell.done("user", "password", "j.mori", "--password-file", file)
    sign_in(auditor, "j.mori", "another four good words")
    typed = CliRunner().invoke(
        app,
        ["access", "user", "password", "j.mori", "--home", str(shell.home)],
        input=f"{PASSWORD}\n{PASSWORD}\n",
    )
    assert typed.exit_code == 0, typed.output
    assert PASSWORD not in typed.output
    sign_in(auditor, "j.mori", PASSWORD)


def test_mistakes_are_told(shell: Shell, tmp_path: Path) -> None:
    good, short = tmp_path / "good", tmp_path / "short"
    good.write_text(PASSWORD)
    short.write_text("secret")
    developer = ("--role", "developer", "--organisation")
    auditor = ("--role", "auditor", "--organisation")
    known = FIRST_DEVELOPER
    for arguments, error in (
        (("organisation", "add", known), OrganisationExistsError),
        (("organisation", "add", "new", "--name", known), OrganisationExistsError),
        (("organisation", "add", "Not Good"), AccessNameError),
        (("organisation", "add", "blank", "--name", " "), AccessNameError),
        (("token", "create", *developer, "nobody"), OrganisationNotFoundError),
        (("token", "create", *auditor, known), RoleOrganisationError),
        (("token", "create", *developer, known, "--session", "none"), SessionNotFoundError),
        (("token", "revoke", "nothing"), TokenNotFoundError),
        (("user", "add", "a b", *developer, known, "--password-file", good), AccessNameError),
        (("user", "add", "a", *auditor, known, "--password-file", good), RoleOrganisationError),
        (("user", "add", "a", *developer, known, "--password-file", short), PasswordTooShortError),
        (("user", "disable", "nobody"), UserNotFoundError),
        (("user", "password", "nobody", "--password-file", good), UserNotFoundError),
    ):
        assert shell.refused(*arguments) is error, arguments
    again = ("user", "add", "twice", *developer, known, "--password-file", good)
    shell.done(*again)
    assert shell.refused(*again) is UserExistsError


def test_the_trail_tells_who_asked_about_a_picture(
    shell: Shell, auditor: Auditor, tmp_path: Path
) -> None:
    picture, other = tmp_path / "picture.png", tmp_path / "other.png"
    picture.write_bytes(b"a picture")
    other.write_bytes(b"another")
    desk = Principal("user/j.mori", "data-subject-desk", AUTHORITY)
    trail.record(
        auditor, desk, "query", "s-1", purpose="complaint 7", pictures=[b"a picture", b"a third"]
    )
    for number in range(trail.MOST_ENTRIES_PER_PAGE):
        trail.record(auditor, desk, "report", f"s-{2 + number % 2}")

    (asked,) = shell.listed("trail", "--picture", picture)
    assert (asked["principal"], asked["purpose"]) == ("user/j.mori", "complaint 7")
    assert (asked["session_id"], asked["pictures"]) == ("s-1", 2)
    assert shell.listed("trail", "--picture", other) == []
    assert len(shell.listed("trail", "--limit", 3)) == 3
    assert {row["session_id"] for row in shell.listed("trail", "--session", "s-2")} == {"s-2"}
    assert "complaint 7" in shell.done("trail", "--picture", picture)
    # Looking is itself in the trail.
    assert shell.listed("trail")[0]["action"] == "trail"
    assert shell.listed("trail")[0]["principal"].startswith("home/")


@pytest.mark.parametrize("days", [None, 7.0])
def test_the_first_tokens_end_and_say_what_to_do_then(tmp_path: Path, days: float | None) -> None:
    home = tmp_path / "home"
    chosen = [] if days is None else ["--token-days", str(days)]
    before = datetime.now(UTC)
    made = CliRunner().invoke(app, ["init", "--home", str(home), *chosen])
    assert made.exit_code == 0, made.output
    lifetime = timedelta(days=days or DEFAULT_FIRST_TOKENS_DAYS)
    assert f"they end on {before + lifetime:%Y-%m-%d}" in made.output
    store = open_home(home).open_store()
    for role in ROLES:
        bearer = f"Bearer {(home / 'tokens' / f'{role}.token').read_text()}"
        assert authenticate(store, bearer, before + lifetime).role == role
        with pytest.raises(TokenExpiredError, match=r"ended on .* UTC; .*access token create"):
            authenticate(store, bearer, before + lifetime + timedelta(minutes=5))
    store.close()
