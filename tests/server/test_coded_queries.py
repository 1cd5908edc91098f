"""Two kinds of query of a model with codes: for a sample's own code, and blind for anyone's."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import requests
import torch
from hand_built import CONFIG, PURPOSE, HandBuiltAgent, commit, is_problem, make_request
from hand_built import opening as session_opening
from live import LiveServer
from submitted import MINT as PLAIN
from submitted import (
    MODEL,
    NORMALISATION,
    TAPS,
    Submission,
    as_png,
    flat_calibration,
    make_submission,
    noise_image,
)
from test_pages import Browser

from auditkit.data.manifest import Manifest, split_leaves
from auditkit.data.pools import from_arrays
from auditkit.evidence import canonical, dsse, statements, trust
from auditkit.evidence.derivation import Split, derive_split
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.membership_codes import membership_codes, own_code_p_value
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.scores import CohortScores, write_scores
from schemas import (
    MembershipVerdict,
    MintConfig,
    ModelDescription,
    SampleOpening,
    SessionGrant,
    TrainingConfig,
)

ORDER_ID = "coded-queries"
LENGTH = 128
MINT = MintConfig(evidence="codes", code_length=LENGTH, channels=4, hidden=(8,))
CODED = CONFIG.model_copy(update={"model": MODEL, "taps": TAPS, "mint": MINT})
POOL = from_arrays(
    np.stack([noise_image(seed) for seed in range(64)]), np.arange(64) % 10, tuple("0123456789")
)
MANIFEST = Manifest(POOL, bytes(range(32)))
CALIBRATION = 8.0  # blind score of every sample of C: between a stranger's and a member's


@dataclass(frozen=True)
class CodedSession:
    """A submitted model whose T says one member's code, whatever it is shown."""

    agent: HandBuiltAgent
    server: LiveServer
    split: Split
    known: int
    """Pool index of the member whose code T says."""
    agreement: float
    """z of that code with itself: its norm."""

    def opening(self, sample: int, **changes: Any) -> bytes:
        opened = MANIFEST.open(sample)
        honest = SampleOpening(
            session_id=self.agent.grant.session_id,
            index=opened.index,
            key=opened.key.hex(),
            label=opened.label,
            proof=tuple(node.hex() for node in opened.proof),
        )
        return honest.model_copy(update=changes).model_dump_json().encode()

    def ask(
        self, images: Sequence[bytes], openings: Sequence[bytes] = (), rate: float = 0.1
    ) -> requests.Response:
        files = [("images", (f"{n}.png", data, "image/png")) for n, data in enumerate(images)]
        files += [("openings", (f"{n}.json", data, "x/y")) for n, data in enumerate(openings)]
        return self.server.client("compliance-officer").post(
            f"{self.agent.path}/queries",
            data=PURPOSE,
            files=files,
            params={"false_positive_rate": rate},
        )

    def verdicts(self, response: requests.Response) -> list[MembershipVerdict]:
        assert response.status_code == 200, response.text
        root = self.server.home.trust_root(self.agent.grant.valid_from)
        return [
            trust.verify_statement(
                root,
                "verdict",
                dsse.Envelope.from_bytes(json.dumps(envelope).encode()),
                statements.VERDICT_PREDICATE,
                MembershipVerdict,
            )
            for envelope in response.json()["verdicts"]
        ]


def open_session(
    server: LiveServer, order_digest: str, order_id: str, config: TrainingConfig
) -> HandBuiltAgent:
    key = SigningKey.generate()
    pool = commit(split_leaves(MANIFEST.leaves))
    request = make_request(order_digest, key, config=config, pool=pool)
    leaves = base64.b64encode(MANIFEST.leaves).decode()
    body = session_opening(order_id, request, pool_leaves=leaves)
    client = server.client("developer")
    response = client.post("/sessions", json=body)
    assert response.status_code == 201, response.text
    payload = dsse.Envelope.from_bytes(response.content).payload
    grant = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
    return HandBuiltAgent(client, grant, canonical.sha256_hex(payload), key)


