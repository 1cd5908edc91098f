"""The pages, on a real server: who sees what, forms that others send, and a log that grows."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from hand_built import HandBuiltAgent, make_order, make_request, opening, sign_order
from live import Browser, LiveServer, make_home

from auditkit.evidence import dsse, merkle
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.keys import SigningKey
from auditor_server import explorer, tokens
from auditor_server.access.accounts import add_organisation, add_user
from auditor_server.access.principals import AUTHORITY, Role
from auditor_server.context import Auditor
from auditor_server.live_logs import MOST_POINTS, LiveLogs
from auditor_server.order_drafts import read_draft
from auditor_server.web.sign_ins import COOKIE
from schemas import StepRecord
from tests.browser import Reader

NewReader = Callable[..., Reader]
ORDER = "pages-2026"
PURPOSE = "<script>document.title='taken over'</script> & \"quoted\""


@pytest.fixture(scope="module")
def server(live_server: LiveServer) -> LiveServer:
    return live_server


@pytest.fixture(scope="module")
def order_digest(server: LiveServer) -> str:
    return server.add_order(ORDER, purpose=PURPOSE, late_after_seconds=5.0)


@pytest.fixture
def agent(server: LiveServer, order_digest: str) -> HandBuiltAgent:
    agent = server.open_session(ORDER, order_digest)
    agent.log_grant()
    for step in (1, 2, 3):
        agent.log_step(step)
    agent.sent(agent.flush(0))
    return agent


@pytest.fixture
def regulator(server: LiveServer, new_reader: NewReader) -> Reader:
    reader = new_reader(server.url)
    reader.sign_in(server.home.tokens["auditor"])
    return reader


def other_token(server: LiveServer, role: Role) -> str:
    """A token of another organisation."""
    store, now = server.open_store(), datetime.now(UTC)
    if all(found.id != "other" for found in store.access.organisations()):
        add_organisation(store, "other", "Other Lab", now)
    token = tokens.issue(store, role, "other", now)
    store.close()
    return token


def test_a_log_grows_before_the_readers_eyes(agent: HandBuiltAgent, regulator: Reader) -> None:
    regulator.visit(f"{agent.path}/live")
    status = regulator.page.get_by_role("status")
    status.get_by_text("Following").wait_for()
    numbers = regulator.page.locator(".figures-of dd")
    assert numbers.nth(1).inner_text().startswith("3")
    assert numbers.nth(3).inner_text().startswith("0")

    first = len(agent.lines)
    agent.log_receipt(agent.sent(agent.flush(0)).checkpoint)
    for step in range(4, 40):
        agent.log_step(step, time_ms=int((time.time() - 30) * 1000), task_loss=2.3 / step)
    agent.sent(agent.flush(first))
    regulator.page.get_by_text("Task loss goes from 2.3 to 0.059").wait_for(state="attached")
    assert numbers.nth(1).inner_text().startswith("39")
    assert numbers.nth(2).inner_text() == str(len(agent.lines))
    assert numbers.nth(3).inner_text().startswith("36")

    regulator.page.get_by_role("button", name="Pause").click()
    status.get_by_text("Paused").wait_for()
    regulator.page.get_by_role("button", name="Follow").click()
    first = len(agent.lines)
    agent.log_seal()
    agent.sent(agent.flush(first))
    status.get_by_text("nothing more comes").wait_for()
    assert numbers.nth(0).inner_text() == "sealed, no model yet"
    assert regulator.complaints == []


def test_an_incomplete_session_is_explained(agent: HandBuiltAgent, regulator: Reader) -> None:
    regulator.visit(f"{agent.path}/verification")
    assert "The session is not complete" in regulator.text
    advice = regulator.page.locator("#log-complete .advice").inner_text()
    assert "While it trains that is to be expected" in advice
    regulator.page.locator("#log-complete .evidence a").click()
    assert regulator.heading() == "Records of digits"


def test_what_others_wrote_is_shown_and_never_run(agent: HandBuiltAgent, regulator: Reader) -> None:
    for path in ("/orders", f"/orders/{ORDER}", agent.path):
        regulator.visit(path)
        assert PURPOSE in regulator.text
        assert "taken over" not in regulator.page.title()
    assert regulator.complaints == []


def test_a_draft_of_an_order_is_checked_while_it_is_written(
    server: LiveServer, regulator: Reader
) -> None:
    regulator.visit("/order-editor")
    assert "This page cannot sign." in regulator.text
    editor = regulator.page.get_by_label("The order, as TOML")
    good = editor.input_value()
    checked = regulator.page.locator("#checked")
    editor.fill(good.replace("external = 0.60", "external = 0.99"))
    checked.get_by_text("must add up to less than 1").wait_for()
    editor.fill(good.replace("valid_days = 90", "valid_days = = 90"))
    checked.get_by_text("not valid TOML").wait_for()
    editor.fill(good.replace('"my-order"', f'"{ORDER}"'))
    checked.get_by_text("choose another name").wait_for()
    editor.fill(good)
    checked.get_by_text("The order can be signed.").wait_for()
    text = checked.locator("details pre").text_content()
    order = read_draft(text, "The Auditor", datetime.now(UTC))
    assert order.order_id == "my-order"
    assert sign_order(server.home, order).signatures
    assert regulator.complaints == []


def test_signing_out_ends_it(server: LiveServer, new_reader: NewReader, agent: Any) -> None:
    reader = new_reader(server.url)
    reader.sign_in("auditor-12345678.wrong")
    assert "has not issued the token" in reader.text
    reader.sign_in(server.home.tokens["compliance-officer"], agent.path)
    assert reader.heading() == "digits"
    cookie = reader.page.context.cookies()[0]
    assert (cookie["name"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (
        COOKIE,
        True,
        True,
        "Strict",
    )
    assert server.home.tokens["compliance-officer"].partition(".")[2] not in cookie["value"]
    reader.page.get_by_role("button", name="Sign out").click()
    assert reader.heading() == "Sign in"
    thief = Browser(server)
    thief.cookie = f"{cookie['name']}={cookie['value']}"
    assert thief.send("GET", "/").headers["Location"].startswith("/sign-in")
    reader.page.go_back()
    assert reader.heading() == "Sign in"


def test_a_developer_sees_what_the_api_shows_a_developer(
    server: LiveServer, agent: HandBuiltAgent
) -> None:
    stranger = Browser(server)
    stranger.sign_in(other_token(server, "developer"))
    session_id = agent.grant.session_id
    assert session_id not in stranger.send("GET", "/").text
    for part in ("", "/verification", "/live", "/events", "/records", "/records/0", "/bundle"):
        found = stranger.send("GET", agent.path + part)
        assert found.status_code == 404, part
    for part in ("/records/0/proof", "/records/0/leaf", "/report"):
        assert stranger.send("GET", agent.path + part).status_code == 404, part
    assert stranger.send("GET", "/order-editor").status_code == 403
    owner = Browser(server)
    owner.sign_in(server.home.tokens["developer"])
    assert session_id in owner.send("GET", "/").text
    assert owner.send("GET", agent.path).status_code == 200


PAGES: dict[str, tuple[str, ...]] = {
    "all": ("", "/verification"),
    "readers": ("/live", "/records", "/records/0", "/records/0/proof", "/bundle", "/report"),
}


@pytest.mark.parametrize(
    "role", ["auditor", "developer", "compliance-officer", "data-subject-desk"]
)
def test_each_role_sees_what_the_api_gives_it(
    server: LiveServer, agent: HandBuiltAgent, role: Role
) -> None:
    store, now = server.open_store(), datetime.now(UTC)
    owner = store.token(server.home.tokens["developer"].partition(".")[0])
    assert owner is not None
    organisation = AUTHORITY if role == "auditor" else owner.organisation
    whole = tokens.issue(store, role, organisation, now)
    limited = tokens.issue(store, role, organisation, now, session_id=agent.grant.session_id)
    store.close()
    reader = 403 if role == "data-subject-desk" else 200
    browser, single = Browser(server), Browser(server)
    browser.sign_in(whole)
    single.sign_in(limited)
    foreign = server.open_session(ORDER, server_order_digest(server)).path
    for visitor in (browser, single):
        for page in PAGES["all"]:
            found = visitor.send("GET", agent.path + page)
            assert found.status_code == 200, (page, found.text)
            assert (f'href="{agent.path}/bundle"' in found.text) == (reader == 200)
        for page in PAGES["readers"]:
            assert visitor.send("GET", agent.path + page).status_code == reader, page
        for page in ("/models", "/orders", f"/orders/{ORDER}"):
            assert visitor.send("GET", page).status_code == reader, page
    assert agent.grant.session_id in single.send("GET", "/").text
    assert foreign not in single.send("GET", "/").text
    assert single.send("GET", foreign).status_code == 404
    assert browser.send("GET", foreign).status_code == 200
    assert browser.send("GET", "/order-editor").status_code == (200 if role == "auditor" else 403)
    assert single.send("GET", "/order-editor").status_code == 403


def server_order_digest(server: LiveServer) -> str:
    envelope = server.client("auditor").get(f"/orders/{ORDER}").content
    return sha256_hex(dsse.Envelope.from_bytes(envelope).payload)


def test_people_sign_in_with_a_password(server: LiveServer, new_reader: NewReader) -> None:
    store = server.open_store()
    password = "correct horse battery staple"
    add_user(
        store,
        "ana",
        organisation=AUTHORITY,
        role="compliance-officer",
        password=password,
        now=datetime.now(UTC),
    )
    store.close()
    reader = new_reader(server.url)
    reader.visit("/orders")
    reader.page.get_by_role("textbox", name="Name").fill("ana")
    reader.page.get_by_role("textbox", name="Password").fill("wrong horse battery staple")
    reader.page.get_by_role("button", name="Sign in", exact=True).click()
    assert "check both" in reader.text
    reader.page.get_by_role("textbox", name="Name").fill("ana")
    reader.page.get_by_role("textbox", name="Password").fill(password)
    reader.page.get_by_role("button", name="Sign in", exact=True).click()
    assert reader.heading() == "Orders"
    assert "user/ana" in reader.page.inner_text("header")


def test_looking_at_a_verification_is_in_the_trail(
    server: LiveServer, agent: HandBuiltAgent, regulator: Reader
) -> None:
    regulator.visit(f"{agent.path}/verification")
    entries = server.client("auditor").get("/audit-trail").json()["entries"]
    seen = [(entry["action"], entry["session_id"]) for entry in entries]
    assert ("verification", agent.grant.session_id) in seen
    assert ("sign-in", None) in seen


@pytest.mark.parametrize("path", ["/", "/models", "/orders", "/order-editor", "/sessions/none"])
def test_nothing_but_the_registry_is_shown_to_strangers(server: LiveServer, path: str) -> None:
    found = Browser(server).send("GET", path)
    assert (found.status_code, found.text) == (303, "")
    assert found.headers["Location"].startswith("/sign-in?next=%2F")
    plain = requests.get(server.url + path, timeout=60)
    assert plain.status_code == 401
    assert plain.headers["Content-Type"] == "application/problem+json"


def test_forms_of_others_are_refused(server: LiveServer) -> None:
    browser = Browser(server)
    form_token = browser.sign_in(server.home.tokens["auditor"])
    other = Browser(server)
    of_other = other.sign_in(server.home.tokens["developer"])
    for form in ({}, {"form_token": ""}, {"form_token": of_other}):
        assert browser.send("POST", "/sign-out", data=form).status_code == 403
        assert browser.send("POST", "/order-editor", data={**form, "draft": ""}).status_code == 403
    fields = {"form_token": form_token, "draft": "", "token": server.home.tokens["developer"]}
    for site in ("cross-site", "same-site", "none"):
        headers = {"Sec-Fetch-Site": site}
        for path in ("/sign-in", "/sign-out", "/order-editor"):
            assert browser.send("POST", path, data=fields, headers=headers).status_code == 403
    foreign = requests.post(
        f"{server.url}/sign-in", data=fields, headers={"Origin": "https://evil.example"}, timeout=60
    )
    assert foreign.status_code == 403
    assert browser.send("GET", "/").status_code == 200
    assert browser.send("POST", "/sign-out", data={"form_token": form_token}).status_code == 303


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil", "/a\tb"])
def test_signing_in_leads_to_no_other_site(server: LiveServer, target: str) -> None:
    form = {"token": server.home.tokens["auditor"], "next": target}
    found = Browser(server).send("POST", "/sign-in", data=form)
    assert found.headers["Location"] == "/sign-in/done?next=%2F"


def test_a_browser_that_keeps_no_cookie_is_told(server: LiveServer) -> None:
    form = {"token": server.home.tokens["auditor"], "next": "/orders"}
    browser = Browser(server)
    following = browser.send("POST", "/sign-in", data=form).headers["Location"]
    assert "did not keep the sign-in" in browser.send("GET", following).text


def test_errors_are_pages_for_browsers_and_documents_for_programs(server: LiveServer) -> None:
    browser = Browser(server)
    browser.sign_in(server.home.tokens["auditor"])
    for path, code in [("/nothing", 404), ("/registry/999999", 404), ("/?page=0", 422)]:
        found = browser.send("GET", path)
        assert (found.status_code, found.headers["Content-Type"][:9]) == (code, "text/html")
        assert "frame-ancestors 'none'" in found.headers["Content-Security-Policy"]
        plain = browser.send("GET", path, headers={"Accept": "*/*"})
        assert plain.headers["Content-Type"] == "application/problem+json"
    for path in ("/v1/nothing", "/v1/sessions/none"):
        found = browser.send("GET", path)
        assert found.headers["Content-Type"] == "application/problem+json"
    assert browser.send("DELETE", "/").status_code == 405


def test_a_sign_in_opens_no_door_to_the_api(server: LiveServer) -> None:
    browser = Browser(server)
    browser.sign_in(server.home.tokens["auditor"])
    assert browser.send("GET", "/v1/sessions").status_code == 401


def test_headers_forbid_what_pages_never_do(server: LiveServer) -> None:
    browser = Browser(server)
    browser.sign_in(server.home.tokens["auditor"])
    found = browser.send("GET", "/").headers
    policy = found["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert found["X-Content-Type-Options"] == "nosniff"
    assert found["Referrer-Policy"] == "same-origin"
    assert found["Cache-Control"] == "no-store"
    api = server.client("auditor").get("/health").headers
    assert api["X-Content-Type-Options"] == "nosniff"
    page = browser.send("GET", "/").text
    assets = re.findall(r'"(/static/[^"]+)"', page)
    assert len(assets) >= 2
    for asset in assets:
        assert "immutable" in browser.send("GET", asset).headers["Cache-Control"]
    wrong = re.sub("/[0-9a-f]{16}/", f"/{'0' * 16}/", assets[0])
    assert browser.send("GET", wrong).status_code == 404
    assert not re.search(r"<style|\sstyle=|<script>|\son\w+=", page)


def test_long_lists_come_in_pages(server: LiveServer, order_digest: str) -> None:
    for _ in range(30):
        key = SigningKey.generate()
        server.client("developer").post(
            "/sessions", json=opening(ORDER, make_request(order_digest, key))
        )
    browser = Browser(server)
    browser.sign_in(server.home.tokens["auditor"])
    seen: list[str] = []
    path = "/?state=open"
    while path:
        page = browser.send("GET", path).text
        seen += re.findall(r'<code class="under">([^<]+)</code>', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == len(set(seen)) >= 30
    assert seen[-1] in browser.send("GET", "/?state=open&page=99").text


@pytest.fixture
def quiet_auditor(tmp_path: Path) -> Iterator[tuple[Auditor, HandBuiltAgent]]:
    """A server's functions without the server, and an agent with a log of many flushes."""
    server = LiveServer(make_home(tmp_path))
    server.start()
    try:
        payload = server.add_order(ORDER)
        agent = server.open_session(ORDER, payload)
        agent.log_grant()
        agent.log_state("ab" * 32)
        for step in range(1, 8):
            first = 0 if step == 1 else len(agent.lines)
            agent.log_step(step)
            agent.sent(agent.flush(first))
    finally:
        server.stop()
    auditor = Auditor.open(server.settings)
    yield auditor, agent
    auditor.store.close()


