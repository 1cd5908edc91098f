"""T stays on the server: what an attacker with a developer's token gets out of it."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import requests
import torch
from hand_built import CONFIG, PURPOSE, Client, HandBuiltAgent, is_problem
from live import LiveServer
from safetensors.torch import save

from auditkit.evidence import mint_exchange
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.code_delivery import CodesReceiver, sign_request
from auditkit.evidence.keys import SigningKey
from auditkit.mint.split_training import CORRECT, LOSSES, pack_maps
from auditor_server import tokens
from auditor_server.context import Auditor
from auditor_server.home import FIRST_DEVELOPER
from auditor_server.mint_custody import MintCustody
from schemas import (
    CodesRequest,
    MintConfig,
    MintEvaluation,
    MintExchangeRequest,
    MintFinal,
    MintStanding,
    MintStepAnswer,
    ModelDescription,
    Normalisation,
    TapShapes,
)

ORDER_ID = "held"
SHAPES = TapShapes(shapes=((3,), (2, 2)))
ROWS = 20  # 16 of D and 4 of E
LAST_STEP = 4
COHORTS = {"told": 32, "external": 16, "calibration": 16, "test": 8}
MINT = MintConfig(head="fully_connected", hidden=(8,), custody="auditor", code_length=32)
HELD = CONFIG.model_copy(
    update={
        "model": CONFIG.model.model_copy(update={"architecture": "custom:any"}),
        "mint": MINT,
        "state_interval_steps": 2,
    }
)
CODED = HELD.model_copy(update={"mint": MINT.model_copy(update={"evidence": "codes"})})
CODED_ROWS = 24  # E comes in two views


@pytest.fixture(scope="module")
def order(live_server: LiveServer) -> str:
    return live_server.add_order(ORDER_ID, outage_policy="pause", least_code_length=32)


@pytest.fixture
def agent(live_server: LiveServer, order: str) -> HandBuiltAgent:
    return live_server.open_session(ORDER_ID, order, config=HELD)


def maps(seed: int, rows: int = ROWS) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(rows, *shape, generator=generator) for shape in SHAPES.shapes]
    return pack_maps(values, "float16")


def scored(seed: int, rows: int, losses: Sequence[float] | None = None) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(rows, *shape, generator=generator) for shape in SHAPES.shapes]
    columns = {
        LOSSES: np.ones(rows, np.float32) if losses is None else np.float32(losses),
        CORRECT: np.ones(rows, np.bool_),
    }
    return pack_maps(values, "float16", **columns)


def message_of(
    agent: HandBuiltAgent,
    kind: str,
    step: int,
    payload: bytes = b"",
    *,
    key: SigningKey | None = None,
    tampered: bytes | None = None,
    **fields: Any,
) -> bytes:
    request = MintExchangeRequest(
        **{
            "session_id": agent.grant.session_id,
            "kind": kind,
            "step": step,
            "payload": sha256_hex(payload),
            **fields,
        }
    )
    return mint_exchange.write_request(
        request, payload if tampered is None else tampered, key or agent.key
    )


def ask(
    agent: HandBuiltAgent, kind: str, step: int, payload: bytes = b"", **options: Any
) -> requests.Response:
    message = message_of(agent, kind, step, payload, **options)
    return agent.client.post(f"{agent.path}/mint-exchanges", data=message)


def answered(response: requests.Response, model: type[Any]) -> Any:
    assert response.status_code == 200, response.text
    document, _ = mint_exchange.read_message(response.content)
    return mint_exchange.read_document(document, model)


def begin(agent: HandBuiltAgent, step: int = 0) -> MintStanding:
    return answered(ask(agent, "begin", step, to_bytes(SHAPES)), MintStanding)


def trained(agent: HandBuiltAgent, last: int = LAST_STEP, rows: int = ROWS) -> list[bytes]:
    begin(agent)
    return [ask(agent, "step", step, maps(step, rows)).content for step in range(1, last + 1)]


def evaluated(agent: HandBuiltAgent) -> MintEvaluation:
    for cohort, size in COHORTS.items():
        response = ask(agent, "scores", LAST_STEP, scored(5, size), cohort=cohort)
        assert response.status_code == 200, response.text
    return answered(ask(agent, "evaluation", LAST_STEP), MintEvaluation)


def weights_of_m() -> bytes:
    return save({"audited.weight": torch.arange(4.0)})


def test_a_whole_training_step_by_step(agent: HandBuiltAgent) -> None:
    assert begin(agent) == begin(agent)
    normalisers = set()
    for step in range(1, LAST_STEP + 1):
        response = ask(agent, "step", step, maps(step))
        answer = answered(response, MintStepAnswer)
        assert (answer.step, answer.standing is not None) == (step, step % 2 == 0)
        normalisers.add(answer.normaliser)
    assert len(normalisers) == 1
    metrics = evaluated(agent).cohorts
    assert {found.cohort: found.size for found in metrics} == COHORTS
    final = answered(ask(agent, "final", LAST_STEP, weights_of_m()), MintFinal)
    assert final.audited_weights_digest == sha256_hex(weights_of_m())
    assert final.mint_weights_digest == answer.standing.weights_digest
    assert ask(agent, "final", LAST_STEP, weights_of_m()).status_code == 200


def test_with_codes_e_comes_in_two_views(live_server: LiveServer, order: str) -> None:
    agent = live_server.open_session(ORDER_ID, order, config=CODED)
    begin(agent)
    assert is_problem(ask(agent, "step", 1, maps(1)), 422, "MapsFileError")
    assert ask(agent, "step", 1, maps(1, CODED_ROWS)).status_code == 200


def test_two_sessions_of_the_same_developer_have_different_ts(
    live_server: LiveServer, order: str
) -> None:
    agents = [live_server.open_session(ORDER_ID, order, config=HELD) for _ in range(2)]
    first, second = (begin(agent) for agent in agents)
    assert first.weights_digest != second.weights_digest


def test_the_same_step_again_gets_the_same_answer_and_other_content_none(
    agent: HandBuiltAgent,
) -> None:
    begin(agent)
    first = ask(agent, "step", 1, maps(1))
    assert ask(agent, "step", 1, maps(1)).content == first.content
    assert is_problem(ask(agent, "step", 1, maps(9)), 409, "ExchangeRepeatedError")
    assert ask(agent, "step", 2, maps(2)).status_code == 200


@pytest.mark.parametrize(
    ("kind", "step", "error"),
    [
        ("step", 1, "ExchangeOrderError"),  # its answer went with the state after step 2
        ("step", 5, "ExchangeOrderError"),
        ("evaluation", 3, "ExchangeOrderError"),
        ("final", 4, "ExchangeOrderError"),
    ],
)
def test_nothing_is_answered_out_of_turn(
    agent: HandBuiltAgent, kind: str, step: int, error: str
) -> None:
    trained(agent, last=3)
    payload = maps(step) if kind == "step" else b""
    assert is_problem(ask(agent, kind, step, payload), 409, error)


def test_a_training_that_was_not_begun_gets_no_gradient(agent: HandBuiltAgent) -> None:
    assert is_problem(ask(agent, "step", 1, maps(1)), 409, "ExchangeOrderError")


def test_cohorts_are_not_evaluated_between_epochs(agent: HandBuiltAgent) -> None:
    """Each evaluation says a little about T; so there are only those of the configuration."""
    trained(agent, last=3)
    response = ask(agent, "scores", 3, scored(5, 8), cohort="test")
    assert is_problem(response, 409, "ExchangeOrderError")


def test_a_cohort_is_evaluated_as_a_whole_or_not_at_all(agent: HandBuiltAgent) -> None:
    """Metrics over one sample would be its score."""
    trained(agent)
    one = ask(agent, "scores", LAST_STEP, scored(5, 1), cohort="test")
    assert is_problem(one, 422, "MapsFileError")
    assert is_problem(ask(agent, "evaluation", LAST_STEP), 409, "ExchangeOrderError")
    evaluated(agent)
    other = ask(agent, "scores", LAST_STEP, scored(6, 8), cohort="test")
    assert is_problem(other, 409, "ExchangeRepeatedError")


def test_m_is_handed_over_once(agent: HandBuiltAgent) -> None:
    trained(agent)
    evaluated(agent)
    assert ask(agent, "final", LAST_STEP, weights_of_m()).status_code == 200
    other = save({"audited.weight": torch.ones(4)})
    assert is_problem(ask(agent, "final", LAST_STEP, other), 409, "ExchangeRepeatedError")


def test_weights_of_t_can_not_be_slipped_in_with_those_of_m(agent: HandBuiltAgent) -> None:
    trained(agent)
    evaluated(agent)
    both = save({"audited.weight": torch.ones(4), "mint.classifier.0.weight": torch.ones(8, 7)})
    assert is_problem(ask(agent, "final", LAST_STEP, both), 422, "PartsError")
    assert is_problem(ask(agent, "final", LAST_STEP, b"\x80\x04."), 422, "PartsError")


def test_a_training_that_resumes_finds_t_where_it_was(agent: HandBuiltAgent) -> None:
    first = trained(agent, last=3)
    begin(agent, 2)
    assert ask(agent, "step", 3, maps(3)).content == first[2]
    begin(agent, 0)
    again = [ask(agent, "step", step, maps(step)).content for step in (1, 2, 3)]
    assert again == first
    assert is_problem(ask(agent, "begin", 1, to_bytes(SHAPES)), 409, "HeldStateLostError"), (
        "no state is kept there"
    )


class Worker:
    """One worker process's holder of T; all share the home and its database."""

    def __init__(self, server: LiveServer) -> None:
        self._auditor = Auditor.open(server.settings)
        self._custody = MintCustody(self._auditor, 8)

    def ask(self, agent: HandBuiltAgent, kind: str, step: int, payload: bytes) -> bytes:
        session = self._auditor.store.session(agent.grant.session_id)
        assert session is not None
        return self._custody.exchange(session, message_of(agent, kind, step, payload))

    def standing(self, agent: HandBuiltAgent, step: int) -> MintStanding:
        document, _ = mint_exchange.read_message(self.ask(agent, "begin", step, to_bytes(SHAPES)))
        return mint_exchange.read_document(document, MintStanding)