def always_saying(code: np.ndarray) -> EnhancedAuditedModel:
    model = EnhancedAuditedModel.build((MODEL, TAPS, MINT), 7).eval()
    last = [module for module in model.mint.modules() if isinstance(module, torch.nn.Linear)][-1]
    assert last.out_features == LENGTH
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.from_numpy(code.astype(np.float32)))
    return model


@pytest.fixture(scope="module")
def session(live_server: LiveServer) -> CodedSession:
    agent = open_session(live_server, live_server.add_order(ORDER_ID), ORDER_ID, CODED)
    split = derive_split(bytes.fromhex(agent.grant.nonce), agent.grant.split)
    known = int(split.told[3])
    store = live_server.open_store()
    secret = store.code_secret(agent.grant.session_id)
    store.close()
    assert secret is not None
    code = membership_codes(secret, MANIFEST.leaves, np.array([known]), LENGTH)[0]
    weights = always_saying(code).weights()
    description = ModelDescription(
        session_id=agent.grant.session_id,
        model=MODEL,
        taps=TAPS,
        mint=MINT,
        normalisation=NORMALISATION,
        class_names=tuple("0123456789"),
        weights_digest=canonical.sha256_hex(weights),
        parameters=1,
    )
    calibration = flat_calibration(CALIBRATION)
    cohort = CohortScores(
        calibration, np.zeros_like(calibration), np.ones(len(calibration), dtype=np.bool_)
    )
    submission = Submission(
        weights, canonical.to_bytes(description), write_scores({"calibration": cohort})
    )
    submission.seal(agent)
    assert submission.send(agent).status_code == 200
    return CodedSession(agent, live_server, split, known, float(np.linalg.norm(code)))


def test_an_opened_member_is_found_by_its_own_code(session: CodedSession) -> None:
    image = as_png(POOL.images[session.known])
    (verdict,) = session.verdicts(session.ask([image], [session.opening(session.known)], 1e-9))
    assert (verdict.evidence, verdict.outcome) == ("declared", "member")
    assert (verdict.code_index, verdict.calibration_size) == (session.known, 0)
    assert verdict.score == pytest.approx(session.agreement, rel=1e-5)
    assert verdict.p_value == own_code_p_value(verdict.score) < 1e-15


@pytest.mark.parametrize("cohort", ["told", "external", "calibration"])
def test_an_opened_sample_whose_code_the_model_does_not_say_is_not_shown(
    session: CodedSession, cohort: str
) -> None:
    indices = [i for i in getattr(session.split, cohort) if i != session.known][:4]
    verdicts = session.verdicts(
        session.ask(
            [as_png(POOL.images[i]) for i in indices],
            [session.opening(int(i)) for i in indices],
            1e-4,
        )
    )
    assert {(v.evidence, v.outcome) for v in verdicts} == {("declared", "not_shown")}
    assert [v.code_index for v in verdicts] == [int(i) for i in indices]


def test_any_other_image_is_asked_blind_and_the_best_code_names_a_member(
    session: CodedSession,
) -> None:
    copy = POOL.images[session.known].copy()
    copy[0, 0, 0] ^= 1
    (verdict,) = session.verdicts(session.ask([as_png(copy)]))
    assert (verdict.evidence, verdict.outcome) == ("calibrated", "member")
    assert (verdict.code_index, verdict.calibration_size) == (session.known, 16)
    assert verdict.p_value == 1 / 17
    answer = session.ask([as_png(copy)], rate=0.01)
    assert is_problem(answer, 422, "CalibrationTooSmallError")


def test_an_altered_copy_cannot_pass_for_the_member(session: CodedSession) -> None:
    copy = POOL.images[session.known].copy()
    copy[0, 0, 0] ^= 1
    answer = session.ask([as_png(copy)], [session.opening(session.known)])
    assert is_problem(answer, 422, "OpeningError")


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 0},
        {"index": 64},
        {"key": "ab" * 32},
        {"label": 7},
        {"proof": ("ab" * 32,) * 6},
        {"proof": ()},
    ],
    ids=["index", "index outside", "key", "label", "proof", "no proof"],
)
def test_a_forged_opening_opens_nothing(session: CodedSession, changes: dict[str, Any]) -> None:
    index = next(int(i) for i in session.split.told if i not in (0, session.known) and i % 10 != 7)
    forged = session.opening(index, **changes)
    answer = session.ask([as_png(POOL.images[index])], [forged])
    assert is_problem(answer, 422, "OpeningError")


