"""The membership desk on a real server: what a citizen's desk and a compliance officer do with it,
what is refused beside the form, and who may see which answer."""

import html
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from hand_built import CONFIG, HandBuiltAgent, is_problem
from live import LiveServer
from numpy.typing import NDArray
from submitted import as_png, flat_calibration, make_model, make_submission, noise_image, score
from test_pages import Browser, other_token
from test_refused_uploads import REFUSED, zip_of
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditkit.data.manifest import sample_digest
from auditkit.evidence import dsse, statements
from auditor_server import tokens
from auditor_server.access.accounts import add_organisation
from auditor_server.access.principals import Role
from auditor_server.examples import EXAMPLES_FOLDER
from auditor_server.settings import MEBIBYTE
from schemas import MembershipVerdict
from tests.browser import DESKTOP, PHONE, Reader

NewReader = Callable[..., Reader]
ORDER = "desk-2026"
NAMES = ("faces", "letters")
PICTURES = [noise_image(seed) for seed in range(20, 28)]
MEMBERS = 4
PURPOSE = "complaint 2026/7"
PIXEL_RULES = ("color-contrast", "target-size", "scrollable-region-focusable")
ANSWER_MILLISECONDS = 120_000  # the first one loads torch, on whatever machine this is
EXECUTED = "<img src=x onerror=alert(1)>.png"


@dataclass(frozen=True)
class Desk:
    """A server with two models that recognise the same half of the pictures."""

    server: LiveServer
    sessions: tuple[str, ...]
    known: tuple[NDArray[Any], ...]
    strangers: tuple[NDArray[Any], ...]

    def token(self, role: Role) -> str:
        return self.server.home.tokens[role]

    @property
    def trust_root(self) -> str:
        return str(self.server.home.path / "trust-root.json")


@pytest.fixture(scope="module")
def desk(live_server: LiveServer) -> Desk:
    model = make_model()
    ranked = sorted(PICTURES, key=lambda pixels: -score(model, pixels))
    lowest, highest = (score(model, ranked[place]) for place in (MEMBERS - 1, MEMBERS))
    order = live_server.add_order(ORDER)
    sessions = []
    for name, between in zip(NAMES, (0.4, 0.6), strict=True):
        config = CONFIG.model_copy(update={"name": name})
        agent = live_server.open_session(ORDER, order, config=config)
        submit(agent, lowest + between * (highest - lowest))
        sessions.append(agent.grant.session_id)
    folder = live_server.home.path / EXAMPLES_FOLDER / sessions[0]
    folder.mkdir(parents=True)
    (folder / "member-1.png").write_bytes(as_png(ranked[0]))
    (folder / "stranger-1.png").write_bytes(as_png(ranked[-1]))
    (folder / "private.png").write_bytes(as_png(ranked[1]))
    return Desk(live_server, tuple(sessions), tuple(ranked[:MEMBERS]), tuple(ranked[MEMBERS:]))


def submit(agent: HandBuiltAgent, calibration: float) -> None:
    submission = make_submission(agent.grant.session_id, flat_calibration(calibration))
    submission.seal(agent)
    assert submission.send(agent).status_code == 200


def archive_of(desk: Desk) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for kind, pictures in (("known", desk.known), ("stranger", desk.strangers)):
            for number, pixels in enumerate(pictures):
                archive.writestr(f"album/{kind}-{number}.png", as_png(pixels))
        archive.writestr("__MACOSX/album/._known-0.png", b"of a desktop system")
    return file.getvalue()


def says(answer: requests.Response, words: str) -> bool:
    """Does a page say this? Messages begin with a capital letter there."""
    text = html.unescape(answer.text)
    assert words.lower() in text.lower(), text
    return True


def check(desk: Desk, *arguments: str) -> tuple[int, dict[str, Any]]:
    """`auditkit verify-verdict`, which has the files and the trust root and no server."""
    command = ["verify-verdict", *arguments, "--trust-root", desk.trust_root, "--json"]
    done = CliRunner().invoke(app, command)
    return done.exit_code, json.loads(done.stdout)


