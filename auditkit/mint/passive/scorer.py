"""Fitting a MINT Model on features of a trained M, and scoring samples with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from auditkit.mint.errors import (
    FeatureShapeError,
    NonFiniteFeatureError,
    NonFiniteLossError,
    NonFiniteScoreError,
    SingleClassError,
    TapShapeError,
)
from auditkit.mint.heads import LEAST_MAP_SIDE, ConvolutionalHead
from auditkit.mint.models import evaluating, initialised
from auditkit.mint.passive.maps import ActivationMaps
from schemas import MintConfig
from schemas.base import FiniteFloat, Schema
from schemas.training import Width

# "Factors Impacting Membership Inference", Fig. 2 and its training settings.
EPOCHS = 20
LEARNING_RATE = 1e-3
DROPOUT = 0.3
HIDDEN = (256, 128)  # two fully connected layers before the score; the figure gives no widths

CONVOLUTION_CHANNELS = 64
BATCH = 64
SCORING_BATCH = 512

# A feature that never changes has no spread; it is shifted to zero and left.
LEAST_SPREAD = 1e-6

Vectors = NDArray[np.float32]
Features = Vectors | ActivationMaps
Positive = Annotated[int, Field(ge=1)]


class PassiveConfig(Schema):
    """A passive MINT Model and how it is fitted.

    `vanilla` is the multilayer perceptron on the maxima of the maps ("Factors Impacting
    Membership Inference", Fig. 2), or on any other vectors: outcome and gradient features.
    `cnn` puts convolutions over the maps themselves (DeAlcala et al., "Is my Data in your AI
    Model?").
    """

    kind: Literal["vanilla", "cnn"] = "vanilla"
    hidden: tuple[Width, ...] = Field(default=HIDDEN, description="fully connected widths")
    channels: Width = Field(default=CONVOLUTION_CHANNELS, description="convolution width per tap")
    dropout: float = Field(default=DROPOUT, ge=0.0, lt=1.0)
    learning_rate: FiniteFloat = Field(default=LEARNING_RATE, gt=0.0)
    l2: FiniteFloat = Field(default=0.0, ge=0.0)
    epochs: Positive = EPOCHS
    batch_size: Annotated[int, Field(ge=2)] = BATCH


class _Rows(Protocol):
    """Features of a set of samples that are read batch by batch."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]: ...

    def __len__(self) -> int: ...

    def batch(self, rows: NDArray[np.int64]) -> list[Tensor]: ...


@dataclass(frozen=True)
class PassiveScorer:
    """A fitted passive MINT Model."""

    config: PassiveConfig
    shapes: tuple[tuple[int, ...], ...]  # of one sample's features, one per tap or vector
    network: nn.Module

    def scores(self, features: Features) -> NDArray[np.float32]:
        """Return a logit per sample, (N,), higher where it looks more like a member.

        Only samples that the scorer was not fitted on may be judged by it.

        Raises:
            FeatureShapeError: the features are not of the kind that the scorer was fitted on.
            NonFiniteFeatureError: a feature is infinite or not a number.
            NonFiniteScoreError: a score is, because the fit has diverged.

        """
        rows = _rows(features, self.config)
        if rows.shapes != self.shapes:
            raise FeatureShapeError(
                f"expected features of shape {self.shapes} per sample, as the scorer was fitted "
                f"on, found {rows.shapes}; read them from the same M at the same taps"
            )
        scores = np.empty(len(rows), dtype=np.float32)
        with evaluating(self.network), torch.no_grad():
            for start in range(0, len(rows), SCORING_BATCH):
                which = np.arange(start, min(start + SCORING_BATCH, len(rows)))
                scores[which] = self.network(rows.batch(which)).cpu().numpy()
        if not np.isfinite(scores).all():
            raise NonFiniteScoreError(
                "expected finite scores of the passive MINT Model, found others; its fit has "
                "diverged: lower its learning rate"
            )
        return scores


def fitting_split(
    count: int, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part `count` samples at random into those to fit on and those to test, in rising order.

    Raises:
        SingleClassError: one of the two parts would be empty.

    """
    fitted = round(count * share)
    if not 0 < fitted < count:
        raise SingleClassError(
            f"expected samples both to fit on and to test, found {count} of which a share of "
            f"{share:g} is fitted; bring more samples or choose another share"
        )
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[:fitted]), np.sort(order[fitted:])


def train_passive(
    members: Features, non_members: Features, config: PassiveConfig, seed: int
) -> PassiveScorer:
    """Fit a passive MINT Model on some members and some non-members of M.

    Both kinds weigh the same, whatever their numbers. The result follows from the features and
    `seed` alone, and the caller's random state is left as it was.

    Args:
        members: features of samples that M was trained on: (N, F) vectors, or `ActivationMaps`,
            of which `vanilla` takes the maxima.
        non_members: the same for samples that it was not trained on.
        config: the network and its optimisation.
        seed: of initial weights, order and dropout.

    Raises:
        SingleClassError: there are no members, or no non-members.
        FeatureShapeError: the two kinds differ in shape, or the network cannot read them.
        NonFiniteFeatureError: a feature is infinite or not a number.
        TapShapeError: `cnn`, and a tap has no spatial map.
        NonFiniteLossError: the training has diverged.

    """
    if len(members) == 0 or len(non_members) == 0:
        raise SingleClassError(
            f"expected members and non-members to fit on, found {len(members)} and "
            f"{len(non_members)}; bring samples of both kinds"
        )
    kinds = (_rows(non_members, config), _rows(members, config))
    if kinds[0].shapes != kinds[1].shapes:
        raise FeatureShapeError(
            f"expected members and non-members with equal features, found {kinds[1].shapes} and "
            f"{kinds[0].shapes} per sample; read both from the same M at the same taps"
        )
    network = _network(kinds, config, seed)
    devices = sorted({p.device.index for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        _fit(network, kinds, config, np.random.default_rng(seed))
    return PassiveScorer(config, kinds[0].shapes, network.eval())


class _VectorRows:
    def __init__(self, values: Vectors) -> None:
        if values.ndim != 2 or values.shape[1] == 0:
            raise FeatureShapeError(f"expected features (samples, features), found {values.shape}")
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).any(axis=1).sum())
            raise NonFiniteFeatureError(
                f"expected finite features, found others in {bad} of {len(values)} samples; M or "
                "the samples are damaged"
            )
        self.values = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        self.shapes: tuple[tuple[int, ...], ...] = (tuple(values.shape[1:]),)

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: NDArray[np.int64]) -> list[Tensor]:
        return [self.values[torch.from_numpy(rows)]]


class _Perceptron(nn.Module):
    """Fully connected layers on features that are standardised as the fitted ones were."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int, config: PassiveConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        layers: list[nn.Module] = []
        for hidden in config.hidden:
            layers += [
                nn.Linear(width, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Dropout(config.dropout),
            ]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        (vectors,) = features
        scores: Tensor = self.layers((vectors - self.mean) / self.spread)
        return scores.squeeze(1)


def _rows(features: Features, config: PassiveConfig) -> _Rows:
    if config.kind == "vanilla":
        vectors = features.maxima() if isinstance(features, ActivationMaps) else features
        return _VectorRows(vectors)
    if not isinstance(features, ActivationMaps):
        raise FeatureShapeError(
            "the cnn reads activation maps, found vectors; pass what `read_maps` returns, or use "
            "kind = 'vanilla'"
        )
    for shape in features.shapes:
        if len(shape) != 3 or min(shape[1:]) < LEAST_MAP_SIDE:
            raise TapShapeError(
                f"the cnn expects maps (channels, height, width) of at least {LEAST_MAP_SIDE} x "
                f"{LEAST_MAP_SIDE}, found {shape}; use kind = 'vanilla' or earlier taps"
            )
    return features


def _network(kinds: Sequence[_Rows], config: PassiveConfig, seed: int) -> nn.Module:
    shapes = kinds[0].shapes
    if config.kind == "cnn":
        head = MintConfig(
            head="convolutional",
            channels=config.channels,
            hidden=config.hidden,
            dropout=config.dropout,
        )
        device = kinds[0].batch(np.zeros(1, dtype=np.int64))[0].device
        return initialised(lambda: ConvolutionalHead(shapes, head), seed).to(device)
    perceptron = initialised(lambda: _Perceptron(shapes[0][0], config), seed)
    fitted = torch.cat([rows.batch(np.arange(len(rows)))[0] for rows in kinds]).double()
    perceptron.mean.copy_(fitted.mean(dim=0))
    spread = fitted.std(dim=0, correction=0)
    perceptron.spread.copy_(torch.where(spread < LEAST_SPREAD, 1.0, spread))
    return perceptron


def _fit(
    network: nn.Module,
    kinds: Sequence[_Rows],
    config: PassiveConfig,
    generator: np.random.Generator,
) -> None:
    others, members = (len(rows) for rows in kinds)
    balance = torch.tensor(others / members)
    optimiser = torch.optim.Adam(
        network.parameters(), lr=config.learning_rate, weight_decay=config.l2
    )
    # Batches of equal size, give or take one, so that no batch norm ever meets a single row.
    batches = -(-(others + members) // config.batch_size)
    network.train()
    for _ in range(config.epochs):
        for batch in np.array_split(generator.permutation(others + members), batches):
            parts = [kinds[0].batch(batch[batch < others])]
            parts.append(kinds[1].batch(batch[batch >= others] - others))
            scores = network([torch.cat(pair) for pair in zip(*parts, strict=True)])
            targets = torch.zeros_like(scores)
            targets[len(parts[0][0]) :] = 1.0
            loss = functional.binary_cross_entropy_with_logits(
                scores, targets, pos_weight=balance.to(scores.device)
            )
            if not torch.isfinite(loss):
                raise NonFiniteLossError(
                    "expected a finite loss of the passive MINT Model, found "
                    f"{loss.item()}; lower its learning rate"
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