def test_workers_go_on_with_each_other_s_t(live_server: LiveServer, agent: HandBuiltAgent) -> None:
    one, other = Worker(live_server), Worker(live_server)
    one.standing(agent, 0)
    for step in range(1, LAST_STEP + 1):
        worker = (one, other)[step % 2]
        answer = worker.ask(agent, "step", step, maps(step))
        for again in (one, other):
            assert again.ask(agent, "step", step, maps(step)) == answer
    before = one.standing(agent, LAST_STEP)
    assert before == other.standing(agent, LAST_STEP) == Worker(live_server).standing(agent, 4)
    # One goes back and trains on with other samples; the other still has T of before in memory.
    one.standing(agent, 2)
    for step in (3, 4):
        one.ask(agent, "step", step, maps(step + 100))
    after = other.standing(agent, LAST_STEP)
    assert after != before
    assert after == one.standing(agent, LAST_STEP) == Worker(live_server).standing(agent, 4)


def test_a_step_sent_to_two_workers_at_once_is_done_once(
    live_server: LiveServer, agent: HandBuiltAgent
) -> None:
    workers = [Worker(live_server), Worker(live_server)]
    workers[0].standing(agent, 0)
    with ThreadPoolExecutor(2) as pool:
        for step in range(1, LAST_STEP + 1):
            payload = maps(step)
            answers = list(
                pool.map(lambda worker: worker.ask(agent, "step", step, payload), workers)  # noqa: B023
            )
            assert answers[0] == answers[1]


