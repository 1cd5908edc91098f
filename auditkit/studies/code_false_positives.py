"""Is the false-positive rate of codes what it says it is, whatever a stranger looks like?

*Own codes*: a code that took no part in the training is coin flips to T, so the announced rate must
hold on every kind of stranger, noise and near-duplicates included. *Blind* queries are conformal:
their rate must hold on strangers that are exchangeable with C, and how far it drifts on the others
is reported. *Claims*: a stranger that names the member it looks most like. T may echo that code, so
the own-code bound does not hold (`claims_as_own`); against samples of C that name *their* nearest
member the claim is exchangeable again (`claims`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from auditkit.data.duplicates import NEAR_DUPLICATE_THRESHOLD, nearest
from auditkit.data.images import Pixels
from auditkit.data.manifest import Manifest
from auditkit.data.pools import Pool
from auditkit.evidence.derivation import derive_key
from auditkit.evidence.membership_codes import Codes, membership_codes
from auditkit.mint.calibration import p_values, reachable
from auditkit.mint.codes import blind_scores, own_code_p_values, own_scores
from auditkit.mint.false_positives import CHECKED_RATES, FalsePositiveRow, false_positive_table
from auditkit.studies.code_rates import taught_codes
from auditkit.studies.trial import Trial
from schemas.base import Count, Schema

Z = NDArray[np.float32]

SYNTHETIC = 2_000  # images of each kind that nobody ever photographed
GAUSSIAN_MEAN, GAUSSIAN_SPREAD = 127.5, 64.0  # grey levels

SILENT = "silent"
OTHERS = "members of other sessions"
EXTERNAL = "E"
FRESH = "fresh"
UNIFORM = "uniform noise"
GAUSSIAN = "Gaussian noise"
CONSTANT = "constant images"
NEAR = "near-duplicates of members"
ALL = "all non-members"
UNUSED = "members, codes of nobody"
EXCHANGED = "members, codes of other members"


@dataclass(frozen=True)
class _Queries:
    """Scores z of N strangers, by what is asked about them, each (N,)."""

    own: Z
    """with a code that nobody was taught."""
    blind: Z
    """with the best code of any member."""
    claimed: Z
    """with the code of the member that the stranger looks most like."""
    near: NDArray[np.bool_]
    """whether it looks so much like that member that it shows the same picture."""

    def where(self, chosen: NDArray[np.bool_]) -> "_Queries":
        return _Queries(
            self.own[chosen], self.blind[chosen], self.claimed[chosen], self.near[chosen]
        )

    @property
    def size(self) -> int:
        return len(self.own)


class CodeFalsePositives(Schema):
    """How often strangers of each kind are flagged, and whether the announced rates hold."""

    non_members: Count
    calibration_size: Count = Field(description="C without near-duplicates of members")
    own_code: tuple[FalsePositiveRow, ...] = Field(
        description="provable, but for members with codes of other members, which were taught"
    )
    blind: tuple[FalsePositiveRow, ...] = Field(description="exchangeable with C: fresh images")
    claims_as_own: tuple[FalsePositiveRow, ...] = Field(
        description="strangers that name their nearest member, by the own-code bound: not valid"
    )
    claims: tuple[FalsePositiveRow, ...] = Field(
        description="the same, against samples of C that name their nearest member"
    )


def code_false_positives(
    trial: Trial,
    *,
    other_members: Pixels | None = None,
    synthetic: int = SYNTHETIC,
    false_positive_rates: tuple[float, ...] = CHECKED_RATES,
    similarity: float = NEAR_DUPLICATE_THRESHOLD,
    seed: int = 0,
) -> CodeFalsePositives:
    """Query T with strangers of every kind.

    Near-duplicates of members form a kind of their own, and are taken out of C as well, so that
    fresh images and C stay exchangeable.

    Args:
        trial: one whose T says codes.
        other_members: images (N, H, W, C) that other sessions trained on; those that are members
            here, or in C, are left out.
        synthetic: how many images of noise, and of one colour, each.
        false_positive_rates: announced; conformal ones that are out of C's reach are left out.
        similarity: from which two images are near-duplicates.
        seed: of the synthetic images and of the exchange of codes.

    Raises:
        NoCodesError: T says no codes.
    """
    codes = taught_codes(trial).members
    members = np.concatenate([trial.images("told"), trial.images("told_only")])
    queries = {
        kind: _asked(trial, kind, images, members, similarity)
        for kind, images in strangers(trial, other_members, synthetic, seed).items()
    }
    calibration = _asked(trial, "calibration", trial.images("calibration"), members, similarity)
    calibration = calibration.where(~calibration.near)
    kinds = _near_apart(queries)

    own_code = {kind: own_code_p_values(found.own) for kind, found in kinds.items()}
    own_code[ALL] = np.concatenate(list(own_code.values()))
    said = trial.ask(members).outputs
    own_code[UNUSED] = own_code_p_values(own_scores(said, _unused_codes(trial, UNUSED, members)))
    exchanged = codes[_derangement(len(codes), seed)]
    own_code[EXCHANGED] = own_code_p_values(own_scores(said, exchanged))

    rates, size = false_positive_rates, calibration.size
    within = tuple(alpha for alpha in rates if reachable(size, alpha))
    blind = {kind: p_values(found.blind, calibration.blind) for kind, found in kinds.items()}
    claims = {kind: p_values(found.claimed, calibration.claimed) for kind, found in kinds.items()}
    naive = {kind: own_code_p_values(found.claimed) for kind, found in kinds.items()}
    return CodeFalsePositives(
        non_members=len(own_code[ALL]),
        calibration_size=size,
        own_code=false_positive_table(own_code, rates),
        blind=false_positive_table(blind, within, size),
        claims_as_own=false_positive_table(naive, rates),
        claims=false_positive_table(claims, within, size),
    )


def strangers(
    trial: Trial, other_members: Pixels | None, synthetic: int, seed: int
) -> dict[str, Pixels]:
    """Return images (N, H, W, C) of every kind of stranger; no image is in two kinds, or in C."""
    height, width, channels = trial.pool.shape
    generator = np.random.default_rng(seed)
    shape = (synthetic, height, width, channels)
    bell = np.rint(generator.normal(GAUSSIAN_MEAN, GAUSSIAN_SPREAD, size=shape))
    colours = generator.integers(256, size=(synthetic, 1, 1, channels), dtype=np.uint8)
    kinds = {
        SILENT: trial.images("silent"),
        OTHERS: trial.images("told")[:0] if other_members is None else other_members,
        EXTERNAL: trial.images("external"),
        FRESH: trial.images("test"),
        UNIFORM: generator.integers(256, size=shape, dtype=np.uint8),
        GAUSSIAN: np.clip(bell, 0, 255).astype(np.uint8),
        CONSTANT: np.broadcast_to(colours, shape),
    }
    photographs = (SILENT, OTHERS, EXTERNAL, FRESH)
    known = {
        image.tobytes()
        for cohort in ("told", "told_only", "calibration")
        for image in trial.images(cohort)
    }
    for kind in photographs:
        kept = []
        for index, image in enumerate(kinds[kind]):
            pixels = image.tobytes()
            if pixels not in known:
                known.add(pixels)
                kept.append(index)
        kinds[kind] = kinds[kind][kept]
    return {kind: images for kind, images in kinds.items() if len(images)}


def _asked(
    trial: Trial, kind: str, images: Pixels, members: Pixels, least_similarity: float
) -> _Queries:
    codes = taught_codes(trial).members
    outputs = trial.ask(images).outputs
    lookalikes, similarity = nearest(images, members)
    return _Queries(
        own=own_scores(outputs, _unused_codes(trial, kind, images)),
        blind=blind_scores(outputs, codes).scores,
        claimed=own_scores(outputs, codes[lookalikes]),
        near=similarity >= least_similarity,
    )


def _near_apart(queries: dict[str, _Queries]) -> dict[str, _Queries]:
    kinds = {kind: found.where(~found.near) for kind, found in queries.items()}
    near = [found.where(found.near) for found in queries.values()]
    kinds[NEAR] = _Queries(
        own=np.concatenate([found.own for found in near]),
        blind=np.concatenate([found.blind for found in near]),
        claimed=np.concatenate([found.claimed for found in near]),
        near=np.concatenate([found.near for found in near]),
    )
    return {kind: found for kind, found in kinds.items() if found.size}


def _unused_codes(trial: Trial, kind: str, images: Pixels) -> Codes:
    """Return the codes that the images would have in a manifest of their own, (N, b)."""
    labels = np.zeros(len(images), dtype=np.int64)
    key = derive_key(trial.nonce, f"laboratory/{kind}")
    leaves = Manifest(Pool(images, labels, ("stranger",)), key).leaves
    rows = np.arange(len(images))
    return membership_codes(trial.secret or b"", leaves, rows, trial.config.mint.code_length)


def _derangement(size: int, seed: int) -> NDArray[np.int64]:
    """Return a permutation of `range(size)` that leaves nothing where it was."""
    order = np.random.default_rng(seed).permutation(size)
    exchanged = np.empty(size, dtype=np.int64)
    exchanged[order] = np.roll(order, 1)
    return exchanged
