"""Holding the MINT Model T for a training that runs elsewhere.

The agent sends the activations of each step, and gets gradients back; T, its optimiser, its loss
and the codes stay here.
"""

from threading import Lock
from typing import TYPE_CHECKING

from auditkit.evidence import dsse, mint_exchange
from auditor_server.context import Auditor
from auditor_server.documents import parse, read_grant
from auditor_server.errors import (
    BodyTooLargeError,
    CustodyNotUsedError,
    ExchangeKeyError,
    ExchangeSessionError,
)
from auditor_server.process_locks import alone
from auditor_server.records import check_open
from auditor_server.session_keys import SessionKeys
from auditor_server.store import SessionRow
from schemas import MintExchangeRequest, SessionRequest

if TYPE_CHECKING:
    from auditor_server.held_mints import HeldMints


class MintCustody:
    """The MINT Models that this server holds.

    One exchange is worked on at a time; of one session, also by all worker processes together.
    """

    def __init__(self, auditor: Auditor, most_in_memory: int) -> None:
        """Hold T for the auditor's sessions; `most_in_memory` of them are kept loaded."""
        self._auditor = auditor
        self._most = most_in_memory
        self._held: HeldMints | None = None
        # T's arithmetic must not depend on what else the server computes at the same time: it is
        # done again when the server was stopped, and in a replay.
        self._lock = Lock()

    def exchange(self, session: SessionRow, message: bytes) -> bytes:
        """Take one message of a session's agent and return the answer to it.

        The agent MUST send the steps in order, MUST NOT go on before it has the answer, and, when
        no answer came, MUST send the same message again. A new process MUST first say, with
        `begin`, from which state it goes on.

        The server

        * MUST verify that the session key in force has signed the request, and the payload's
          digest;
        * MUST derive what each row of a step is from the grant alone;
        * MUST do every step once: the same activations again get the same answer, and other ones
          are refused;
        * MUST keep what it needs to give that answer before it gives it;
        * MUST go back to a kept state when the training does, and MUST keep a note of that;
        * MUST NOT hand out T, its scores, its outputs or any code, and MUST NOT answer at all
          once the log has its seal.

        Raises:
            CustodyNotUsedError: the developer holds the session's T.
            ExchangeFormatError, EnvelopeFormatError, PayloadTypeError, ExchangePayloadError:
                not such a message.
            BodyTooLargeError: the payload is larger than the server accepts.
            ExchangeKeyError, KeyNotInForceError: the session key in force has not signed it.
            ExchangeSessionError: it is for another session.
            SessionSealedError, SessionExpiredError: nothing is left to train, or a key is revoked.
            ExchangeRepeatedError: it took place already, with other content.
            ExchangeOrderError: it does not follow what took place.
            HeldStateLostError: T can't be put where the training stands.
            TapShapesError, MapsFileError, TapShapeError, PartsError, WeightsFileError,
                WeightsMismatchError, NonFiniteWeightsError: the payload is not as it must be.
            NonFiniteLossError: the training has diverged.

        """
        document, payload = mint_exchange.read_message(message)
        grant, _ = read_grant(session.grant)
        granted = parse(SessionRequest, session.request)
        if granted.config.mint.custody != "auditor":
            raise CustodyNotUsedError(
                f"session {session.id} was granted with mint.custody = 'developer'; ask for a "
                "session whose configuration has mint.custody = 'auditor'"
            )
        keys = SessionKeys.read(self._auditor.store, session, grant)
        request = _verified(dsse.Envelope.from_bytes(document), keys, session)
        mint_exchange.check_payload(request, payload)
        self._check_size(request, payload)
        keys.check_not_revoked(self._auditor.trust_root())
        check_open(session, grant, self._auditor.now())
        with self._lock, alone(self._auditor.home.path, f"mint-{session.id}"):
            # It takes torch to train; a server that is not asked to never loads it.
            from auditor_server.held_mints import Desk, HeldMints

            self._held = self._held or HeldMints(self._most)
            desk = Desk(self._auditor, session, granted, grant)
            return self._held.exchange(desk, request, payload)

    def _check_size(self, request: MintExchangeRequest, payload: bytes) -> None:
        settings = self._auditor.settings
        final = request.kind == "final"
        most = settings.most_weights_bytes if final else settings.most_exchange_bytes
        if len(payload) > most:
            raise BodyTooLargeError(
                f"expected at most {most} bytes in an exchange of the kind {request.kind}, found "
                f"{len(payload)}; choose a smaller batch or later taps, or have the auditor raise "
                "the limit"
            )


def _verified(
    envelope: dsse.Envelope, keys: SessionKeys, session: SessionRow
) -> MintExchangeRequest:
    key = keys.signer(lambda public: mint_exchange.open_request(envelope, public), session.size + 1)
    if key is None:
        raise ExchangeKeyError(
            f"expected an exchange signed by session key {keys.in_force(session.size + 1)}, found "
            "no signature by it; only the process that trains may ask the MINT Model"
        )
    request = mint_exchange.open_request(envelope, key)
    if request.session_id != session.id:
        raise ExchangeSessionError(
            f"expected an exchange of session {session.id}, found one of {request.session_id}; it "
            "was sent to the wrong session"
        )
    return request