def test_a_key_that_is_not_the_session_s_asks_in_vain(agent: HandBuiltAgent) -> None:
    begin(agent)
    foreign = ask(agent, "step", 1, maps(1), key=SigningKey.generate())
    assert is_problem(foreign, 403, "ExchangeKeyError")


def test_a_message_of_another_session_is_refused(
    live_server: LiveServer, order: str, agent: HandBuiltAgent
) -> None:
    other = live_server.open_session(ORDER_ID, order, config=HELD)
    begin(agent)
    crossed = dataclasses.replace(agent, grant=other.grant)
    assert is_problem(ask(crossed, "step", 1, maps(1)), 403, "ExchangeKeyError")
    named = ask(agent, "step", 1, maps(1), session_id=other.grant.session_id)
    assert is_problem(named, 422, "ExchangeSessionError")


def test_activations_that_were_changed_on_the_way_are_refused(agent: HandBuiltAgent) -> None:
    begin(agent)
    changed = ask(agent, "step", 1, maps(1), tampered=maps(2))
    assert is_problem(changed, 422, "ExchangePayloadError")
    answered(ask(agent, "step", 1, maps(1)), MintStepAnswer)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        maps(1)[:-1],
        maps(1, ROWS + 1),
        pack_maps([torch.ones(ROWS, 3), torch.ones(ROWS, 2, 2)], "float32"),
        pack_maps([torch.ones(ROWS, 3)], "float16"),
        b"\x80\x04" + bytes(100),
    ],
    ids=["nothing", "cut short", "one row more", "another precision", "one map", "a pickle"],
)
def test_what_is_no_such_batch_is_refused_and_the_step_can_still_be_done(
    agent: HandBuiltAgent, payload: bytes
) -> None:
    begin(agent)
    assert is_problem(ask(agent, "step", 1, payload), 422, "MapsFileError")
    assert ask(agent, "step", 1, maps(1)).status_code == 200


