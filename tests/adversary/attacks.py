"""Every attack on a session's evidence, the one check that must catch it, and its error.

Most attackers here hold the developer's key and have even the auditor's cosigner on their side, so
that everything is signed and only the check in question stands between them and level 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
from forge import (
    CODES,
    CONFIG,
    CONTAINER_KEYS,
    DEVELOPER_KEY,
    ENVIRONMENT,
    GRANTED_AT,
    ORIGIN,
    ROLE_KEYS,
    SESSION,
    STRANGER_KEY,
    ContinuationPlot,
    Plot,
    VerdictPlot,
    change,
    commitment,
    crash,
    digest_of,
    drop,
    evaluation_record,
    honest_scores,
    insert,
    is_kind,
    is_state,
    is_step,
    leaves,
    measured,
    own_code_rates,
    own_code_scores,
    stage,
    state_record,
    trust_root_of,
)
from safetensors.numpy import load, save

from auditkit.evidence import notes
from auditkit.evidence.bundle import Bundle, Continuation
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.trust import sign_trust_root, trust_root_payload
from auditkit.mint.metrics import rate
from schemas import (
    AssuranceLevel,
    CalibrationRecord,
    ContinuationRecord,
    EvaluationRecord,
    FlaggedRate,
    GrantRecord,
    ReceiptRecord,
    Record,
    ResumeRecord,
    Role,
    SealRecord,
    SplitSizes,
    StateRecord,
    StepRecord,
    TapConfig,
    WeightRange,
)
from tests.evidence.contained import (
    HOLES_DESCRIBED,
    HOLES_SEEN,
    config_text,
    contained_run,
    image_key,
    manifest_text,
    payload_text,
    pem,
    signed_image,
)

SMALL_ORDER_KEY = "00" * 32  # a point of order 4: one signature fits many messages
OTHER = digest_of("something else")
HONEST_SPLIT = SplitSizes(told=10, silent=4, told_only=2, external=8, calibration=8)
NO_RATES = {"error-rates": "no rate can follow from such scores of C"}
OTHER_SESSION = "20260228-fedcba"
NO_CALIBRATION_LEFT = frozenset({"states", "calibration-committed"})
NO_MODEL_LEFT = frozenset({"sealed-weights", "calibration-scores", "error-rates"})
NO_AUDITORS_TIME = frozenset({"times-possible", "verdicts"})
LOG_UNREADABLE = (
    NO_CALIBRATION_LEFT
    | NO_MODEL_LEFT
    | {
        "checkpoint-roots",
        "receipt-interlock",
        "run-identity",
        "continuations-logged",
        "mint-trained",
        "mint-custody",
        "numbers-possible",
        "times-possible",
        "schedule",
        "equal-exposure",
        "verdicts",
    }
)


@dataclass(frozen=True)
class Attack:
    """One forgery.

    Attributes:
        name: what the attacker does.
        check: the check that must fail.
        error: its typed error.
        plot: how it is done.
        also: checks that fail necessarily too, each with the reason.
        blinds: checks that can't be done any more, beside those that an honest session lacks.
    """

    name: str
    check: str
    error: str
    plot: Plot
    also: Mapping[str, str] = field(default_factory=dict)
    blinds: frozenset[str] = frozenset()

    @property
    def failing(self) -> set[str]:
        return {self.check, *self.also}


# -- tools of the trade ----------------------------------------------------------------------------


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Exchange bytes in whatever has them."""
    return lambda data: data.replace(old, new)


def in_line(index: int, old: bytes, new: bytes) -> Callable[[Bundle], Bundle]:
    """Edit one line of the finished log, as a thief without any key would."""

    def edit(bundle: Bundle) -> Bundle:
        lines = list(bundle.records)
        assert old in lines[index]
        lines[index] = lines[index].replace(old, new)
        return replace(bundle, records=tuple(lines))

    return edit


def without_checkpoint(index: int) -> Callable[[Bundle], Bundle]:
    def edit(bundle: Bundle) -> Bundle:
        kept = list(bundle.checkpoints)
        del kept[index]
        return replace(bundle, checkpoints=tuple(kept))

    return edit


def with_lines_swapped(first: int, second: int) -> Callable[[Bundle], Bundle]:
    def edit(bundle: Bundle) -> Bundle:
        lines = list(bundle.records)
        lines[first], lines[second] = lines[second], lines[first]
        return replace(bundle, records=tuple(lines))

    return edit


def with_log_of_the_honest_session(bundle: Bundle) -> Bundle:
    other = stage(Plot(verdicts=())).bundle
    return replace(other, order=bundle.order, request=bundle.request, grant=bundle.grant)


def with_second_history(bundle: Bundle) -> Bundle:
    """A checkpoint of the same size and another root stands before the second one, cosigned too."""
    second = notes.parse(bundle.checkpoints[1])
    honest = notes.parse_checkpoint(second.text)
    times = [s.signature[:8] for s in second.signatures if s.name.endswith("/cosigner")]
    fork = notes.sign(
        replace(honest, root=bytes.fromhex(OTHER)).to_text(), honest.origin, DEVELOPER_KEY
    )
    cosigned = notes.cosign(
        fork, f"{ORIGIN}/cosigner", ROLE_KEYS["cosigner"], int.from_bytes(times[0], "big")
    )
    first, *rest = bundle.checkpoints
    return replace(bundle, checkpoints=(first, cosigned.to_bytes(), *rest))


def broken_signature(note: notes.Note) -> notes.Note:
    first, *rest = note.signatures
    spoilt = bytes([first.signature[0] ^ 1]) + first.signature[1:]
    return replace(note, signatures=(replace(first, signature=spoilt), *rest))


def in_segment(
    number: int, edit: Callable[[list[Record]], list[Record]]
) -> Callable[[int, list[Record]], list[Record]]:
    return lambda found, records: edit(records) if found == number else records


def receipt_last(records: list[Record]) -> list[Record]:
    receipt, *others = records
    return [*others, receipt.model_copy(update={"time_ms": others[-1].time_ms})]


def is_final_evaluation(record: Record) -> bool:
    return isinstance(record, EvaluationRecord) and record.step == 12


def swap(first: Callable[[Record], bool], second: Callable[[Record], bool]) -> Any:
    """Let two records change places; each place keeps its time."""

    def edit(story: list[Record]) -> list[Record]:
        a, b = (next(i for i, r in enumerate(story) if which(r)) for which in (first, second))
        edited = list(story)
        edited[a] = story[b].model_copy(update={"time_ms": story[a].time_ms})
        edited[b] = story[a].model_copy(update={"time_ms": story[b].time_ms})
        return edited

    return edit


def swap_batches(first: int, second: int) -> Any:
    def edit(story: list[Record]) -> list[Record]:
        batch = {r.step: r.batch for r in story if isinstance(r, StepRecord)}
        for step, other in ((first, second), (second, first)):
            story = change(is_step(step), batch=batch[other])(story)
        return story

    return edit


def shift_clock(which: Callable[[Record], bool], seconds: float) -> Any:
    return lambda story: [
        record.model_copy(update={"time_ms": record.time_ms + int(1000 * seconds)})
        if which(record)
        else record
        for record in story
    ]


def extra_step(story: list[Record]) -> list[Record]:
    """One more step after the last epoch, and the final state after it."""
    last = [record for record in story if isinstance(record, StepRecord)][-1]
    return insert(is_step(last.step), last.model_copy(update={"step": last.step + 1, "epoch": 3}))(
        story
    )