def test_the_opening_of_another_session_opens_nothing(session: CodedSession) -> None:
    forged = session.opening(session.known, session_id="20260101-abcdef")
    answer = session.ask([as_png(POOL.images[session.known])], [forged])
    assert is_problem(answer, 422, "OpeningSessionError")


def test_each_image_has_its_opening_or_none_has(session: CodedSession) -> None:
    images = [as_png(POOL.images[i]) for i in (0, 1)]
    assert is_problem(session.ask(images, [session.opening(0)]), 422, "OpeningsNumberError")
    answer = session.ask(images[:1], [b"{}"])
    assert is_problem(answer, 422, "InvalidDocumentError")
    answer = session.ask(images[:1], [b" " * 2**17])
    assert is_problem(answer, 413, "BodyTooLargeError")


def test_the_verifier_follows_both_kinds_of_verdict(session: CodedSession) -> None:
    report = session.agent.client.get(f"{session.agent.path}/verification").json()
    found = {finding["check"]: finding for finding in report["findings"]}
    assert found["codes-committed"]["detail"] == "codes of length 128, from the secret committed to"
    assert found["verdicts"]["outcome"] == "passed", found["verdicts"]
    officer = session.server.client("compliance-officer")
    page = officer.get(f"{session.agent.path}/report").text
    assert f"own membership code, provable, code of sample {session.known}" in page
    assert "score against calibration, code of sample" in page
    assert "the p-value is a proven bound" in page


def test_the_desk_finds_out_which_picture_an_opening_opens(session: CodedSession) -> None:
    browser = Browser(session.server)
    form_token = browser.sign_in(session.server.home.tokens["compliance-officer"])
    other = next(int(i) for i in session.split.external)
    shown = [noise_image(1_000), POOL.images[other], POOL.images[session.known]]
    files = [("pictures", (f"{n}.png", as_png(pixels))) for n, pixels in enumerate(shown)]
    openings = [
        ("openings", (f"{index}.json", session.opening(index))) for index in (session.known, other)
    ]
    session_id = session.agent.grant.session_id
    form = {"form_token": form_token, "model": session_id, **PURPOSE}

    def ask(*parts: Any) -> requests.Response:
        return browser.send("POST", "/desk", data=form, files=[*files, *parts])

    page = browser.send("GET", ask(*openings).headers["Location"]).text
    assert f"Yes: it is sample {session.known} of the list, one that the model was trained" in page
    assert f"Yes: it is sample {other} of the list, one that was shown as a non-member." in page
    assert page.count("keyed code, the picture&#39;s own") == 2
    assert page.count("keyed code, compared with those of all members") == 1
    found = re.findall(r"/verdicts/[^\"/]+/[^\"/]+", page)
    verdict = browser.send("GET", found[-1]).text
    assert "Found: the model answers with this picture&#39;s own code" in verdict
    assert "fewer than 1 in a billion" in verdict

    changed = session.opening(session.known, label=9)
    strange = [("openings", ("1.json", changed)), *openings[1:]]
    assert "opens none of the pictures" in ask(*strange).text
    assert "opens none of the pictures" in ask(openings[0], openings[0]).text
    elsewhere = session.opening(session.known, session_id="20260101-abcdef")
    assert "a model that was not chosen" in ask(("openings", ("1.json", elsewhere))).text


def test_an_opening_is_of_no_use_where_there_are_no_codes(live_server: LiveServer) -> None:
    order = live_server.add_order(f"un{ORDER_ID}")
    agent = open_session(
        live_server, order, f"un{ORDER_ID}", CODED.model_copy(update={"mint": PLAIN})
    )
    submission = make_submission(agent.grant.session_id, flat_calibration(0.0))
    submission.seal(agent)
    assert submission.send(agent).status_code == 200
    split = derive_split(bytes.fromhex(agent.grant.nonce), agent.grant.split)
    session = CodedSession(agent, live_server, split, 0, 0.0)
    answer = session.ask([as_png(POOL.images[0])], [session.opening(0)])
    assert is_problem(answer, 409, "CodesNotUsedError")