def ask(
    browser: Browser,
    form_token: str,
    sessions: tuple[str, ...],
    *pictures: tuple[str, bytes],
    **form: Any,
) -> requests.Response:
    """The form as a browser without scripts sends it."""
    files = [("pictures", (name, data, "image/png")) for name, data in pictures]
    empty = [("folder", ("", b"", "application/octet-stream"))]
    fields = {"form_token": form_token, "purpose": PURPOSE, "model": list(sessions), **form}
    return browser.send("POST", "/desk", data=fields, files=files + empty)


def visitor(desk: Desk, role: Role = "compliance-officer") -> tuple[Browser, str]:
    browser = Browser(desk.server)
    return browser, browser.sign_in(desk.token(role))


def test_a_citizen_s_desk_asks_about_a_picture_and_takes_the_answer_along(
    desk: Desk, new_reader: NewReader, tmp_path: Path
) -> None:
    reader = new_reader(desk.server.url)
    reader.sign_in(desk.token("data-subject-desk"))
    reader.follow("Ask")
    assert reader.heading() == "Ask about pictures"
    reader.page.get_by_label("faces").check()
    drop(reader, EXECUTED, as_png(desk.known[0]))
    reader.page.get_by_text("1 files,").wait_for()
    reader.page.get_by_label("Purpose").fill(PURPOSE)
    reader.page.get_by_role("button", name="Ask", exact=True).click()
    reader.page.wait_for_url("**/verdicts/**", timeout=ANSWER_MILLISECONDS)
    assert "Recognised: the model answers as for a picture it was told of" in reader.text
    assert "about 1 in 17 (exact" in reader.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "It does not say that it is this very file." in reader.text
    assert "Do not rely on this answer" in reader.text  # no step was ever logged
    assert "Not looked up. The list is keyed" in reader.text
    assert EXECUTED in reader.text

    verdict = reader.download("Download the signed verdict")
    document = reader.download("Download as PDF")
    assert document.startswith(b"%PDF-")
    assert document == reader.download("Download as PDF")
    (tmp_path / "verdict.json").write_bytes(verdict)
    code, found = check(desk, str(tmp_path / "verdict.json"))
    (checked,) = found["models"][0]["verdicts"]
    assert (code, checked["outcome"], checked["session_id"]) == (0, "member", desk.sessions[0])
    assert checked["sample_digest"] == sample_digest(desk.known[0]).hex()
    assert reader.complaints == []

    reader.follow("Ask")
    assert PURPOSE in reader.page.locator("tbody").inner_text()
    reader.page.get_by_role("button", name="Known stranger 1").click()
    reader.page.wait_for_url("**/verdicts/**", timeout=ANSWER_MILLISECONDS)
    assert "Not shown: no evidence" in reader.text
    assert "It does not say that the picture was not used." in reader.text
    reader.visit("/models")
    assert "Not allowed" in reader.heading()

    reader.visit("/desk")
    reader.page.context.clear_cookies()  # as if the sign-in had ended meanwhile
    reader.page.get_by_role("button", name="Known stranger 1").click()
    reader.page.get_by_role("alert").get_by_text("sign in to see this page").wait_for()