def renumber_final(step: int) -> Any:
    """Let the final state and the seal speak of another last step."""

    def edit(story: list[Record]) -> list[Record]:
        final = [record for record in story if record.kind == "state"][-1]
        story = [r.model_copy(update={"step": step}) if r is final else r for r in story]
        return change(is_kind(SealRecord), step=step)(change(is_final_evaluation, step=step)(story))

    return edit


def with_weights(task: float, mint: float) -> Any:
    """Other loss weights in every step, and objectives that fit them."""

    def edit(story: list[Record]) -> list[Record]:
        steps = [record for record in story if isinstance(record, StepRecord)]
        first = steps[0]
        return [
            record.model_copy(
                update={
                    "task_weight": task,
                    "mint_weight": mint,
                    "objective": task * record.task_loss / first.task_loss
                    + mint * record.mint_loss / first.mint_loss,
                }
            )
            if isinstance(record, StepRecord)
            else record
            for record in story
        ]

    return edit


def calibration_before(step: int) -> Any:
    def edit(story: list[Record]) -> list[Record]:
        record = next(r for r in story if isinstance(r, CalibrationRecord))
        without = drop(is_kind(CalibrationRecord))(story)
        return insert(is_step(step - 1), record)(without)

    return edit


def calibration_again(story: list[Record]) -> list[Record]:
    record = next(r for r in story if isinstance(r, CalibrationRecord))
    return insert(is_kind(CalibrationRecord), record)(story)


def honest_tensors() -> dict[str, np.ndarray]:
    return honest_scores(HONEST_SPLIT)


def calibration_with(value: float) -> np.ndarray:
    scores = honest_tensors()["score/calibration"]
    scores[3] = value
    return scores


def with_calibration(scores: np.ndarray | None) -> Plot:
    """The scores of C are sealed as something else than one number per sample."""
    return Plot(
        scores={"score/calibration": scores}, measured=measured(honest_tensors()), verdicts=()
    )


def with_rates(cohort: str, **changes: Any) -> Plot:
    """One cohort's final error rates are declared otherwise than they were measured."""
    return Plot(
        measured=tuple(
            found.model_copy(update=changes) if found.cohort == cohort else found
            for found in measured(honest_tensors())
        )
    )


def more_flagged(successes: int) -> tuple[FlaggedRate, ...]:
    """As many members called so, with the interval that this would have."""
    return (FlaggedRate(false_positive_rate=0.2, flagged=rate(successes, 10)),)


def add_scores(bundle: Bundle) -> Bundle:
    """The scores of C stay, others are put beside them."""
    assert bundle.scores is not None
    tensors = load(bundle.scores)
    return replace(bundle, scores=save({**tensors, "score/more": np.ones(10, dtype=np.float32)}))


def one_verdict(score: float = 2.0, key: Any = ROLE_KEYS["verdict"], **changes: Any) -> Plot:
    return Plot(verdicts=(VerdictPlot(-1.0), VerdictPlot(score, changes=changes, key=key)))


BLIND = VerdictPlot(2.0, code=("told", 3))
OPENED = VerdictPlot(7.0, code=("told", 0), opened=True)
"""Of the member whose own code scores 7 in the honest scores file."""


def coded(*verdicts: VerdictPlot, **changes: Any) -> Plot:
    """A session with membership codes."""
    return Plot(**{"config": {"mint": CODES}, "verdicts": verdicts or (BLIND, OPENED), **changes})


def coded_tensors() -> dict[str, np.ndarray]:
    return {**honest_tensors(), **own_code_scores(HONEST_SPLIT)}


def with_own_code(cohort: str, own_code: tuple[FlaggedRate, ...]) -> Plot:
    """One cohort's own-code rates are declared otherwise than they were measured."""
    return coded(
        measured=tuple(
            found.model_copy(update={"own_code": own_code}) if found.cohort == cohort else found
            for found in measured(coded_tensors())
        )
    )


def losses_that_rise_again(step: int) -> tuple[float, float]:
    """T learns for one epoch and is then untrained; its mean over all steps still falls."""
    return 2.3 * 0.9 ** (step - 1), [0.69, 0.1, 0.1, 0.9][step - 1]


# -- the table -------------------------------------------------------------------------------------

