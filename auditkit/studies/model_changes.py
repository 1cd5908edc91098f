"""What an owner of a model may do to it after the training: each change turns a trial into another.

M is changed, T never is: the auditor keeps T and reads it through the taps of whatever M has
become. Everything random follows from the trial's nonce.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from auditkit.evidence.derivation import Indices, derive_key, initialisation_seed, learning_rate
from auditkit.mint import steps
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.models import build_audited_model, evaluating
from auditkit.mint.preprocessing import augment, to_inputs
from auditkit.mint.task_losses import margin_labels
from auditkit.studies.trial import Trial, train_trial
from schemas import OptimiserConfig, SplitSizes

# Softens the teacher's answers, so that the student learns more than the winning class
# (Hinton et al., 2015, section 2).
DISTILLATION_TEMPERATURE = 4.0

TaskLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(inputs (B, C, H, W), logits (B, classes), labels (B,)) to a loss."""


def fine_tuned(trial: Trial, rows: Indices, epochs: int, rate_share: float) -> Trial:
    """Train all weights of M on samples of the pool, for its task alone, at a constant rate.

    Args:
        trial: the trained one.
        rows: what M goes on with.
        epochs: passes over it.
        rate_share: learning rate as a share of the training's own.
    """
    changed = _copied(trial)
    optimiser = trial.config.optimiser.model_copy(
        update={
            "learning_rate": rate_share * trial.config.optimiser.learning_rate,
            "schedule": "constant",
        }
    )

    def loss(_inputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), labels)

    _train(changed.model.audited, trial, rows, epochs=epochs, optimiser=optimiser, loss=loss)
    return changed


def pruned(trial: Trial, share: float) -> Trial:
    """Set the given share of M's weights to zero, the smallest of all layers; biases stay."""
    changed = _copied(trial)
    matrices = _matrices(changed.model.audited)
    sizes = torch.cat([matrix.detach().abs().flatten() for matrix in matrices]).numpy()
    threshold = float(np.quantile(sizes, share))
    with torch.no_grad():
        for matrix in matrices:
            matrix[matrix.abs() <= threshold] = 0.0
    return changed


def quantised(trial: Trial, bits: int) -> Trial:
    """Round M's weights to 2^bits - 1 levels, symmetric around 0, scaled per output channel."""
    changed = _copied(trial)
    levels = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for matrix in _matrices(changed.model.audited):
            largest = matrix.abs().amax(dim=tuple(range(1, matrix.ndim)), keepdim=True)
            scale = largest.clamp_min(torch.finfo(matrix.dtype).tiny) / levels
            matrix.copy_((matrix / scale).round() * scale)
    return changed


def distilled(trial: Trial, epochs: int) -> Trial:
    """Teach a fresh M of the same architecture M's answers on D, and read T through its taps.

    Raises:
        CustomModelError: the architecture is the developer's own module, which only they can build.
    """
    seed = initialisation_seed(derive_key(trial.nonce, "laboratory/student"))
    student = build_audited_model(trial.config.model, seed)
    student.to(memory_format=torch.channels_last)
    teacher = trial.model.audited

    def loss(inputs: Tensor, logits: Tensor, _labels: Tensor) -> Tensor:
        with evaluating(teacher), torch.no_grad():
            answers = teacher(inputs).float()
        return DISTILLATION_TEMPERATURE**2 * functional.kl_div(
            functional.log_softmax(logits.float() / DISTILLATION_TEMPERATURE, dim=1),
            functional.log_softmax(answers / DISTILLATION_TEMPERATURE, dim=1),
            reduction="batchmean",
            log_target=True,
        )

    optimiser = trial.config.optimiser
    _train(student, trial, trial.split.trained, epochs=epochs, optimiser=optimiser, loss=loss)
    return _with_audited(trial, student)


def trained_alone(trial: Trial) -> Trial:
    """Train M on the same D, from the same nonce, without T.

    Raises:
        CustomModelError: see `distilled`.
        NonFiniteLossError: the training has diverged.
    """
    split = trial.split
    sizes = SplitSizes(
        told=len(split.told),
        silent=len(split.silent),
        told_only=len(split.told_only),
        external=len(split.external),
        calibration=len(split.calibration),
    )
    mint = trial.config.mint.model_copy(update={"mint_weight": 0.0})
    config = trial.config.model_copy(update={"mint": mint})
    return train_trial(
        config, trial.pool, trial.test, sizes, trial.nonce, split=split, secret=trial.secret
    )


def transplanted(trial: Trial, alone: Trial) -> Trial:
    """Read T through the taps of an M that never met it: what is found then is kept in T itself."""
    return _with_audited(trial, copy.deepcopy(alone.model.audited))


def _copied(trial: Trial) -> Trial:
    return replace(trial, model=copy.deepcopy(trial.model))


def _with_audited(trial: Trial, audited: nn.Module) -> Trial:
    model = EnhancedAuditedModel(audited, copy.deepcopy(trial.model.mint), trial.model.taps)
    return replace(trial, model=model.eval())


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of convolutions and linear layers; the rest is too small to matter."""
    return [parameter for parameter in model.parameters() if parameter.ndim >= 2]


def _train(
    audited: nn.Module,
    trial: Trial,
    rows: Indices,
    *,
    epochs: int,
    optimiser: OptimiserConfig,
    loss: TaskLoss,
) -> None:
    config = trial.config
    generator = np.random.default_rng(list(derive_key(trial.nonce, "laboratory/retraining")))
    count = math.ceil(len(rows) / config.batch_size)
    optimisation = steps.new_optimiser(audited, optimiser)
    audited.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**63)))
        for step in range(epochs * count):
            if step % count == 0:
                batches = np.array_split(generator.permutation(rows), count)
            batch = batches[step % count]
            words = generator.integers(2**32, size=len(batch), dtype=np.uint32)
            inputs = _inputs(trial, trial.pool.images[batch], words)
            targets = torch.from_numpy(trial.pool.labels[batch])
            with steps.precision(config), margin_labels(audited, targets):
                found = loss(inputs, audited(inputs), targets)
            steps.set_learning_rate(
                optimisation, learning_rate(optimiser, step + 1, epochs * count)
            )
            optimisation.zero_grad(set_to_none=True)
            found.backward()  # type: ignore[no-untyped-call] # torch
            optimisation.step()
    audited.eval()


def _inputs(trial: Trial, images: NDArray[np.uint8], words: NDArray[np.uint32]) -> Tensor:
    config = trial.config
    plain = to_inputs(images, trial.normalisation)
    altered = augment(plain, words, config.augmentation, config.shift_pixels)
    return altered.contiguous(memory_format=torch.channels_last)