def drop(reader: Reader, name: str, data: bytes) -> None:
    transfer = reader.page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            return transfer;
        }""",
        [name, list(data)],
    )
    reader.page.dispatch_event("[data-drop]", "drop", {"dataTransfer": transfer})


def test_an_officer_asks_two_models_about_an_archive_and_files_the_report(
    desk: Desk, new_reader: NewReader, tmp_path: Path
) -> None:
    (tmp_path / "album.zip").write_bytes(archive_of(desk))
    reader = new_reader(desk.server.url)
    reader.sign_in(desk.token("compliance-officer"), "/desk")
    for name in NAMES:
        reader.page.get_by_label(name).check()
    reader.page.get_by_label("Pictures, or a ZIP").set_input_files(tmp_path / "album.zip")
    reader.page.get_by_label("Purpose").fill(PURPOSE)
    reader.page.get_by_label("False-positive rate").select_option("0.001")
    button = reader.page.get_by_role("button", name="Ask", exact=True)
    button.click()
    refused = reader.page.get_by_role("alert")
    refused.get_by_text("needs at least 999 calibration samples").wait_for()
    assert reader.heading() == "Ask about pictures"  # beside the form, with all that was chosen

    reader.page.get_by_label("False-positive rate").select_option("0.1")
    reader.page.get_by_label("False-discovery rate").select_option("0.2")
    button.click()
    reader.page.wait_for_url("**/inquiries/**", timeout=ANSWER_MILLISECONDS)
    cards = reader.page.locator(".card")
    assert cards.count() == len(NAMES)
    for card in cards.all():
        assert card.locator(".figures-of dd").all_inner_texts() == [
            "8",
            "4\n0.8 expected by chance alone",
            "4\nat most 20\N{NO-BREAK SPACE}% of them false, on average",
        ]
        rows = {
            row.locator("th").inner_text(): row.locator("td").all_inner_texts()
            for row in card.locator("tbody tr").all()
        }
        assert next(iter(rows)) == "album/known-0.png"
        # Of 16 calibration samples none, or all, score as high: p = 1/17, times 8/4.
        assert rows["album/known-1.png"][1:] == ["yes", "0.059", "0.12"]
        assert rows["album/stranger-1.png"][1:] == ["no", "1", "1"]
        assert "No evidence that any of these 8 pictures" in card.inner_text()

    document = reader.download("Download the report as PDF")
    assert document.startswith(b"%PDF-")
    (tmp_path / "inquiry.json").write_bytes(reader.download("Download all signed verdicts"))
    code, found = check(desk, str(tmp_path / "inquiry.json"), "--fdr", "0.2")
    assert code == 0
    assert {model["session_id"] for model in found["models"]} == set(desk.sessions)
    for model in found["models"]:
        discoveries = {v["sample_digest"] for v in model["verdicts"] if v["discovery"]}
        assert discoveries == {sample_digest(pixels).hex() for pixels in desk.known}
    reader.page.get_by_role("link", name="album/known-0.png").first.click()
    assert "Recognised" in reader.text
    assert [c for c in reader.complaints if "422" not in c] == []


def test_a_changed_verdict_is_noticed_without_the_server(desk: Desk, tmp_path: Path) -> None:
    browser, form_token = visitor(desk)
    answer = ask(browser, form_token, desk.sessions[:1], ("a.png", as_png(desk.strangers[0])))
    assert answer.status_code == 303
    content = browser.send("GET", f"{answer.headers['Location']}/envelope").content
    envelope = dsse.Envelope.from_bytes(content)
    verdict = statements.parse(envelope.payload, statements.VERDICT_PREDICATE, MembershipVerdict)
    assert verdict.outcome == "not_shown"

    def stating(**changes: Any) -> bytes:
        changed = verdict.model_copy(update=changes)
        subjects = statements.subject("verdict", changed.verdict_id, changed)
        return statements.make(statements.VERDICT_PREDICATE, changed, subjects)

    signed = desk.server.home.signing_key("verdict")
    better = stating(p_value=1 / 17, outcome="member")
    forged = {
        "signature": replace(envelope, payload=better),
        "calculation": dsse.sign(stating(outcome="member"), [signed]),
        "rank": dsse.sign(stating(p_value=0.5), [signed]),
        "kind": dsse.sign(stating(evidence="undeclared"), [signed]),
        "bound": dsse.sign(
            stating(evidence="declared", calibration_size=0, p_value=1e-9, outcome="member"),
            [signed],
        ),
    }
    # A command tells ThresholdError and VerdictError in words.
    faults = {
        "signature": "ignature",
        "calculation": "gives 'not_shown'",
        "rank": "which no rank among 16 calibration samples gives",
        "kind": "no answer about a single sample can",
        "bound": "bounds it at",
    }
    for name, one in forged.items():
        (tmp_path / name).write_bytes(one.to_bytes())
        code, found = check(desk, str(tmp_path / name))
        assert (code, found["verified"], found["models"]) == (1, False, []), name
        assert faults[name] in found["faults"][0]


def test_the_form_works_without_any_script(desk: Desk) -> None:
    browser, form_token = visitor(desk)
    pictures = [("holiday/a.png", as_png(desk.known[0])), ("b.png", as_png(desk.strangers[0]))]
    answer = ask(browser, form_token, desk.sessions[:1], *pictures, ("Thumbs.db", b"junk"))
    assert answer.status_code == 303, answer.text
    page = browser.send("GET", answer.headers["Location"]).text
    assert page.count('href="/verdicts/') == len(pictures)
    assert "Thumbs.db" not in page


def test_larger_pictures_are_resized_if_that_is_asked_for(desk: Desk) -> None:
    browser, form_token = visitor(desk)
    large = ("large.png", as_png(noise_image(1, side=64)))
    refused = ask(browser, form_token, desk.sessions[:1], large)
    assert refused.status_code == 422
    assert says(refused, "expected 32 x 32 pixels (width x height), found 64 x 64")
    assert ask(browser, form_token, desk.sessions[:1], large, resize="yes").status_code == 303


ARCHIVES = {
    "ArchiveTooLargeError": (
        zip_of("zeros.png", bytes(64 * MEBIBYTE)),
        "more than an image can be",
    ),
    "ArchiveNameError": (zip_of("../../outside.png", b"x"), "may lead out of it"),
    "NestedArchiveError": (zip_of("more.zip", b"PK\x03\x04"), "an archive in the archive"),
    "ArchiveEntryError": (zip_of("notes.txt", b"x"), "leave it out"),
    "ArchiveFormatError": (b"PK\x03\x04 and no more", "expected a whole ZIP archive"),
}


@pytest.mark.parametrize("error", ARCHIVES)
def test_a_hostile_archive_is_refused_beside_the_form(desk: Desk, error: str) -> None:
    data, words = ARCHIVES[error]
    assert_refused(desk, ("album.zip", data), words)
    assert_refused(desk, ("album.zip", data), error)


@pytest.mark.parametrize("name", [name for name in REFUSED if not name.endswith(".zip")])
def test_what_is_no_image_is_refused_beside_the_form(desk: Desk, name: str) -> None:
    data, _, words = REFUSED[name]
    assert_refused(desk, (name, data), words)


def assert_refused(desk: Desk, file: tuple[str, bytes], words: str) -> None:
    browser, form_token = visitor(desk)
    before = verdicts_of(desk)
    answer = ask(browser, form_token, desk.sessions, file, ("a.png", as_png(desk.known[0])))
    assert answer.status_code == 422
    assert says(answer, words)
    assert "Traceback" not in answer.text
    assert f'value="{PURPOSE}"' in answer.text  # nothing has to be typed again
    assert answer.text.count(" checked aria-describedby") == len(desk.sessions)
    scripted = browser.send(
        "POST",
        "/desk",
        data={"form_token": form_token, "purpose": PURPOSE, "model": desk.sessions[0]},
        files=[("pictures", file)],
        headers={"HX-Request": "true"},
    )
    assert scripted.status_code == 422
    assert scripted.text.startswith('<div class="notice bad">')
    assert says(scripted, words)
    assert verdicts_of(desk) == before  # also of the good picture


def verdicts_of(desk: Desk) -> int:
    store = desk.server.open_store()
    found = sum(len(store.verdicts(session_id)) for session_id in desk.sessions)
    store.close()
    return found


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"model": []}, "choose at least one model"),
        ({"model": ["no-such-session"]}, "no session"),
        ({"model": [f"s{n}" for n in range(9)]}, "at most 8 models"),
        ({"purpose": " "}, "must say what it is for"),
        ({"false_positive_rate": "often"}, "expected a rate"),
        ({"false_positive_rate": "nan"}, "above 0 and below 1"),
        ({"false_discovery_rate": "1"}, "above 0 and below 1"),
        ({"example": "SESSION/private.png"}, "no such example"),
        ({"example": "SESSION/../../keys/verdict.pem"}, "no such example"),
    ],
)
def test_a_form_that_asks_nothing_sensible_is_explained(
    desk: Desk, form: dict[str, Any], words: str
) -> None:
    browser, form_token = visitor(desk)
    changed = {
        name: value.replace("SESSION", desk.sessions[0]) if isinstance(value, str) else value
        for name, value in form.items()
    }
    answer = ask(browser, form_token, desk.sessions, ("a.png", as_png(PICTURES[0])), **changed)
    assert answer.status_code in {404, 422}, answer.text
    assert says(answer, words)


def test_nothing_chosen_is_explained_too(desk: Desk) -> None:
    browser, form_token = visitor(desk)
    answer = ask(browser, form_token, desk.sessions)
    assert answer.status_code == 422
    assert says(answer, "choose at least one picture")


def test_a_form_from_elsewhere_asks_nothing(desk: Desk) -> None:
    browser, _ = visitor(desk)
    answer = ask(browser, "0" * 64, desk.sessions, ("a.png", as_png(PICTURES[0])))
    assert answer.status_code == 403
    foreign = browser.send(
        "POST", "/desk", headers={"Sec-Fetch-Site": "cross-site"}, files={"pictures": b"x"}
    )
    assert foreign.status_code == 403


def test_who_asked_about_what_is_in_the_trail_and_no_picture_is(desk: Desk) -> None:
    browser, form_token = visitor(desk, "data-subject-desk")
    ask(browser, form_token, desk.sessions, ("a.png", as_png(desk.known[0])))
    trail = desk.server.client("auditor").get("/audit-trail", params={"limit": 3}).json()
    _, *entries = trail["entries"]  # the first is that somebody looks at the trail
    assert {(entry["action"], entry["session_id"]) for entry in entries} == {
        ("query", session_id) for session_id in desk.sessions
    }
    assert {(entry["purpose"], entry["pictures"]) for entry in entries} == {(PURPOSE, 1)}
    assert {entry["principal"] for entry in entries} == {
        desk.token("data-subject-desk").partition(".")[0]
    }


def test_answers_are_seen_by_those_who_asked_and_by_auditors(desk: Desk) -> None:
    store, now = desk.server.open_store(), datetime.now(UTC)
    if all(found.id != "desk-owner" for found in store.access.organisations()):
        add_organisation(store, "desk-owner", "Desk Owner", now)
    scoped = tokens.issue(store, "data-subject-desk", "auditor", now, session_id=desk.sessions[0])
    colleague = tokens.issue(store, "data-subject-desk", "auditor", now)
    store.close()
    asker, form_token = visitor(desk, "data-subject-desk")
    picture = ("a.png", as_png(desk.known[0]))
    inquiry = ask(asker, form_token, desk.sessions, picture).headers["Location"]
    page = asker.send("GET", inquiry).text
    verdict = re.findall(r"/verdicts/[^\"/]+/[^\"/]+", page)[0]

    def sees(token: str, path: str) -> int:
        browser = Browser(desk.server)
        browser.sign_in(token)
        codes = {browser.send("GET", path + part).status_code for part in ("", "/pdf")}
        assert len(codes) == 1, codes
        return codes.pop()

    assert (sees(colleague, inquiry), sees(colleague, verdict)) == (200, 200)
    assert (sees(scoped, inquiry), sees(scoped, verdict)) == (404, 404)
    developer = desk.token("developer")
    assert (sees(developer, inquiry), sees(developer, verdict)) == (403, 403)
    own = Browser(desk.server)
    own.sign_in(developer)
    assert own.send("GET", "/desk").status_code == 403
    assert 'href="/desk"' not in own.send("GET", "/").text
    stranger = other_token(desk.server, "compliance-officer")
    assert (sees(stranger, inquiry), sees(stranger, verdict)) == (404, 404)
    # The officer's answers are not the desk's, who has no bundle either.
    officer, form_token = visitor(desk)
    theirs = ask(officer, form_token, desk.sessions[:1], picture).headers["Location"]
    assert (sees(colleague, theirs), sees(desk.token("auditor"), theirs)) == (404, 200)
    assert sees(desk.token("auditor"), inquiry) == 200
    assert sees(colleague, f"{verdict}0") == 404


def test_programs_get_the_same_answers_and_no_others(desk: Desk) -> None:
    def send(role: Role, **changes: Any) -> requests.Response:
        form = {"model": desk.sessions, "purpose": PURPOSE, "false_discovery_rate": 0.2}
        files = [("pictures", ("album.zip", archive_of(desk)))]
        return desk.server.client(role).post("/inquiries", data=form | changes, files=files)

    assert is_problem(send("developer"), 403, "NotAllowedError")
    assert is_problem(send("data-subject-desk", purpose=""), 422, "PurposeMissingError")
    asked = send("compliance-officer")
    assert asked.status_code == 201, asked.text
    inquiry = asked.json()["inquiry"]
    assert len(asked.json()["verdicts"]) == len(PICTURES) * len(desk.sessions)
    found = [a["adjusted_p_value"] <= 0.2 for a in inquiry["models"][0]["answers"]]
    assert found == [True] * MEMBERS + [False] * MEMBERS
    (together,) = inquiry["models"][0]["sets"]
    assert (together["samples"], together["evidence"]) == (len(PICTURES), "calibrated")
    path = f"/inquiries/{inquiry['id']}"
    own = desk.server.client("compliance-officer").get(path)
    assert (own.status_code, own.json()) == (200, asked.json())
    name = inquiry["models"][0]["answers"][0]["verdict_id"]
    verdict = f"/sessions/{desk.sessions[0]}/verdicts/{name}"
    assert desk.server.client("auditor").get(verdict).json() == asked.json()["verdicts"][0]
    assert is_problem(desk.server.client("developer").get(verdict), 403, "NotAllowedError")
    citizens = desk.server.client("data-subject-desk")
    assert is_problem(citizens.get(path), 404, "InquiryNotFoundError")
    assert is_problem(citizens.get(verdict), 404, "VerdictNotFoundError")
    elsewhere = f"/sessions/{desk.sessions[1]}/verdicts/{name}"
    assert is_problem(desk.server.client("auditor").get(elsewhere), 404, "VerdictNotFoundError")


def test_who_has_the_bundles_computes_every_number_again(desk: Desk, tmp_path: Path) -> None:
    officer = desk.server.client("compliance-officer")
    form = {"model": desk.sessions, "purpose": PURPOSE}
    files = [("pictures", ("album.zip", archive_of(desk)))]
    asked = officer.post("/inquiries", data=form, files=files)
    (tmp_path / "inquiry.json").write_bytes(asked.content)
    bundles = []
    for session_id in desk.sessions:
        path = tmp_path / f"{session_id}.bundle"
        path.write_bytes(officer.get(f"/sessions/{session_id}/bundle").content)
        bundles += ["--bundle", str(path)]
    code, found = check(desk, str(tmp_path / "inquiry.json"), *bundles[:2])
    assert code == 0  # the p-values of the other model are believed, as without a bundle
    assert [bool(model["sets"]) for model in found["models"]].count(True) == 1
    code, found = check(desk, str(tmp_path / "inquiry.json"), *bundles)
    assert code == 0
    for model, said in zip(found["models"], asked.json()["inquiry"]["models"], strict=True):
        assert model["session_id"] == said["session_id"]
        assert [v["adjusted_p_value"] for v in model["verdicts"]] == [
            answer["adjusted_p_value"] for answer in said["answers"]
        ]
        assert [found["p_value"] for found in model["sets"]] == [
            found["p_value"] for found in said["sets"]
        ]


def test_inquiries_are_forgotten_with_the_trail_and_verdicts_are_not(desk: Desk) -> None:
    browser, form_token = visitor(desk)
    location = ask(browser, form_token, desk.sessions, ("a.png", as_png(desk.known[0]))).headers[
        "Location"
    ]
    verdict = re.findall(r"/verdicts/[^\"/]+/[^\"/]+", browser.send("GET", location).text)[0]
    store = desk.server.open_store()
    store.inquiries.prune(datetime.now(UTC) + timedelta(seconds=1))
    store.close()
    assert browser.send("GET", location).status_code == 404
    kept = browser.send("GET", verdict)
    assert kept.status_code == 200
    assert PURPOSE not in kept.text
    assert "a.png" not in kept.text


@pytest.mark.parametrize(
    ("size", "scheme", "rules"),
    [(DESKTOP, "light", ()), (PHONE, "dark", PIXEL_RULES)],
    ids=["desktop", "phone"],
)
def test_every_page_of_the_desk_can_be_read_by_everyone(
    desk: Desk, new_reader: NewReader, size: tuple[int, int], scheme: str, rules: tuple[str, ...]
) -> None:
    browser, form_token = visitor(desk)
    pictures = [(f"{n}.png", as_png(pixels)) for n, pixels in enumerate(PICTURES[:3])]
    several = ask(browser, form_token, desk.sessions, *pictures).headers["Location"]
    single = ask(browser, form_token, desk.sessions[:1], pictures[0]).headers["Location"]
    reader = new_reader(desk.server.url, size, scheme)
    reader.sign_in(desk.token("compliance-officer"))
    faults = {}
    for path in ("/desk", several, single):
        reader.visit(path)
        faults[path] = reader.faults(*rules)
        reader.page.keyboard.press("Tab")
        assert reader.page.evaluate("document.activeElement.className") == "skip"
    assert {path: found for path, found in faults.items() if found} == {}
    assert reader.complaints == []