DOCUMENTS = (
    Attack(
        "the request is rewritten with other white space, and the grant names the new bytes",
        "documents",
        "DocumentError",
        Plot(request_bytes=lambda data: data.replace(b"{", b"{ ", 1)),
    ),
    Attack(
        "an unsigned field is put beside the order's signatures",
        "documents",
        "DocumentError",
        Plot(bundle=lambda b: replace(b, order=b.order[:-1] + b',"zzz":"approved by us"}')),
    ),
    Attack(
        "the request names its developer twice, for two kinds of reader",
        "documents",
        "DocumentError",
        Plot(request_bytes=replaced(b'"developer":', b'"developer":"Someone Else","developer":')),
    ),
    Attack(
        "the developer writes its own order",
        "order-signed",
        "ThresholdError",
        Plot(order_key=DEVELOPER_KEY),
    ),
    Attack(
        "a key of the auditor that may not give orders signs one",
        "order-signed",
        "ThresholdError",
        Plot(order_key=ROLE_KEYS["session"]),
    ),
    Attack(
        "the order's limit on lambda 2 is widened after signing",
        "order-signed",
        "ThresholdError",
        Plot(
            order_after_signing=replaced(
                b'"mint_weight":{"least":0.1,', b'"mint_weight":{"least":0,'
            )
        ),
    ),
    Attack(
        "an expired order is used",
        "order-in-force",
        "OrderNotInForceError",
        Plot(order={"expires_at": GRANTED_AT - timedelta(hours=1)}),
    ),
    Attack(
        "an order is used before its time",
        "order-in-force",
        "OrderNotInForceError",
        Plot(order={"issued_at": GRANTED_AT + timedelta(hours=1)}),
    ),
    Attack(
        "the session goes on after its order has ended",
        "order-in-force",
        "OrderNotInForceError",
        Plot(order={"expires_at": GRANTED_AT + timedelta(hours=12)}),
    ),
    Attack(
        "lambda 2 is so small that T learns nothing of worth",
        "request-within-policy",
        "LossWeightError",
        Plot(config={"mint": CONFIG.mint.model_copy(update={"mint_weight": 0.01})}),
    ),
    Attack(
        "lambda 2 is above what the order allows",
        "request-within-policy",
        "LossWeightError",
        Plot(order={"mint_weight": WeightRange(least=0.1, most=0.5)}),
    ),
    Attack(
        "T is to learn codes though the order allows membership alone",
        "request-within-policy",
        "EvidenceNotAllowedError",
        coded(order={"evidence_kinds": ("membership",)}),
    ),
    Attack(
        "M is trained with a loss that the order leaves out",
        "request-within-policy",
        "TaskLossNotAllowedError",
        Plot(order={"task_losses": ("arcface",)}),
    ),
    Attack(
        "M drops so much that single members leave no trace",
        "request-within-policy",
        "ModelDropoutError",
        Plot(
            order={"most_model_dropout": 0.1},
            config={
                "model": CONFIG.model.model_copy(update={"arguments": {"drop_path_rate": 0.5}})
            },
        ),
    ),
    Attack(
        "codes are too short to carry a small p-value",
        "request-within-policy",
        "CodeLengthError",
        coded(order={"least_code_length": 256}),
    ),
    Attack(
        "more epochs than ordered hide the members",
        "request-within-policy",
        "ExposureLimitError",
        Plot(config={"epochs": 201}, segment_records=200),
        also={"equal-exposure": "what the request asks for was also done: 201 exposures each"},
    ),
    Attack(
        "many sessions are opened to choose among their nonces",
        "request-within-policy",
        "TooManySessionsError",
        Plot(order={"most_sessions": 5}, grant={"session_number": 6}),
    ),
    Attack(
        "the control cohorts are taken out of the split",
        "request-within-policy",
        "GrantMismatchError",
        Plot(
            grant={"split": SplitSizes(told=16, silent=0, told_only=0, external=8, calibration=8)}
        ),
    ),
    Attack(
        "the developer grants its own session",
        "grant-signed",
        "ThresholdError",
        Plot(grant_key=DEVELOPER_KEY),
    ),
    Attack(
        "the nonce is exchanged for a better one",
        "grant-signed",
        "ThresholdError",
        Plot(grant_after_signing=replaced(digest_of("nonce").encode(), OTHER.encode())),
    ),
    Attack(
        "a grant for another request is used",
        "grant-matches",
        "GrantMismatchError",
        Plot(grant={"request_digest": OTHER}),
    ),
    Attack(
        "a grant under another order is used",
        "grant-matches",
        "GrantMismatchError",
        Plot(grant={"order_digest": OTHER}),
    ),
    Attack(
        "the request was made for another order",
        "grant-matches",
        "GrantMismatchError",
        Plot(request={"order_digest": OTHER}),
    ),
    Attack(
        "the log is kept for a second server",
        "grant-matches",
        "GrantMismatchError",
        Plot(grant={"origin": f"audit.example.com/sessions/{SESSION}"}),
    ),
    Attack(
        "codes are taught, and no secret was committed to before",
        "codes-committed",
        "CodeCommitmentError",
        coded(grant={"code_commitment": None}),
    ),
    Attack(
        "a secret is committed to where no codes are taught, to speak of codes later",
        "codes-committed",
        "CodeCommitmentError",
        Plot(grant={"code_commitment": OTHER}),
    ),
    Attack(
        "the secret is exchanged after the grant, for one that fits a verdict",
        "codes-committed",
        "CodeSecretError",
        coded(code_secret=bytes.fromhex(OTHER)),
    ),
    Attack(
        "the session key is exchanged after the request",
        "session-key",
        "SessionKeyError",
        Plot(grant={"session_key": STRANGER_KEY.public.hex}, signer=STRANGER_KEY),
    ),
    Attack(
        "a revoked session key is used",
        "session-key",
        "SessionKeyError",
        Plot(trust_root={"revoked_session_keys": (DEVELOPER_KEY.public.hex,)}),
    ),
    Attack(
        "the certificate runs longer than the order allows",
        "session-key",
        "SessionKeyError",
        Plot(grant={"valid_until": GRANTED_AT + timedelta(hours=100)}),
    ),
    Attack(
        "a session key of small order makes signatures that fit any message",
        "session-key",
        "WeakKeyError",
        Plot(request={"session_key": SMALL_ORDER_KEY}),
        also={"checkpoints-signed": "nothing can be verified under such a key"},
    ),
    Attack(
        "the samples are exchanged after the nonce is known",
        "samples-committed",
        "SampleCommitmentError",
        Plot(request={"pool": commitment(leaves(32, "the pool that was promised"))}),
    ),
    Attack(
        "the test samples are exchanged after the nonce is known",
        "samples-committed",
        "SampleCommitmentError",
        Plot(request={"test": commitment(leaves(8, "the test that was promised"))}),
    ),
    Attack(
        "the test set gets one sample more",
        "samples-committed",
        "SampleCommitmentError",
        Plot(bundle=lambda b: replace(b, test_leaves=b.test_leaves + leaves(1, "one more"))),
    ),
    Attack(
        "a pool sample is left out of the manifest",
        "samples-committed",
        "SampleCommitmentError",
        Plot(bundle=lambda b: replace(b, pool_leaves=b.pool_leaves[:-32])),
        blinds=frozenset({"schedule", "equal-exposure"}),
    ),
    Attack(
        "one sample is committed to at several places, so that one code counts several times",
        "samples-committed",
        "RepeatedLeafError",
        Plot(pool_leaves=2 * leaves(16, "pool")),
    ),
    Attack(
        "checkpoints are signed with a key that nobody certified",
        "checkpoints-signed",
        "UnsignedNoteError",
        Plot(signer=STRANGER_KEY),
    ),
    Attack(
        "checkpoints carry a broken signature of the session key",
        "checkpoints-signed",
        "SignatureError",
        Plot(signed=broken_signature),
    ),
    Attack(
        "checkpoints are cosigned by somebody else in the auditor's name",
        "checkpoints-cosigned",
        "UnsignedNoteError",
        Plot(cosigner=STRANGER_KEY),
        blinds=NO_AUDITORS_TIME,
    ),
    Attack(
        "one cosignature is there where the auditor demands two",
        "checkpoints-cosigned",
        "CosignatureThresholdError",
        Plot(
            trust_root={
                "roles": {
                    **{r: Role(keyids=(k.public.keyid,)) for r, k in ROLE_KEYS.items()},
                    "cosigner": Role(
                        keyids=(ROLE_KEYS["cosigner"].public.keyid, STRANGER_KEY.public.keyid),
                        threshold=2,
                    ),
                }
            }
        ),
        blinds=NO_AUDITORS_TIME,
    ),
    Attack(
        "no checkpoint was ever shown to the auditor",
        "checkpoints-cosigned",
        "CheckpointMissingError",
        Plot(segment_records=100, bundle=lambda b: replace(b, checkpoints=())),
        also={
            "checkpoints-signed": "what is not there is not signed either",
            "checkpoint-roots": "no checkpoint covers the records",
        },
        blinds=NO_AUDITORS_TIME,
    ),
)

