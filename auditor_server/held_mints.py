"""The sessions' MINT Models at work: trained, put back to where they stood, and kept on disk.

The files are those of `auditor_server.custody_files`.
"""

import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from auditkit.evidence import mint_exchange
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import HeldStateError, MintError
from auditkit.mint.metrics import cohort_metrics
from auditkit.mint.models import thread_count
from auditkit.mint.scores import COHORT_NAMES, CohortScores, read_scores, write_scores
from auditkit.mint.split_training import compose, pack_maps
from auditor_server.codes import committed_secret, session_codes
from auditor_server.context import Auditor
from auditor_server.custody_files import answer_name, session_folder
from auditor_server.errors import (
    ExchangeOrderError,
    ExchangeRepeatedError,
    HeldStateLostError,
    ServerError,
    TapShapesError,
)
from auditor_server.held_mint import Part, SessionMint, join
from auditor_server.home import PRIVATE_FOLDER_MODE
from auditor_server.store import SessionRow
from auditor_server.store.blobs import write_durably
from auditor_server.store.models import HeldMintRow, MintExchangeRow
from schemas import (
    CohortName,
    MintEvaluation,
    MintExchangeRequest,
    MintFinal,
    MintScoresAnswer,
    MintStanding,
    MintStepAnswer,
    SessionGrant,
    SessionRequest,
    TapShapes,
    TrainingConfig,
)
from schemas.base import Schema
from schemas.training import CUSTOM_PREFIX

SECRET_BYTES = 32
# Activations since the last kept state; beyond that, a state is kept between two of the training's.
MOST_JOURNAL_BYTES = 512 * 2**20
SEED_OF_NOTHING = 0  # only the shapes are asked for


class Place(NamedTuple):
    """Where the training of a T stands: after a step, since it last went back."""

    step: int
    rewinds: int


class Live(NamedTuple):
    """A T in memory, and how often the training had gone back when it was put there."""

    mint: SessionMint
    rewinds: int