def test_a_body_that_is_no_message_is_refused(agent: HandBuiltAgent) -> None:
    for body, error in (
        (b"", "ExchangeFormatError"),
        (b"\xff\xff\xff\xff", "ExchangeFormatError"),
        (mint_exchange.write_message(b"{}"), "EnvelopeFormatError"),
    ):
        response = agent.client.post(f"{agent.path}/mint-exchanges", data=body)
        assert is_problem(response, 422, error)


def test_other_shapes_than_the_training_began_with_are_refused(agent: HandBuiltAgent) -> None:
    begin(agent)
    other = to_bytes(TapShapes(shapes=((4,),)))
    assert is_problem(ask(agent, "begin", 0, other), 422, "TapShapesError")


def test_shapes_that_the_granted_model_does_not_have_are_refused(
    live_server: LiveServer, order: str
) -> None:
    known = HELD.model_copy(update={"model": CONFIG.model})
    agent = live_server.open_session(ORDER_ID, order, config=known)
    response = ask(agent, "begin", 0, to_bytes(SHAPES))
    assert is_problem(response, 422, "TapShapesError")


def test_a_head_of_a_terabyte_is_not_built(live_server: LiveServer, order: str) -> None:
    wide = HELD.model_copy(update={"mint": MINT.model_copy(update={"hidden": (16384,)})})
    agent = live_server.open_session(ORDER_ID, order, config=wide)
    large = to_bytes(TapShapes(shapes=((2**24,),)))
    assert is_problem(ask(agent, "begin", 0, large), 422, "ModelSizeError")


def test_codes_are_not_handed_out(live_server: LiveServer, order: str) -> None:
    agent = live_server.open_session(ORDER_ID, order, config=CODED)
    request = CodesRequest(
        session_id=agent.grant.session_id, ephemeral_key=CodesReceiver().public_key
    )
    response = agent.client.post(
        f"{agent.path}/membership-codes", data=sign_request(request, agent.key)
    )
    assert is_problem(response, 403, "CodesHeldError")