LOG = (
    Attack(
        "the log is never sealed",
        "log-complete",
        "LogIncompleteError",
        Plot(story=(drop(is_kind(SealRecord)),), verdicts=()),
        blinds=NO_CALIBRATION_LEFT | NO_MODEL_LEFT | {"verdicts"},
    ),
    Attack(
        "records follow the seal",
        "log-complete",
        "LogIncompleteError",
        Plot(
            story=(
                insert(is_kind(SealRecord), evaluation_record(12, 2, measured(honest_tensors()))),
            )
        ),
    ),
    Attack(
        "a sequence number is used twice",
        "log-complete",
        "LogIncompleteError",
        Plot(story=(change(is_step(3), sequence=3),)),
    ),
    Attack(
        "sequence numbers leave out a record that was never sent",
        "log-complete",
        "LogIncompleteError",
        Plot(story=(change(is_kind(SealRecord), sequence=99),)),
    ),
    Attack(
        "the log begins a second time under the same grant",
        "log-complete",
        "LogIncompleteError",
        Plot(story=(lambda story: insert(is_step(4), story[0])(story),)),
    ),
    Attack(
        "NaN hides a diverged training",
        "log-complete",
        "RecordFormatError",
        Plot(line=replaced(b'"task_accuracy":0.5', b'"task_accuracy":NaN'), verdicts=()),
        blinds=LOG_UNREADABLE,
    ),
    Attack(
        "a record names its batch twice, for two kinds of reader",
        "log-complete",
        "RecordFormatError",
        Plot(line=replaced(b'"batch":', f'"batch":"{OTHER}","batch":'.encode()), verdicts=()),
        blinds=LOG_UNREADABLE,
    ),
    Attack(
        "a number is larger than any reader holds exactly",
        "log-complete",
        "RecordFormatError",
        Plot(line=replaced(b'"threads":1', b'"threads":' + b"9" * 30), verdicts=()),
        blinds=LOG_UNREADABLE | {"initial-weights"},
    ),
    Attack(
        "a logged accuracy is edited in the archive",
        "checkpoint-roots",
        "CheckpointRootError",
        Plot(bundle=in_line(3, b'"task_accuracy":0.5', b'"task_accuracy":0.9')),
    ),
    Attack(
        "the last records are covered by no checkpoint",
        "checkpoint-roots",
        "CheckpointRootError",
        Plot(bundle=without_checkpoint(-1)),
    ),
    Attack(
        "two lines of the log are swapped in the archive",
        "checkpoint-roots",
        "CheckpointRootError",
        Plot(bundle=with_lines_swapped(3, 4)),
        also={
            "log-complete": "the sequence numbers are swapped with the lines",
            "schedule": "two steps came in the other order",
            "times-possible": "so did their times",
        },
    ),
    Attack(
        "the whole log of another session is replayed",
        "checkpoint-roots",
        "CheckpointRootError",
        Plot(
            grant={"session_id": OTHER_SESSION, "origin": f"{ORIGIN}/sessions/{OTHER_SESSION}"},
            bundle=with_log_of_the_honest_session,
            verdicts=(),
        ),
        also={
            "checkpoints-signed": "the name of the signing key is the origin of the log",
            "run-identity": "the first record names its own grant",
            "sealed-weights": "and the sealed description its own session",
        },
        blinds=frozenset({"verdicts"}),
    ),
    Attack(
        "the log is forked: two checkpoints of one size",
        "checkpoint-roots",
        "CheckpointRootError",
        Plot(bundle=with_second_history),
    ),
    Attack(
        "checkpoints of another session are replayed",
        "checkpoint-roots",
        "CheckpointRootError",
        Plot(checkpoint=lambda c: replace(c, origin=f"{ORIGIN}/sessions/{OTHER_SESSION}")),
    ),
    Attack(
        "the log is cut off, its checkpoints are kept",
        "checkpoint-roots",
        "CheckpointRootError",
        Plot(bundle=lambda b: replace(b, records=b.records[:-1]), verdicts=()),
        also={"log-complete": "the end that was cut off held the seal"},
        blinds=NO_CALIBRATION_LEFT | NO_MODEL_LEFT | {"verdicts"},
    ),
    Attack(
        "the log is written ahead, without receipts",
        "receipt-interlock",
        "ReceiptInterlockError",
        Plot(segment=in_segment(2, lambda records: records[1:])),
    ),
    Attack(
        "a receipt is guessed before the cosignature exists",
        "receipt-interlock",
        "ReceiptInterlockError",
        Plot(
            segment=in_segment(1, change(is_kind(ReceiptRecord), checkpoint_digest=OTHER)),
        ),
    ),
    Attack(
        "a receipt is for another checkpoint",
        "receipt-interlock",
        "ReceiptInterlockError",
        Plot(segment=in_segment(2, change(is_kind(ReceiptRecord), checkpoint_size=7))),
    ),
    Attack(
        "a segment is written ahead and its receipt put at the end",
        "receipt-interlock",
        "ReceiptInterlockError",
        Plot(segment=in_segment(1, receipt_last)),
    ),
    Attack(
        "a receipt is logged twice",
        "receipt-interlock",
        "ReceiptInterlockError",
        Plot(segment=in_segment(1, lambda records: [records[0], *records])),
    ),
    Attack(
        "a checkpoint is held back from the bundle",
        "receipt-interlock",
        "ReceiptInterlockError",
        Plot(bundle=without_checkpoint(1)),
    ),
    Attack(
        "the log belongs to another grant",
        "run-identity",
        "RunIdentityError",
        Plot(story=(change(is_kind(GrantRecord), grant_digest=OTHER),)),
    ),
    Attack(
        "other training code was loaded",
        "run-identity",
        "RunIdentityError",
        Plot(story=(change(is_kind(GrantRecord), code_digest=OTHER),)),
    ),
    Attack(
        "another image was run",
        "run-identity",
        "RunIdentityError",
        Plot(story=(change(is_kind(GrantRecord), image_digest=OTHER),)),
    ),
    Attack(
        "a run without container claims to have been in one",
        "run-identity",
        "RunIdentityError",
        Plot(story=(change(is_kind(GrantRecord), mode="container"),)),
    ),
    Attack(
        "the run was resumed on another machine",
        "run-identity",
        "RunIdentityError",
        Plot(
            story=(
                crash(is_step(7), 5),
                change(
                    is_kind(ResumeRecord),
                    environment=ENVIRONMENT.model_copy(update={"device": "cuda"}),
                ),
            )
        ),
    ),
    Attack(
        "a smaller lambda 2 than granted is used",
        "mint-trained",
        "MintTrainingError",
        Plot(story=(with_weights(1.0, 0.5),)),
    ),
    Attack(
        "a larger lambda 1 than granted drowns T",
        "mint-trained",
        "MintTrainingError",
        Plot(story=(with_weights(100.0, 1.0),)),
    ),
    Attack(
        "T is not trained: its loss stays where it was",
        "mint-trained",
        "MintTrainingError",
        Plot(losses=lambda step: (2.3 * 0.9**step, 0.69)),
    ),
    Attack(
        "T is untrained again at the end",
        "mint-trained",
        "MintTrainingError",
        Plot(config={"batch_size": 14, "epochs": 4}, losses=losses_that_rise_again),
    ),
    Attack(
        "a cross-entropy is negative",
        "numbers-possible",
        "ImpossibleNumberError",
        Plot(losses=lambda step: (2.3 * 0.9**step, 0.69 - 0.1 * step)),
    ),
    Attack(
        "a loss is so large that Eq. 1 overflows and any objective would fit",
        "numbers-possible",
        "ImpossibleNumberError",
        Plot(
            losses=lambda step: (0.01, 0.69 * 0.9**step),
            story=(change(is_step(8), task_loss=1e308, objective=1.0),),
        ),
    ),
    Attack(
        "an objective is not Eq. 1 of its losses",
        "numbers-possible",
        "ImpossibleNumberError",
        Plot(story=(change(is_step(8), objective=0.1),)),
    ),
    Attack(
        "the agent's clock runs an hour ahead",
        "times-possible",
        "ImpossibleTimeError",
        Plot(
            story=(shift_clock(lambda _record: True, 3600),),
            cosigned_at=lambda number, seconds: seconds - 3600,
        ),
    ),
    Attack(
        "records were written before the session was granted",
        "times-possible",
        "ImpossibleTimeError",
        Plot(
            story=(shift_clock(is_kind(GrantRecord), -3600),),
        ),
    ),
    Attack(
        "the clock is set back in between",
        "times-possible",
        "ImpossibleTimeError",
        Plot(story=(shift_clock(is_step(6), -1.0),)),
    ),
    Attack(
        "the auditor's key cosigns after the session has expired",
        "times-possible",
        "ImpossibleTimeError",
        Plot(grant={"valid_until": GRANTED_AT + timedelta(seconds=13)}),
    ),
    Attack(
        "cosignatures run backwards",
        "times-possible",
        "ImpossibleTimeError",
        Plot(cosigned_at=lambda number, seconds: seconds - 30 * number),
    ),
    Attack(
        "a cosignature is from years ahead",
        "times-possible",
        "ImpossibleTimeError",
        Plot(cosigned_at=lambda number, seconds: seconds + 900 * 86_400, verdicts=()),
        blinds=frozenset({"verdicts"}),
    ),
    Attack(
        "a cosignature is from the end of all time, when no trust root is in force",
        "checkpoints-cosigned",
        "TrustRootExpiredError",
        Plot(cosigned_at=lambda number, seconds: 2**62, verdicts=()),
        blinds=NO_AUDITORS_TIME,
    ),
    Attack(
        "the bundle brings the next trust root along, signed by its own root key only",
        "trust-root",
        "TrustRootSignatureError",
        Plot(bundle=lambda b: replace(b, trust_roots=(usurping_trust_root(),))),
    ),
    Attack(
        "states are saved less often than granted",
        "states",
        "StateError",
        Plot(story=(drop(is_state(5)),)),
    ),
    Attack(
        "the initial state is never committed",
        "states",
        "StateError",
        Plot(story=(drop(is_state(0)),)),
        blinds=frozenset({"initial-weights"}),
    ),
    Attack(
        "a state is saved for a step that was not done yet",
        "states",
        "StateError",
        Plot(story=(swap(is_state(5), is_step(5)),)),
    ),
    Attack(
        "the run resumes from a state that never was",
        "states",
        "StateError",
        Plot(story=(crash(is_step(7), 5, state_digest=OTHER),)),
    ),
    Attack(
        "the run resumes from a state that an earlier resume has discarded",
        "states",
        "StateError",
        Plot(
            story=(
                crash(is_step(11), 10),
                lambda story: insert(is_kind(ResumeRecord), *_resumes_to_discarded(story))(story),
            )
        ),
        also={"schedule": "a resume can't go to a step that the log doesn't stand at"},
    ),
    Attack(
        "the model is exchanged between two steps",
        "states",
        "StateError",
        Plot(story=(insert(is_state(10), state_record(10, OTHER)),)),
    ),
    Attack(
        "M is fine-tuned after the last state",
        "states",
        "StateError",
        Plot(story=(change(is_state(12), weights_digest=OTHER),)),
    ),
    Attack(
        "the seal speaks of an earlier step",
        "states",
        "StateError",
        Plot(story=(change(is_kind(SealRecord), step=10), change(is_final_evaluation, step=10))),
    ),
    Attack(
        "calibration scores are committed twice",
        "calibration-committed",
        "CalibrationError",
        Plot(story=(calibration_again,)),
    ),
    Attack(
        "calibration scores of an earlier model are committed",
        "calibration-committed",
        "CalibrationError",
        Plot(story=(calibration_before(12),)),
    ),
    Attack(
        "the committed scores are fewer than C",
        "calibration-committed",
        "CalibrationError",
        Plot(story=(change(is_kind(CalibrationRecord), calibration_size=7),)),
    ),
    Attack(
        "other scores are sealed than were committed",
        "calibration-committed",
        "CalibrationError",
        Plot(story=(change(is_kind(CalibrationRecord), scores_digest=OTHER),)),
    ),
    Attack(
        "members are hidden: a batch has other samples",
        "schedule",
        "ScheduleError",
        Plot(story=(change(is_step(6), batch=OTHER),)),
    ),
    Attack(
        "two batches change places",
        "schedule",
        "ScheduleError",
        Plot(story=(swap_batches(2, 3),)),
    ),
    Attack(
        "two steps of the log change places",
        "schedule",
        "ScheduleError",
        Plot(story=(swap(is_step(7), is_step(8)),)),
    ),
    Attack(
        "a step is left out of the log",
        "schedule",
        "ScheduleError",
        Plot(story=(drop(is_step(7)),)),
    ),
    Attack(
        "epochs come in another order",
        "schedule",
        "ScheduleError",
        Plot(story=(change(is_step(5), epoch=2),)),
    ),
    Attack(
        "the model is trained one step more",
        "schedule",
        "ScheduleError",
        Plot(story=(extra_step, renumber_final(13))),
    ),
    Attack(
        "another learning rate is used",
        "schedule",
        "ScheduleError",
        Plot(story=(change(is_step(6), learning_rate=0.2),)),
    ),
    Attack(
        "the log is sealed an epoch too early",
        "schedule",
        "ScheduleError",
        Plot(stop_after=8),
    ),
    Attack(
        "a resume hides the steps that it discards",
        "schedule",
        "ScheduleError",
        Plot(story=(crash(is_step(7), 5, discarded_steps=0),)),
    ),
    Attack(
        "the samples of a broken epoch are shown more often than others",
        "equal-exposure",
        "ExposureError",
        Plot(stop_after=10),
        also={"schedule": "batches follow the nonce, so exposure differs only in a broken epoch"},
    ),
)