class HeldMints:
    """The MINT Models in memory; the others are rebuilt from what is kept.

    Another worker may have gone on with a T since: then the one in memory is rebuilt, too.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._live: OrderedDict[str, Live] = OrderedDict()

    def exchange(self, desk: "Desk", request: MintExchangeRequest, payload: bytes) -> bytes:
        """Do what a verified request asks for, and return the answer to it."""
        threads = min(desk.config.threads, os.cpu_count() or 1)
        with thread_count(threads):
            try:
                return self._work(desk, request, payload)
            except ServerError:
                raise  # a refusal, before anything was computed
            except BaseException:
                # What was computed and not kept must not count.
                self._live.pop(desk.session_id, None)
                raise

    def _work(self, desk: "Desk", request: MintExchangeRequest, payload: bytes) -> bytes:
        if request.kind == "begin":
            return self._begin(desk, request.step, payload)
        stored = desk.stored(request)
        if stored is not None:
            return stored
        mint = self._mint(desk)
        work: Callable[[Desk, SessionMint, MintExchangeRequest, bytes], bytes] = {
            "step": _step,
            "scores": _scores,
            "evaluation": _evaluation,
            "final": _final,
        }[request.kind]
        return work(desk, mint, request, payload)

    def _begin(self, desk: "Desk", step: int, payload: bytes) -> bytes:
        shapes = mint_exchange.read_document(payload, TapShapes)
        desk.hold(shapes)
        desk.check_kept(step)
        if desk.rewind(step) or step == 0:
            self._live.pop(desk.session_id, None)
        mint = self._mint(desk)
        if mint.step_done != step:
            raise HeldStateLostError(
                f"the MINT Model of session {desk.session_id} stands at step {mint.step_done}, the "
                f"training at {step}; resume it from an earlier state"
            )
        return _answer(desk.standing(mint))

    def _mint(self, desk: "Desk") -> SessionMint:
        """Return T as it stands, from memory or from what is kept."""
        place = desk.place()
        live = self._live.pop(desk.session_id, None)
        if live is None or Place(live.mint.step_done, live.rewinds) != place:
            live = Live(desk.rebuild(), place.rewinds)
        self._live[desk.session_id] = live
        if len(self._live) > self._most:
            self._live.popitem(last=False)
        return live.mint


class Desk:
    """One session's files and rows."""

    def __init__(
        self, auditor: Auditor, session: SessionRow, request: SessionRequest, grant: SessionGrant
    ) -> None:
        self.session_id = session.id
        self._auditor = auditor
        self._session = session
        self._request = request
        self._grant = grant
        self._store = auditor.store.custody
        self._folder = session_folder(auditor, session.id)

    @property
    def config(self) -> TrainingConfig:
        """What was granted to be trained."""
        return self._request.config

    # -- what is held ---------------------------------------------------------------------------

    def hold(self, shapes: TapShapes) -> None:
        """Begin to hold T for activations of these shapes, if that has not begun."""
        held = self._store.held(self.session_id)
        if held is None:
            self._check_shapes(shapes)
            self._folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
            secret = secrets.token_bytes(SECRET_BYTES)
            row = HeldMintRow(session_id=self.session_id, secret=secret, shapes=to_bytes(shapes))
            mint = self._build(shapes, secret)
            write_durably(self._state(0), mint.held.state(0))
            self._store.add(row)
        elif TapShapes.from_bytes(held.shapes) != shapes:
            raise TapShapesError(
                f"the training of session {self.session_id} began with activations of shapes "
                f"{TapShapes.from_bytes(held.shapes).shapes}, found {shapes.shapes}; go on with "
                "the same model"
            )

    def check_kept(self, step: int) -> None:
        """Check that T can go back to a step."""
        if not self._state(step).is_file():
            raise HeldStateLostError(
                f"no state of the MINT Model is kept at step {step} of session {self.session_id}; "
                "resume the training from an earlier state"
            )

    def rewind(self, step: int) -> bool:
        """Forget what came after a step; tell whether a step was forgotten."""
        return self._store.rewind(self.session_id, step, self._auditor.now()) > 0

    def place(self) -> Place:
        """Return where the training stands, by what is stored."""
        last_step = self._store.last_step(self.session_id)
        return Place(last_step, len(self._store.rewinds(self.session_id)))

    def rebuild(self) -> SessionMint:
        """Return T as it stood after the last step that was answered."""
        held = self._store.held(self.session_id)
        if held is None:
            raise ExchangeOrderError(
                f"the training of session {self.session_id} has not begun here; say `begin` first"
            )
        mint = self._build(TapShapes.from_bytes(held.shapes), held.secret)
        base = self._store.last_step(self.session_id, kept=True)
        try:
            mint.step_done = mint.held.restore(self._state(base).read_bytes())
            for row in self._store.steps(self.session_id, after=base):
                found = mint.train(row.step, self._activations(row.step).read_bytes())
                sent = pack_maps(found.gradients, self.config.mint.wire_precision)
                if sha256_hex(sent) != row.sent:
                    raise HeldStateError(f"step {row.step} done again has another gradient")
        except (OSError, MintError) as error:
            raise HeldStateLostError(
                f"the MINT Model of session {self.session_id} can't be put back to where it stood "
                f"({error}); resume the training from its state at step {base}"
            ) from error
        return mint

    def _build(self, shapes: TapShapes, secret: bytes) -> SessionMint:
        codes = None
        if self.config.mint.evidence == "codes":
            code_secret = committed_secret(self._auditor, self._session, self._grant)
            codes = session_codes(self._auditor, self._session, self._grant, code_secret)
        return SessionMint(self._request, self._grant, shapes, secret, codes)

    def _check_shapes(self, shapes: TapShapes) -> None:
        """Compare with the audited model's own shapes; another's module can't be built here."""
        if self.config.model.architecture.startswith(CUSTOM_PREFIX):
            return
        model = EnhancedAuditedModel.build(self.config, SEED_OF_NOTHING, head=False)
        expected = tuple(model.aad_shapes.values())
        if shapes.shapes != expected:
            raise TapShapesError(
                f"the granted model gives activations of shapes {expected}, found {shapes.shapes}; "
                "train the model of the granted configuration"
            )

    # -- what took place ------------------------------------------------------------------------

    def stored(self, request: MintExchangeRequest) -> bytes | None:
        """Return the answer to an exchange that took place already; None: it has not.

        Raises:
            ExchangeRepeatedError: it took place with other content.
            ExchangeOrderError: its answer is not kept any more.

        """
        row = self._store.exchange(self._row(request, "", None))
        if row is None:
            return None
        if row.received != request.payload:
            raise ExchangeRepeatedError(
                f"{request.kind} {request.step} of session {self.session_id} took place with other "
                f"content, digest {row.received}; nothing is done twice, resume the training from "
                "a saved state to do it anew"
            )
        path = self._answer_file(request)
        answer = path.read_bytes() if path.is_file() else b""
        if not answer or sha256_hex(mint_exchange.read_message(answer)[1]) != row.sent:
            raise ExchangeOrderError(
                f"{request.kind} {request.step} of session {self.session_id} was answered, and the "
                "answer is not kept any more; resume the training from a saved state to do it anew"
            )
        return answer

    def keep_step(
        self, request: MintExchangeRequest, mint: SessionMint, payload: bytes, answer: bytes
    ) -> None:
        """Keep a step that was done: its activations or the state after it, then its answer."""
        kept = mint.state_is_due(request.step) or self._journal_bytes() > MOST_JOURNAL_BYTES
        standing = self.keep_state(mint) if kept else None
        if not kept:
            self._activations(request.step).write_bytes(payload)
        self._answer_file(request).write_bytes(answer)
        _, sent = mint_exchange.read_message(answer)
        self._store.add_exchange(self._row(request, sha256_hex(sent), standing))
        if kept:
            self._prune(request.step)

    def keep(self, request: MintExchangeRequest, answer: bytes) -> None:
        """Keep any other exchange that was done."""
        write_durably(self._answer_file(request), answer)
        self._store.add_exchange(self._row(request, sha256_hex(b""), None))

    def keep_state(self, mint: SessionMint) -> MintStanding:
        """Keep T's state, and say where it stands."""
        write_durably(self._state(mint.step_done), mint.held.state(mint.step_done))
        return self.standing(mint)

    def standing(self, mint: SessionMint) -> MintStanding:
        """Say where T stands."""
        return MintStanding(
            step=mint.step_done,
            state_digest=sha256_hex(mint.held.state(mint.step_done)),
            weights_digest=sha256_hex(mint.held.weights()),
        )

    def keep_scores(self, step: int, part: Part, scores: CohortScores) -> None:
        """Keep the scores of a part of a cohort."""
        write_durably(self._scores(step, part), write_scores({part.cohort: scores}))

    def cohorts(self, mint: SessionMint, step: int) -> dict[CohortName, CohortScores]:
        """Return the scores of all cohorts after a step.

        Raises:
            ExchangeOrderError: a part is missing.

        """
        parts: dict[CohortName, list[CohortScores]] = {}
        for part in mint.parts(step):
            try:
                data = self._scores(step, part).read_bytes()
            except FileNotFoundError:
                raise ExchangeOrderError(
                    f"the samples {part.first} to {part.first + part.size - 1} of the cohort "
                    f"{part.cohort} were not sent after step {step}; send every part first"
                ) from None
            parts.setdefault(part.cohort, []).append(read_scores(data)[part.cohort])
        return {cohort: join(parts[cohort]) for cohort in COHORT_NAMES if cohort in parts}

    def evaluated(self, step: int) -> bool:
        """Tell whether the metrics after a step were given."""
        return self._store.took_place(self.session_id, "evaluation", step)

    def blob(self, data: bytes) -> str:
        """Store a file of the submission; return its digest."""
        return self._auditor.blobs.write(BytesIO(data))

    def _row(
        self, request: MintExchangeRequest, sent: str, standing: MintStanding | None
    ) -> MintExchangeRow:
        return MintExchangeRow(
            session_id=self.session_id,
            kind=request.kind,
            step=request.step,
            cohort=request.cohort or "",
            first=request.first,
            received=request.payload,
            sent=sent,
            state_digest=None if standing is None else standing.state_digest,
            weights_digest=None if standing is None else standing.weights_digest,
            exchanged_at=self._auditor.now(),
        )

    def _prune(self, step: int) -> None:
        """Drop activations and answers that the state after a step makes needless."""
        for path in self._folder.glob("step-*"):
            if path != self._step_file(step, "answer"):
                path.unlink()

    def _journal_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._folder.glob("step-*.activations"))

    def _state(self, step: int) -> Path:
        return self._folder / f"state-{step:08d}.safetensors"

    def _activations(self, step: int) -> Path:
        return self._step_file(step, "activations")

    def _step_file(self, step: int, what: str) -> Path:
        return self._folder / f"step-{step:08d}.{what}"

    def _scores(self, step: int, part: Part) -> Path:
        return self._folder / f"scores-{step:08d}-{part.cohort}-{part.first:08d}.safetensors"

    def _answer_file(self, request: MintExchangeRequest) -> Path:
        if request.kind == "step":
            return self._step_file(request.step, "answer")
        place = f"-{request.cohort}-{request.first:08d}" if request.cohort else ""
        return self._folder / answer_name(request.kind, request.step, place)


