"""People sign in to pages, and nobody gets in by trying."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from live import make_home

from auditor_server import tokens
from auditor_server.access import accounts
from auditor_server.access.passwords import (
    LEAST_PASSWORD_CHARACTERS,
    MOST_PASSWORD_CHARACTERS,
    Cost,
    hash_password,
    is_password,
)
from auditor_server.access.principals import AUTHORITY, Principal
from auditor_server.access.sign_in import (
    FAILURES_COUNT_FOR,
    MOST_FAILED_SIGN_INS,
    SIGN_IN_LIFETIME,
    check_csrf,
    csrf_token,
    principal_of_cookie,
    sign_in,
    sign_in_with_token,
    sign_out,
)
from auditor_server.context import MOST_PASSWORDS_AT_ONCE, Auditor
from auditor_server.errors import (
    CsrfError,
    NotAuthenticatedError,
    NotSignedInError,
    PasswordTooShortError,
    SignInError,
    SignInThrottledError,
)
from auditor_server.settings import ServerSettings
from auditor_server.store import Store, UserRow
from auditor_server.store.engine import make_engine

NAME, PASSWORD = "j.mori", "correct horse battery staple"
CHEAP = Cost(n=2**4, r=1, p=1)
WRITERS = 6


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 11, 21, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Auditor]:
    home = make_home(tmp_path_factory.mktemp("sign-in"))
    auditor = Auditor.open(ServerSettings(home=home.path))
    add_user(auditor.store, NAME)
    yield auditor
    auditor.store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auditor(opened: Auditor, clock: Clock) -> Auditor:
    """The server, at a time that the test sets; wrong passwords of tests before are forgotten."""
    opened.store.access.prune(datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    return replace(opened, now=clock)


def add_user(store: Store, name: str) -> None:
    store.access.add_user(
        UserRow(
            name=name,
            organisation=AUTHORITY,
            role="data-subject-desk",
            password_hash=hash_password(PASSWORD, CHEAP),
            created_at=datetime.now(UTC),
        )
    )


def test_a_password_is_kept_as_a_hash_with_its_cost() -> None:
    stored = hash_password(PASSWORD)
    assert PASSWORD not in stored
    assert stored.startswith("scrypt$32768$8$3$")
    assert len(stored) < 200
    assert hash_password(PASSWORD) != stored
    assert is_password(PASSWORD, stored)
    assert not is_password(PASSWORD + " ", stored)
    assert not is_password(PASSWORD, None)
    # A hash from a time when guesses were cheaper is still one.
    assert is_password(PASSWORD, hash_password(PASSWORD, CHEAP))


def test_the_same_password_from_another_keyboard() -> None:
    stored = hash_password("zwölf Boxkämpfer jagen", CHEAP)
    assert is_password(
        "zwo\N{COMBINING DIAERESIS}lf Boxka\N{COMBINING DIAERESIS}mpfer jagen", stored
    )


@pytest.mark.parametrize(
    "password",
    ["", "x" * (LEAST_PASSWORD_CHARACTERS - 1), "x" * (MOST_PASSWORD_CHARACTERS + 1)],
)
def test_a_password_that_can_be_guessed_is_refused(password: str) -> None:
    with pytest.raises(PasswordTooShortError):
        hash_password(password, CHEAP)
    assert not is_password(password, hash_password(PASSWORD, CHEAP))


def test_a_working_day(auditor: Auditor, clock: Clock) -> None:
    cookie = sign_in(auditor, NAME, PASSWORD)
    expected = Principal(f"user/{NAME}", "data-subject-desk", AUTHORITY)
    assert principal_of_cookie(auditor, cookie) == expected
    clock.time += SIGN_IN_LIFETIME - timedelta(seconds=1)
    assert principal_of_cookie(auditor, cookie) == expected
    clock.time += timedelta(seconds=1)
    with pytest.raises(NotSignedInError):
        principal_of_cookie(auditor, cookie)


def test_signing_out_ends_that_sign_in_only(auditor: Auditor) -> None:
    here, elsewhere = sign_in(auditor, NAME, PASSWORD), sign_in(auditor, NAME, PASSWORD)
    sign_out(auditor, here)
    with pytest.raises(NotSignedInError):
        principal_of_cookie(auditor, here)
    assert principal_of_cookie(auditor, elsewhere).name == f"user/{NAME}"
    sign_out(auditor, here)
    sign_out(auditor, None)
    actions = [row.action for row in auditor.store.trail.page(auditor.now(), None, None, 3)]
    assert actions == ["sign-out", "sign-in", "sign-in"]


@pytest.mark.parametrize("cookie", [None, "", "made-up", "\ud800"])
def test_nobody_is_signed_in_with_something_else(auditor: Auditor, cookie: str | None) -> None:
    with pytest.raises(NotSignedInError):
        principal_of_cookie(auditor, cookie)


def test_the_database_does_not_let_its_reader_in(opened: Auditor) -> None:
    cookie = sign_in(opened, NAME, PASSWORD)
    kept = b"".join(path.read_bytes() for path in opened.home.path.glob("auditor.sqlite3*"))
    assert NAME.encode() in kept
    assert cookie.encode() not in kept
    assert PASSWORD.encode() not in kept


def test_a_wrong_password_and_a_wrong_name_are_told_alike(auditor: Auditor) -> None:
    told = set()
    for name, password in (
        (NAME, PASSWORD.upper()),
        (NAME, "x" * 10_000),
        ("nobody", PASSWORD),
        ("\ud800", "\ud800"),
        ("nobody\0", PASSWORD),
        ("x" * 10_000, PASSWORD),
    ):
        with pytest.raises(SignInError) as caught:
            sign_in(auditor, name, password)
        told.add(str(caught.value))
    assert len(told) == 1


def test_a_token_signs_in_as_long_as_it_is_good(auditor: Auditor, clock: Clock) -> None:
    token = tokens.issue(
        auditor.store, "auditor", AUTHORITY, clock.time, lifetime=timedelta(hours=1)
    )
    cookie = sign_in_with_token(auditor, f" {token}\n")
    assert principal_of_cookie(auditor, cookie).role == "auditor"
    clock.time += timedelta(hours=1)
    with pytest.raises(NotSignedInError):
        principal_of_cookie(auditor, cookie)
    other = tokens.issue(auditor.store, "auditor", AUTHORITY, clock.time)
    cookie = sign_in_with_token(auditor, other)
    auditor.store.access.revoke_token(other.partition(".")[0], clock.time)
    with pytest.raises(NotSignedInError):
        principal_of_cookie(auditor, cookie)
    for refused in (token, other, "auditor-1.made-up", ""):
        with pytest.raises(NotAuthenticatedError):
            sign_in_with_token(auditor, refused)


@pytest.mark.parametrize("name", [NAME, "nobody"])
def test_after_some_wrong_passwords_one_has_to_wait(
    auditor: Auditor, clock: Clock, name: str
) -> None:
    for _ in range(MOST_FAILED_SIGN_INS):
        with pytest.raises(SignInError):
            sign_in(auditor, name, "wrong horse battery staple")
        clock.time += timedelta(seconds=1)
    with pytest.raises(SignInThrottledError) as caught:
        sign_in(auditor, name, PASSWORD)
    wait = caught.value.retry_after_seconds
    assert wait == FAILURES_COUNT_FOR.total_seconds() - MOST_FAILED_SIGN_INS
    clock.time += timedelta(seconds=wait)
    if name == NAME:
        assert principal_of_cookie(auditor, sign_in(auditor, name, PASSWORD))
    else:
        with pytest.raises(SignInError):
            sign_in(auditor, name, PASSWORD)


def test_the_right_password_makes_the_wrong_ones_forgotten(auditor: Auditor) -> None:
    for _ in range(3):
        for _ in range(MOST_FAILED_SIGN_INS - 1):
            with pytest.raises(SignInError):
                sign_in(auditor, NAME, "wrong horse battery staple")
        sign_in(auditor, NAME, PASSWORD)


def test_guesses_at_many_workers_at_once_are_all_counted(database_url: str) -> None:
    stores = [Store(make_engine(database_url)) for _ in range(WRITERS)]
    stores[0].prepare()
    add_user(stores[0], NAME)
    now, most = datetime.now(UTC), 10

    def guess(number: int) -> bool:
        first = stores[number % WRITERS].access.note_attempt(
            NAME, "hash", now, since=now - FAILURES_COUNT_FOR, most=most
        )
        return first is None

    with ThreadPoolExecutor(WRITERS) as pool:
        assert sum(pool.map(guess, range(5 * WRITERS))) == most
    for store in stores:
        store.close()


def test_many_names_tried_at_once_do_not_take_the_server(auditor: Auditor) -> None:
    for _ in range(MOST_PASSWORDS_AT_ONCE):
        assert auditor.password_checks.acquire(blocking=False)
    with pytest.raises(SignInThrottledError, match="at this moment"):
        sign_in(auditor, NAME, PASSWORD)
    for _ in range(MOST_PASSWORDS_AT_ONCE):
        auditor.password_checks.release()
    for _ in range(MOST_PASSWORDS_AT_ONCE + 1):
        sign_in(auditor, NAME, PASSWORD)


def test_a_form_is_taken_from_its_own_sign_in_only() -> None:
    token = csrf_token("cookie")
    check_csrf("cookie", token)
    for cookie, sent in (
        ("another", token),
        ("cookie", token[:-1]),
        ("cookie", ""),
        ("cookie", None),
        ("cookie", "\N{SNOWMAN}"),
        ("", csrf_token("")),
        (None, csrf_token("")),
    ):
        with pytest.raises(CsrfError):
            check_csrf(cookie, sent)


def test_what_has_ended_is_forgotten(auditor: Auditor, clock: Clock) -> None:
    cookie = sign_in(auditor, NAME, PASSWORD)
    with pytest.raises(SignInError):
        sign_in(auditor, NAME, "wrong horse battery staple")
    accounts.prune(auditor.store, clock.time, FAILURES_COUNT_FOR)
    assert principal_of_cookie(auditor, cookie)
    clock.time += SIGN_IN_LIFETIME
    accounts.prune(auditor.store, clock.time, FAILURES_COUNT_FOR)
    clock.time -= SIGN_IN_LIFETIME
    with pytest.raises(NotSignedInError):
        principal_of_cookie(auditor, cookie)