def _resumes_to_discarded(story: list[Record]) -> tuple[Record, ...]:
    """From step 10 back to 5, and forward again to the state of step 10 that this discarded."""
    resume = next(record for record in story if isinstance(record, ResumeRecord))
    five = next(r for r in story if isinstance(r, StateRecord) and r.step == 5)
    back = resume.model_copy(
        update={"step": 5, "discarded_steps": 5, "state_digest": five.state_digest}
    )
    return back, resume.model_copy(update={"discarded_steps": 0})


MODEL = (
    Attack(
        "training starts from weights that were trained before",
        "initial-weights",
        "InitialWeightsError",
        Plot(story=(change(is_state(0), weights_digest=OTHER),)),
    ),
    Attack(
        "M+ is fine-tuned after sealing",
        "sealed-weights",
        "SealedWeightsError",
        Plot(bundle=lambda b: replace(b, weights=save({"weight": np.ones(4, np.float32)}))),
    ),
    Attack(
        "the description is exchanged after sealing",
        "sealed-weights",
        "SealedWeightsError",
        Plot(
            bundle=lambda b: replace(
                b, description=(b.description or b"").replace(b'"mean":[0.5]', b'"mean":[0.4]')
            )
        ),
    ),
    Attack(
        "the sealed description is of another session",
        "sealed-weights",
        "SealedWeightsError",
        Plot(description={"session_id": OTHER_SESSION}),
    ),
    Attack(
        "the sealed description reads other taps than were granted",
        "sealed-weights",
        "SealedWeightsError",
        Plot(description={"taps": TapConfig(setup="output")}),
    ),
    Attack(
        "the sealed description names another T",
        "sealed-weights",
        "SealedWeightsError",
        Plot(description={"mint": CONFIG.mint.model_copy(update={"channels": 1})}),
    ),
    Attack(
        "the sealed description names other weights",
        "sealed-weights",
        "SealedWeightsError",
        Plot(description={"weights_digest": OTHER}),
    ),
    Attack(
        "the scores file is exchanged after sealing",
        "calibration-scores",
        "CalibrationScoresError",
        Plot(bundle=add_scores),
        blinds=frozenset({"error-rates"}),
    ),
    Attack(
        "the sealed scores are fewer than C",
        "calibration-scores",
        "CalibrationScoresError",
        with_calibration(honest_tensors()["score/calibration"][:7]),
        also=NO_RATES,
        blinds=frozenset({"verdicts"}),
    ),
    Attack(
        "a score of C that is not a number ranks below everything",
        "calibration-scores",
        "CalibrationScoresError",
        with_calibration(calibration_with(np.nan)),
        also=NO_RATES,
        blinds=frozenset({"verdicts"}),
    ),
    Attack(
        "an infinite score of C ranks above every member",
        "calibration-scores",
        "CalibrationScoresError",
        with_calibration(calibration_with(np.inf)),
        also=NO_RATES,
        blinds=frozenset({"verdicts"}),
    ),
    Attack(
        "scores of C without a shape stop the verifier",
        "calibration-scores",
        "CalibrationScoresError",
        with_calibration(np.array(1.0, dtype=np.float32)),
        also=NO_RATES,
        blinds=frozenset({"verdicts"}),
    ),
    Attack(
        "the scores of C are not in the file",
        "calibration-scores",
        "CalibrationScoresError",
        with_calibration(None),
        also=NO_RATES,
        blinds=frozenset({"verdicts"}),
    ),
    Attack(
        "T is said to find more members than it does",
        "error-rates",
        "ErrorRatesError",
        with_rates("told", flagged=more_flagged(10)),
    ),
    Attack(
        "an error rate is printed with a narrower interval",
        "error-rates",
        "ErrorRatesError",
        with_rates("told", task_accuracy=rate(9, 10).model_copy(update={"low": 0.85})),
    ),
    Attack(
        "T is said to tell members from strangers better than it does",
        "error-rates",
        "ErrorRatesError",
        with_rates("told", auc=0.99),
    ),
    Attack(
        "the AUC of the silent members is left out",
        "error-rates",
        "ErrorRatesError",
        with_rates("silent", auc=None),
    ),
    Attack(
        "the false alarms among fresh samples are left out",
        "error-rates",
        "ErrorRatesError",
        with_rates("test", flagged=()),
    ),
    Attack(
        "M is said to be right more often than it is",
        "error-rates",
        "ErrorRatesError",
        with_rates("test", task_accuracy=rate(8, 8)),
    ),
    Attack(
        "M's loss on its members is raised to that on strangers, against the loss attack",
        "error-rates",
        "ErrorRatesError",
        with_rates("told", task_loss=2.5),
    ),
    Attack(
        "the silent members are left out of the final rates",
        "error-rates",
        "ErrorRatesError",
        Plot(measured=tuple(m for m in measured(honest_tensors()) if m.cohort != "silent")),
    ),
    Attack(
        "a cohort is measured on those of its samples that suit",
        "error-rates",
        "ErrorRatesError",
        with_rates("test", size=7),
    ),
    Attack(
        "scores of the silent members are missing in the sealed file",
        "error-rates",
        "ErrorRatesError",
        Plot(scores={"score/silent": None}, measured=measured(honest_tensors())),
    ),
    Attack(
        "scores of another type are sealed, which other readers round",
        "error-rates",
        "ErrorRatesError",
        Plot(scores={"score/told": np.zeros(10)}, measured=measured(honest_tensors())),
    ),
    Attack(
        "more own codes are said to be found than are",
        "error-rates",
        "ErrorRatesError",
        with_own_code("silent", own_code_rates(np.full(4, 8.0))),
    ),
    Attack(
        "the false alarms of own codes among fresh samples are left out",
        "error-rates",
        "ErrorRatesError",
        with_own_code("test", ()),
    ),
    Attack(
        "own codes are measured at a rate that suits",
        "error-rates",
        "ErrorRatesError",
        with_own_code("told", own_code_rates(np.full(10, 8.0))[:2]),
    ),
    Attack(
        "own-code scores are missing in the sealed file",
        "error-rates",
        "ErrorRatesError",
        coded(scores={"own/external": None}, measured=measured(coded_tensors())),
    ),
    Attack(
        "the final rates are those of an earlier model",
        "error-rates",
        "ErrorRatesError",
        Plot(story=(change(is_final_evaluation, step=8),)),
    ),
    Attack(
        "a verdict is signed by the developer",
        "verdicts",
        "ThresholdError",
        one_verdict(key=DEVELOPER_KEY),
    ),
    Attack(
        "a verdict about another model is shown",
        "verdicts",
        "VerdictError",
        one_verdict(weights_digest=OTHER),
    ),
    Attack(
        "a verdict rests on another calibration",
        "verdicts",
        "VerdictError",
        one_verdict(scores_digest=OTHER),
    ),
    Attack(
        "a verdict claims a higher assurance level than the evidence has",
        "verdicts",
        "VerdictError",
        one_verdict(level=AssuranceLevel.L3),
    ),
    Attack(
        "a verdict of another session is shown",
        "verdicts",
        "VerdictError",
        one_verdict(session_id=OTHER_SESSION),
    ),
    Attack(
        "a p-value is forged, and its outcome with it",
        "verdicts",
        "VerdictError",
        one_verdict(p_value=0.9, outcome="not_shown"),
    ),
    Attack(
        "a p-value claims more calibration samples than there are",
        "verdicts",
        "VerdictError",
        one_verdict(calibration_size=999),
    ),
    Attack(
        "a member is called not shown",
        "verdicts",
        "VerdictError",
        one_verdict(outcome="not_shown"),
    ),
    Attack(
        "a member is asked for at a rate at which nobody can be called one",
        "verdicts",
        "VerdictError",
        one_verdict(false_positive_rate=0.01, outcome="not_shown"),
    ),
    Attack(
        "a stranger is called a member",
        "verdicts",
        "VerdictError",
        one_verdict(score=-1.0, outcome="member"),
    ),
    Attack(
        "a verdict is older than the seal",
        "verdicts",
        "VerdictError",
        one_verdict(issued_at=GRANTED_AT),
    ),
    Attack(
        "a stranger's own code is said to bound its p-value below what it does",
        "verdicts",
        "VerdictError",
        coded(replace(OPENED, changes={"p_value": 1e-30})),
    ),
    Attack(
        "a provable p-value is claimed where there are no codes",
        "verdicts",
        "VerdictError",
        Plot(verdicts=(OPENED,)),
    ),
    Attack(
        "a provable p-value is claimed for a sample that is not in the pool",
        "verdicts",
        "VerdictError",
        coded(OPENED, replace(OPENED, changes={"code_index": 32})),
    ),
    Attack(
        "a provable p-value is dressed up with a calibration",
        "verdicts",
        "VerdictError",
        coded(replace(OPENED, changes={"calibration_size": 8})),
    ),
    Attack(
        "a resemblance to some member is passed off as the sample's own code",
        "verdicts",
        "VerdictError",
        coded(OPENED, replace(BLIND, changes={"evidence": "declared"})),
        also={"codes-carried": "the member's own score is sealed, and is another one"},
    ),
    Attack(
        "a verdict names a member whose code was never told",
        "verdicts",
        "VerdictError",
        coded(OPENED, replace(BLIND, code=("silent", 0))),
    ),
    Attack(
        "a verdict names no member although codes were compared",
        "verdicts",
        "VerdictError",
        coded(OPENED, replace(BLIND, code=None)),
    ),
    Attack(
        "a verdict names a member although there are no codes",
        "verdicts",
        "VerdictError",
        Plot(verdicts=(BLIND,)),
    ),
    Attack(
        "a verdict about one sample rests on a test for sets",
        "verdicts",
        "VerdictError",
        one_verdict(evidence="undeclared"),
    ),
    Attack(
        "code scores are invented for the sealed file",
        "codes-carried",
        "CarriedCodesError",
        coded(scores={"own/told": np.full(10, 11.0, dtype=np.float32)}),
    ),
    Attack(
        "something unsigned is written beside a verdict's signature",
        "verdicts",
        "EnvelopeFormatError",
        Plot(
            bundle=lambda b: replace(
                b, verdicts=(b.verdicts[0], b.verdicts[1][:-1] + b',"zzz":"but see below"}')
            )
        ),
    ),
)