def test_every_record_of_a_log_is_found_and_proven(
    quiet_auditor: tuple[Auditor, HandBuiltAgent],
) -> None:
    auditor, agent = quiet_auditor
    session = auditor.store.session(agent.grant.session_id)
    assert session is not None
    for index, line in enumerate(agent.lines):
        found = explorer.find_record(auditor, session, index)
        proof = explorer.prove(auditor, session, index)
        assert found is not None
        assert proof is not None
        assert (found.line, proof.index) == (line, index)
        assert list(proof.hashes) == merkle.inclusion_proof(agent.lines, index, len(agent.lines))
        (by_hash,) = explorer.find_digest(auditor, session, found.leaf_hash)
        assert by_hash.index == index
    assert explorer.find_record(auditor, session, len(agent.lines)) is None
    assert explorer.prove(auditor, session, len(agent.lines)) is None
    steps = [found.record for found in explorer.find_step(auditor, session, 7)]
    assert [type(record) for record in steps] == [StepRecord]
    assert explorer.find_step(auditor, session, 99) == []
    assert explorer.find_sample(auditor, session, "00" * 32) is None
    assert [found.index for found in explorer.page(auditor, session, 3, 4)] == [3, 4, 5, 6]


def test_curves_stay_small_and_forget_what_a_crash_undid(
    server: LiveServer, order_digest: str
) -> None:
    agent = server.open_session(ORDER, order_digest)
    agent.log_grant()
    steps = 3 * MOST_POINTS + 7
    for step in [*range(1, steps + 1), *range(steps - 500, steps + 1)]:
        agent.log_step(step, task_loss=float(step))
    agent.sent(agent.flush(0))
    store = server.open_store()
    session = store.session(agent.grant.session_id)
    assert session is not None
    log = LiveLogs(store).read(session, 60.0)
    store.close()
    assert log.size == len(agent.lines)
    assert log.each == 4
    assert len(log.trace) <= MOST_POINTS
    shown = log.trace.task_loss
    assert list(shown) == sorted(shown)
    assert abs(len(log.trace) * log.each - steps) <= 2 * log.each
    assert steps - log.each < shown[-1] <= steps


def test_the_newest_orders_come_first(server: LiveServer, regulator: Reader) -> None:
    order = make_order("later-2026", datetime.now(UTC))
    envelope = sign_order(server.home, order)
    server.client("auditor").post("/orders", data=envelope.to_bytes())
    regulator.visit("/orders")
    first = regulator.page.locator("tbody tr").first.inner_text()
    assert "later-2026" in first
    regulator.follow("later-2026")
    digest = sha256_hex(envelope.payload)
    assert regulator.download("Download the signed order") == envelope.to_bytes()
    regulator.follow(digest)
    assert "Order" in regulator.page.inner_text(".lead")


def test_the_grant_on_the_page_is_the_one_that_was_signed(
    agent: HandBuiltAgent, regulator: Reader
) -> None:
    regulator.visit(agent.path)
    assert agent.grant_digest in regulator.text
    assert agent.grant.nonce in regulator.text