def test_no_route_gives_t(live_server: LiveServer) -> None:
    document = live_server.client(None).send("GET", "/openapi.json").json()
    paths = [path for path in document["paths"] if "mint" in path]
    assert paths == ["/v1/sessions/{session_id}/mint-exchanges"]
    assert list(document["paths"][paths[0]]) == ["post"]


def test_only_the_auditor_s_own_people_ask_a_model_whose_t_is_held(
    live_server: LiveServer, agent: HandBuiltAgent
) -> None:
    """A verdict tells the score, which the developer must not learn."""
    store = live_server.open_store()
    colleague = tokens.issue(store, "compliance-officer", FIRST_DEVELOPER, datetime.now(UTC))
    store.close()
    image = {"images": ("a.png", b"")}
    path = f"{agent.path}/queries"
    own = Client(live_server.url, colleague).post(path, data=PURPOSE, files=image)
    assert is_problem(own, 403, "HeldQueryError")
    auditors = live_server.client("compliance-officer").post(path, data=PURPOSE, files=image)
    assert is_problem(auditors, 409, "SessionNotSubmittedError")


def test_a_session_whose_developer_holds_t_has_nothing_to_exchange(
    live_server: LiveServer, order: str
) -> None:
    agent = live_server.open_session(ORDER_ID, order)
    response = ask(agent, "begin", 0, to_bytes(SHAPES))
    assert is_problem(response, 409, "CustodyNotUsedError")


def test_after_the_seal_nothing_is_answered(agent: HandBuiltAgent) -> None:
    trained(agent, last=1)
    agent.log_grant()
    agent.log_seal()
    agent.sent(agent.flush(0))
    for kind, payload in (("step", maps(2)), ("begin", to_bytes(SHAPES))):
        assert is_problem(ask(agent, kind, 2, payload), 409, "SessionSealedError")


@pytest.mark.parametrize("part", ["weights", "scores"])
def test_a_submission_may_not_bring_what_the_server_has(agent: HandBuiltAgent, part: str) -> None:
    agent.log_grant()
    agent.log_seal()
    agent.sent(agent.flush(0))
    files = {"description": ("d", b"{}", "application/json"), part: (part, b"", "x/y")}
    response = agent.client.put(f"{agent.path}/submission", files=files)
    assert is_problem(response, 422, "HeldPartError")


@pytest.mark.parametrize(
    "change", [lambda steps: steps[:-1], lambda steps: [(steps[0][0], "0" * 64), *steps[1:]]]
)
def test_a_log_that_names_other_exchanges_is_not_taken(
    agent: HandBuiltAgent, change: Callable[[list[tuple[str, str]]], list[tuple[str, str]]]
) -> None:
    """A relay that gave the agent another gradient, or an agent that did a step without T."""
    answers = trained(agent)
    digests = [
        (sha256_hex(maps(step)), sha256_hex(mint_exchange.read_message(answer)[1]))
        for step, answer in enumerate(answers, start=1)
    ]
    agent.log_grant()
    for step, (activations, gradient) in enumerate(change(digests), start=1):
        agent.log_step(step, activations=activations, gradient=gradient)
    description = to_bytes(
        ModelDescription(
            session_id=agent.grant.session_id,
            model=HELD.model,
            taps=HELD.taps,
            mint=HELD.mint,
            normalisation=Normalisation(mean=(0.5,), std=(0.25,)),
            class_names=tuple("0123456789"),
            weights_digest="0" * 64,
            parameters=1,
        )
    )
    agent.log_seal(description=sha256_hex(description))
    agent.sent(agent.flush(0))
    files = {"description": ("d", description, "application/json")}
    response = agent.client.put(f"{agent.path}/submission", files=files)
    assert is_problem(response, 422, "HeldExchangesError")
