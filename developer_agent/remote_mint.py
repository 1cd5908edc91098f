"""The MINT Model T, where the auditor's server holds it: asked once per step, and never seen.

The exchange is on the training thread, since no step can end without its gradient. So nothing
queues up, and a slow link slows the training: `docs/decisions/21-auditor-held-mint.md` says by how
much. While the server is away the order's outage policy decides: `pause` asks until it is back,
`stop` for `late_after_seconds`. There is no way to continue late.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from auditkit.evidence import mint_exchange
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.mint_exchange import S
from auditkit.mint.split_training import CORRECT, LOSSES, HeldStep, pack_maps, unpack_maps
from developer_agent.client import ServerClient
from developer_agent.errors import (
    ServerError,
    ServerOutageError,
    SessionKeyGoneError,
    UnexpectedAnswerError,
)
from developer_agent.joint_training import SupervisionOrderError
from developer_agent.session import Session
from developer_agent.uplink import retry_delay
from schemas import (
    CohortMetrics,
    CohortName,
    MintEvaluation,
    MintExchangeRequest,
    MintFinal,
    MintScoresAnswer,
    MintStanding,
    MintStepAnswer,
    TapShapes,
)
from schemas.custody import ExchangeKind

_SYSTEM_RANDOM = random.SystemRandom()


@dataclass(frozen=True)
class RemoteStep(HeldStep):
    """What came back for one step, and what the log says of the exchange."""

    activations: str
    """SHA-256 of what was sent."""
    gradient: str
    """SHA-256 of what came back."""


class RemoteMint:
    """T of one session, at the other end of the line. For the training thread only."""

    def __init__(
        self,
        session: Session,
        client: ServerClient,
        *,
        jitter: random.Random = _SYSTEM_RANDOM,
    ) -> None:
        """Remember whom to ask; nothing is sent yet.

        Args:
            session: open, with the key that is in force for it.
            client: the auditor's server, or the relay in front of it.
            jitter: spreads retries.
        """
        self._session = session
        self._client = client
        self._jitter = jitter
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._precision = session.config.mint.wire_precision
        self._last: tuple[int, RemoteStep] | None = None
        self._standing: MintStanding | None = None

    # Every method raises ServerError with the server's reason, ServerOutageError if the order says
    # to stop, SessionKeyGoneError, and ExchangeFormatError for an answer of another version.

    def begin(self, step: int, shapes: Sequence[tuple[int, ...]]) -> MintStanding:
        """Say that training begins, or goes on, after `step` steps; T goes back there too.

        Args:
            step: steps that are done.
            shapes: of one sample's activations per tap, in running order.
        """
        self._shapes = tuple(shapes)
        document = to_bytes(TapShapes(shapes=self._shapes))
        answer, _ = self._ask(MintStanding, "begin", step, document)
        if answer.step != step:
            raise UnexpectedAnswerError(
                f"training goes on after step {step}, the auditor's server is at {answer.step}; "
                "its version differs from this one"
            )
        self._standing = answer
        return answer

    def train(self, step: int, maps: Sequence[Tensor]) -> RemoteStep:
        """Let T train on one step's activations, and get the gradients for M.

        Raises:
            MapsFileError: the training has diverged, or the gradients are not of these maps.
        """
        payload = pack_maps(maps, self._precision)
        answer, gradients = self._ask(MintStepAnswer, "step", step, payload)
        found = RemoteStep(
            loss=answer.loss,
            accuracy=answer.accuracy,
            normaliser=answer.normaliser,
            gradients=unpack_maps(gradients, self._shapes, len(maps[0]), self._precision),
            activations=sha256_hex(payload),
            gradient=sha256_hex(gradients),
        )
        self._last = (step, found)
        self._standing = answer.standing
        return found

    def exchanged(self, step: int) -> dict[str, str]:
        """Return what the record of a step says of the exchange in it.

        Raises:
            SupervisionOrderError: there was none.
        """
        if self._last is None or self._last[0] != step:
            raise SupervisionOrderError(
                f"step {step} is to be recorded, and the MINT Model was not asked in it; call "
                "`losses` for every batch"
            )
        return {"activations": self._last[1].activations, "gradient": self._last[1].gradient}

    def standing(self, step: int) -> dict[str, str]:
        """Return what the record of a state says of T.

        Raises:
            UnexpectedAnswerError: the auditor's server has not said it.
        """
        if self._standing is None or self._standing.step != step:
            raise UnexpectedAnswerError(
                f"the state after step {step} is to be saved, and the auditor's server has not "
                "said where its MINT Model stands; its version differs from this one"
            )
        return {
            "mint_state_digest": self._standing.state_digest,
            "mint_weights_digest": self._standing.weights_digest,
        }

    def score(
        self,
        step: int,
        cohort: CohortName,
        first: int,
        maps: Sequence[Tensor],
        *,
        task_losses: NDArray[np.float32],
        correct: NDArray[np.bool_],
    ) -> None:
        """Have a part of a cohort scored; the scores stay with the auditor.

        Args:
            step: steps that are done.
            cohort: whose samples these are.
            first: number of the first of them among the cohort's evaluated samples.
            maps: one per tap.
            task_losses: (N,) cross-entropy of M.
            correct: (N,) whether M's top class is the label.
        """
        columns = {LOSSES: task_losses, CORRECT: correct}
        payload = pack_maps(maps, self._precision, **columns)
        self._ask(MintScoresAnswer, "scores", step, payload, cohort=cohort, first=first)

    def evaluation(self, step: int) -> tuple[CohortMetrics, ...]:
        """Return the metrics of all cohorts, whose parts were all sent."""
        return self._ask(MintEvaluation, "evaluation", step, b"")[0].cohorts

    def final(self, step: int, weights: bytes) -> MintFinal:
        """Hand over the weights of M, and learn the digests of what M+ is put together to."""
        answer, _ = self._ask(MintFinal, "final", step, weights)
        if answer.audited_weights_digest != sha256_hex(weights):
            raise UnexpectedAnswerError(
                "the auditor's server has put M+ together from other weights of M than were sent; "
                "tell the auditor"
            )
        return answer

    def _ask(
        self,
        model: type[S],
        kind: ExchangeKind,
        step: int,
        payload: bytes,
        *,
        cohort: CohortName | None = None,
        first: int = 0,
    ) -> tuple[S, bytes]:
        session_id = self._session.grant.session_id
        request = MintExchangeRequest(
            session_id=session_id,
            kind=kind,
            step=step,
            cohort=cohort,
            first=first,
            payload=sha256_hex(payload),
        )
        if self._session.key is None:
            raise SessionKeyGoneError(
                "the MINT Model answers only the process that holds the session key, and it is "
                "gone with its container; resume the run to get another"
            )
        message = mint_exchange.write_request(request, payload, self._session.key)
        answer = self._insist(lambda: self._client.exchange(session_id, message))
        document, content = mint_exchange.read_message(answer)
        return mint_exchange.read_document(document, model), content

    def _insist(self, call: Callable[[], bytes]) -> bytes:
        """Make a call, through outages as the order allows them."""
        order = self._session.order
        began = time.monotonic()
        failures = 0
        while True:
            try:
                return call()
            except ServerError as error:
                if not error.temporary:
                    raise
                failures += 1
                silence = time.monotonic() - began
                if order.outage_policy != "pause" and silence > order.late_after_seconds:
                    raise ServerOutageError(
                        f"the auditor's server, which holds the MINT Model, has not answered for "
                        f"{silence:.0f} s and the order says to stop after "
                        f"{order.late_after_seconds:g} s ({error}). Resume the run when the server "
                        "is back; it goes on from its last state"
                    ) from error
            time.sleep(retry_delay(failures, self._jitter))