# -- containers ------------------------------------------------------------------------------------

ORDERED_KEY, FOREIGN_KEY = image_key("ordered"), image_key("foreign")
OTHER_PROGRAM = config_text({"Entrypoint": ["python3", "/opt/run/code/other.py"]})
OTHER_MANIFEST = manifest_text(OTHER_PROGRAM)
NOT_ALLOWED = {"image-verified": "nothing is verified about an image that the order does not allow"}
NEXT_CONTAINER = CONTAINER_KEYS[0]


def signed_by(key: Any, **changes: Any) -> Plot:
    """The order lists no image, and trusts one key for them."""
    return Plot(
        order={"images": (), "image_keys": (pem(ORDERED_KEY),)},
        container=contained_run(signature=signed_image(key, **changes)),
    )


IMAGES = (
    Attack(
        "a modified image is used",
        "request-within-policy",
        "ImageNotAllowedError",
        Plot(container=contained_run(), order={"images": (OTHER,)}),
        also=NOT_ALLOWED,
    ),
    Attack(
        "a container is used where the order allows runs without one, and no image",
        "request-within-policy",
        "ImageNotAllowedError",
        Plot(container=contained_run(), order={"images": ()}),
        also=NOT_ALLOWED,
    ),
    Attack(
        "an image carries the name of an ordered one, and has other contents",
        "request-within-policy",
        "ImageNotAllowedError",
        Plot(
            container=contained_run(
                config=OTHER_PROGRAM,
                image={"manifest_digest": OTHER},
                described={
                    "image_id": OTHER,
                    "entrypoint": ("python3", "/opt/run/code/other.py"),
                },
            ),
            order={"images": (OTHER,)},
        ),
        also=NOT_ALLOWED,
    ),
    Attack(
        "no container is used where the order demands one",
        "request-within-policy",
        "ContainerRequiredError",
        Plot(order={"images": (OTHER,), "allow_without_container": False}),
    ),
    Attack(
        "an image is signed by a key that the order does not trust",
        "request-within-policy",
        "ImageSignerError",
        signed_by(FOREIGN_KEY),
        also=NOT_ALLOWED,
    ),
    Attack(
        "the signature of another image is used, with that image's manifest",
        "request-within-policy",
        "SignedConfigError",
        signed_by(ORDERED_KEY, manifest=OTHER_MANIFEST),
        also=NOT_ALLOWED,
    ),
    Attack(
        "the signature of another image is used, with this image's manifest",
        "request-within-policy",
        "SignedManifestError",
        signed_by(ORDERED_KEY, payload=payload_text(OTHER_MANIFEST)),
        also=NOT_ALLOWED,
    ),
    Attack(
        "the trusted key's signature on something else is used",
        "request-within-policy",
        "ImageSignatureTypeError",
        signed_by(ORDERED_KEY, payload=payload_text(manifest_text(), "a purchase order")),
        also=NOT_ALLOWED,
    ),
    Attack(
        "the configuration that is shown is not the image's",
        "image-verified",
        "ImageConfigMismatchError",
        Plot(container=contained_run().model_copy(update={"image_config": OTHER_PROGRAM})),
    ),
)