def _step(desk: Desk, mint: SessionMint, request: MintExchangeRequest, payload: bytes) -> bytes:
    found = mint.train(request.step, payload)
    standing = desk.standing(mint) if mint.state_is_due(request.step) else None
    answer = _answer(
        MintStepAnswer(
            step=request.step,
            loss=found.loss,
            accuracy=found.accuracy,
            normaliser=found.normaliser,
            standing=standing,
        ),
        pack_maps(found.gradients, desk.config.mint.wire_precision),
    )
    desk.keep_step(request, mint, payload, answer)
    return answer


def _scores(desk: Desk, mint: SessionMint, request: MintExchangeRequest, payload: bytes) -> bytes:
    _check_evaluated(mint, request)
    part = next(
        (
            part
            for part in mint.parts(request.step)
            if (part.cohort, part.first) == (request.cohort, request.first)
        ),
        None,
    )
    if part is None:
        raise ExchangeOrderError(
            f"no part of the cohort {request.cohort} begins with sample {request.first} after step "
            f"{request.step}; both sides must run the same version"
        )
    desk.keep_scores(request.step, part, mint.score(request.step, part, payload))
    answer = _answer(MintScoresAnswer(samples=part.size))
    desk.keep(request, answer)
    return answer


def _evaluation(
    desk: Desk, mint: SessionMint, request: MintExchangeRequest, payload: bytes
) -> bytes:
    del payload
    _check_evaluated(mint, request)
    metrics = tuple(cohort_metrics(desk.cohorts(mint, request.step)))
    answer = _answer(MintEvaluation(step=request.step, cohorts=metrics))
    desk.keep(request, answer)
    return answer