CONTAINMENT = tuple(
    Attack(
        f"a container is not closed, {where}: {name}",
        "image-verified",
        error.__name__,
        Plot(container=contained_run(**{part: changes})),
    )
    for where, part, holes in (
        ("as described", "described", HOLES_DESCRIBED),
        ("as seen inside", "seen", HOLES_SEEN),
    )
    for name, (changes, error) in holes.items()
)


# -- going on in a further container ---------------------------------------------------------------


def continued(
    *, outside: bool = False, plot: Mapping[str, Any] | None = None, **changes: Any
) -> Plot:
    """The first container dies after step 7; a second one goes on from the state of step 5."""
    further = {"before": is_kind(ResumeRecord), "key": NEXT_CONTAINER, **changes}
    return Plot(
        container=None if outside else contained_run(),
        story=(crash(is_step(7), 5),),
        continuations=(ContinuationPlot(**further),),
        **(plot or {}),
    )


def continued_twice(plot: Mapping[str, Any] | None = None, **changes: Any) -> Plot:
    """A third container takes over from the second; the changes are to its continuation."""
    resumed = is_kind(ResumeRecord)
    return Plot(
        container=contained_run(),
        story=(crash(is_step(11), 10), crash(is_step(7), 5)),
        continuations=(
            ContinuationPlot(before=resumed, key=NEXT_CONTAINER),
            ContinuationPlot(**{"before": resumed, "key": CONTAINER_KEYS[1], **changes}),
        ),
        **(plot or {}),
    )


def announcement_last(records: list[Record]) -> list[Record]:
    """The continuation record comes after what the new container did."""
    found = [record for record in records if isinstance(record, ContinuationRecord)]
    others = [record for record in records if not isinstance(record, ContinuationRecord)]
    late = [record.model_copy(update={"time_ms": others[-1].time_ms}) for record in found]
    return [*others, *late]


def twice_announced(records: list[Record]) -> list[Record]:
    return [
        copy
        for record in records
        for copy in ([record, record] if isinstance(record, ContinuationRecord) else [record])
    ]


def in_every_segment(
    edit: Callable[[list[Record]], list[Record]],
) -> Callable[[int, list[Record]], list[Record]]:
    return lambda _number, records: edit(records)


def with_continuations(
    edit: Callable[[tuple[Continuation, ...]], tuple[Continuation, ...]],
) -> dict[str, Any]:
    return {"bundle": lambda b: replace(b, continuations=edit(b.continuations))}


ANNOUNCED_AT = next(
    index
    for index, line in enumerate(stage(continued()).bundle.records)
    if b'"kind":"continuation"' in line
)
"""Where the log of such a run names its continuation: right after a receipt."""


CONTINUATIONS = (
    Attack(
        "a continuation request is rewritten with other white space",
        "documents",
        "DocumentError",
        continued(
            plot=with_continuations(
                lambda found: (replace(found[0], request=found[0].request + b" "),)
            )
        ),
    ),
    Attack(
        "an unsigned field is put beside a continuation's signature",
        "documents",
        "DocumentError",
        continued(
            plot=with_continuations(
                lambda found: (
                    replace(found[0], envelope=found[0].envelope[:-1] + b',"zzz":"and more"}'),
                )
            )
        ),
    ),
    Attack(
        "the developer certifies its second key itself",
        "continuations",
        "ThresholdError",
        continued(granted_by=DEVELOPER_KEY),
    ),
    Attack(
        "a key of the auditor that may not grant sessions certifies the second key",
        "continuations",
        "ThresholdError",
        continued(granted_by=ROLE_KEYS["cosigner"]),
    ),
    Attack(
        "the continuation of another session is used, and its key with it",
        "continuations",
        "ContinuationBindingError",
        continued(
            request={"session_id": OTHER_SESSION, "grant_digest": OTHER},
            answer={"session_id": OTHER_SESSION, "grant_digest": OTHER},
        ),
    ),
    Attack(
        "a continuation is asked for under another grant",
        "continuations",
        "ContinuationBindingError",
        continued(request={"grant_digest": OTHER}),
    ),
    Attack(
        "a continuation is granted under another grant",
        "continuations",
        "ContinuationBindingError",
        continued(answer={"grant_digest": OTHER}),
    ),
    Attack(
        "a continuation answers another request, for another container",
        "continuations",
        "ContinuationBindingError",
        continued(answer={"request_digest": OTHER}),
    ),
    Attack(
        "the run goes on in a container on another machine",
        "continuations",
        "ContinuationBindingError",
        continued(
            request={"environment": ENVIRONMENT.model_copy(update={"cpu_capability": "AVX512"})}
        ),
    ),
    Attack(
        "a run outside a container changes its key",
        "continuations",
        "ContinuationBindingError",
        continued(outside=True),
    ),
    Attack(
        "the second key is exchanged after the request",
        "continuations",
        "ContinuationKeyError",
        continued(answer={"session_key": STRANGER_KEY.public.hex}, signer=STRANGER_KEY),
    ),
    Attack(
        "a revoked key goes on",
        "continuations",
        "ContinuationKeyError",
        continued(plot={"trust_root": {"revoked_session_keys": (NEXT_CONTAINER.public.hex,)}}),
    ),
    Attack(
        "the first container's key has left it, and is certified again",
        "continuations",
        "ContinuationKeyError",
        continued(key=DEVELOPER_KEY),
    ),
    Attack(
        "the second container's key has left it, and is certified again",
        "continuations",
        "ContinuationKeyError",
        continued_twice(key=NEXT_CONTAINER),
    ),
    Attack(
        "the first container goes on under a fresh key",
        "continuations",
        "ContainerReusedError",
        continued(container=contained_run()),
    ),
    Attack(
        "the second container goes on as the third",
        "continuations",
        "ContainerReusedError",
        continued_twice(container=contained_run(2)),
    ),
    Attack(
        "the second key is of small order",
        "continuations",
        "WeakKeyError",
        continued(request={"session_key": SMALL_ORDER_KEY}),
        also={"checkpoints-signed": "nothing can be verified under such a key"},
    ),
    Attack(
        "a continuation before this one is not shown",
        "continuations",
        "ContinuationOrderError",
        continued(answer={"number": 2}),
    ),
    Attack(
        "two continuations change places",
        "continuations",
        "ContinuationOrderError",
        continued_twice(with_continuations(lambda found: found[::-1])),
        also={
            "checkpoints-signed": "which key is in force follows from their order",
            "continuations-logged": "and so does which one the log must name",
        },
    ),
    Attack(
        "a continuation is shown twice",
        "continuations",
        "ContinuationOrderError",
        continued(plot=with_continuations(lambda found: found * 2)),
        also={"continuations-logged": "the log names it once"},
    ),
    Attack(
        "a continuation goes back behind the one before it",
        "continuations",
        "ContinuationOrderError",
        continued_twice(answer={"log_size": 0}),
        also={"checkpoints-signed": "its key would be in force from the beginning"},
    ),
    Attack(
        "a continuation was granted before the session",
        "continuations",
        "ContinuationOrderError",
        continued(
            before=is_kind(GrantRecord), answer={"granted_at": GRANTED_AT - timedelta(hours=1)}
        ),
    ),
    Attack(
        "a continuation was granted after the session had ended",
        "continuations",
        "ContinuationOrderError",
        continued(answer={"granted_at": GRANTED_AT + timedelta(hours=25)}),
        also={"continuations-logged": "what the key signed was cosigned long before"},
    ),
    Attack(
        "the run goes on in another image",
        "image-verified",
        "ImageExchangedError",
        continued(
            container=contained_run(
                2,
                config=OTHER_PROGRAM,
                described={"entrypoint": ("python3", "/opt/run/code/other.py")},
            )
        ),
    ),
    Attack(
        "the second container is privileged",
        "image-verified",
        "PrivilegedError",
        continued(container=contained_run(2, described={"privileged": True})),
    ),
    Attack(
        "the third container is another one than was described",
        "image-verified",
        "SwappedContainerError",
        continued_twice(container=contained_run(3, seen={"hostname": "0123456789ab"})),
    ),
    Attack(
        "the first container's key goes on signing after the continuation",
        "checkpoints-signed",
        "UnsignedNoteError",
        continued(signer=DEVELOPER_KEY),
    ),
    Attack(
        "the second container's key has signed what came before it",
        "checkpoints-signed",
        "UnsignedNoteError",
        continued(plot={"signer": NEXT_CONTAINER}),
    ),
    Attack(
        "the log does not say that another container took over",
        "continuations-logged",
        "ContinuationLogError",
        continued(named=False),
    ),
    Attack(
        "the log says so only after the new container has worked",
        "continuations-logged",
        "ContinuationLogError",
        continued(plot={"segment": in_every_segment(announcement_last)}),
    ),
    Attack(
        "the log names another continuation",
        "continuations-logged",
        "ContinuationLogError",
        continued(
            plot={
                "segment": in_every_segment(
                    change(is_kind(ContinuationRecord), continuation_digest=OTHER)
                )
            }
        ),
    ),
    Attack(
        "the log names a continuation twice",
        "continuations-logged",
        "ContinuationLogError",
        continued(plot={"segment": in_every_segment(twice_announced)}),
    ),
    Attack(
        "the log names a continuation that nobody granted",
        "continuations-logged",
        "ContinuationLogError",
        Plot(
            story=(
                insert(
                    is_step(7),
                    ContinuationRecord(sequence=0, time_ms=0, continuation_digest=OTHER),
                ),
            )
        ),
    ),
    Attack(
        "a continuation is kept out of the bundle",
        "continuations-logged",
        "ContinuationLogError",
        continued(plot=with_continuations(lambda found: ())),
        also={"checkpoints-signed": "nobody is known to have certified its key"},
    ),
    Attack(
        "the last of two containers at one place is not named",
        "continuations-logged",
        "ContinuationLogError",
        Plot(
            container=contained_run(),
            story=(crash(is_step(7), 5),),
            continuations=(
                ContinuationPlot(before=is_kind(ResumeRecord), key=CONTAINER_KEYS[0]),
                ContinuationPlot(before=is_kind(ResumeRecord), key=CONTAINER_KEYS[1], named=False),
            ),
        ),
    ),
    Attack(
        "a container takes over where no checkpoint ends",
        "continuations-logged",
        "ContinuationLogError",
        continued(answer={"log_size": ANNOUNCED_AT}),
    ),
    Attack(
        "a continuation was granted before what it goes on from was cosigned",
        "continuations-logged",
        "ContinuationLogError",
        continued(answer={"granted_at": GRANTED_AT + timedelta(seconds=5)}),
    ),
    Attack(
        "a key has signed before it was certified",
        "continuations-logged",
        "ContinuationLogError",
        continued(answer={"granted_at": GRANTED_AT + timedelta(hours=1)}),
    ),
)


def usurping_trust_root() -> bytes:
    """A second version that gives every role to a stranger, who is the only one to sign it."""
    first = trust_root_of(Plot())
    stranger = Role(keyids=(STRANGER_KEY.public.keyid,))
    second = first.model_copy(
        update={
            "version": 2,
            "previous": sha256_hex(trust_root_payload(first)),
            "issued_at": first.issued_at + timedelta(days=1),
            "roles": dict.fromkeys(first.roles, stranger),
        }
    )
    return sign_trust_root(second, [STRANGER_KEY]).to_bytes()


ATTACKS = (*DOCUMENTS, *LOG, *MODEL, *IMAGES, *CONTAINMENT, *CONTINUATIONS)