def _final(desk: Desk, mint: SessionMint, request: MintExchangeRequest, payload: bytes) -> bytes:
    if (request.step, mint.step_done) != (mint.total_steps, mint.total_steps):
        raise ExchangeOrderError(
            f"the MINT Model stands at step {mint.step_done} of {mint.total_steps}; M+ is put "
            "together at the end of the training"
        )
    if not desk.evaluated(request.step):
        raise ExchangeOrderError(
            "the last evaluation is missing; send the activations of every cohort and ask for it, "
            "before the weights of M"
        )
    mint_weights = mint.held.weights()
    whole = compose(payload, mint_weights)
    _check_whole(desk.config, whole)
    final = MintFinal(
        weights_digest=desk.blob(whole),
        audited_weights_digest=sha256_hex(payload),
        mint_weights_digest=sha256_hex(mint_weights),
        scores_digest=desk.blob(write_scores(desk.cohorts(mint, request.step))),
        mint_parameters=mint.held.parameters,
    )
    answer = _answer(final)
    desk.keep(request, answer)
    return answer


def _check_whole(config: TrainingConfig, whole: bytes) -> None:
    """Check that the server can load M+ as its queries will; another's module it can't."""
    if not config.model.architecture.startswith(CUSTOM_PREFIX):
        EnhancedAuditedModel.build(config, SEED_OF_NOTHING).load_weights(whole)


def _check_evaluated(mint: SessionMint, request: MintExchangeRequest) -> None:
    if request.step != mint.step_done or not mint.is_evaluated(request.step):
        raise ExchangeOrderError(
            f"the MINT Model stands at step {mint.step_done}, and an evaluation after step "
            f"{request.step} is asked for; cohorts are evaluated at the end of the epochs that "
            "the configuration names, and at no other time"
        )


def _answer(document: Schema, payload: bytes = b"") -> bytes:
    return mint_exchange.write_message(to_bytes(document), payload)
