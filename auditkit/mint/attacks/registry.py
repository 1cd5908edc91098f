"""Every attack by name, called alike, with what it needs: for tables that compare them all."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from auditkit.mint.attacks.carlini import lira_offline_scores, lira_online_scores
from auditkit.mint.attacks.errors import MissingInputError
from auditkit.mint.attacks.gap import gap_scores
from auditkit.mint.attacks.salem import confidence_scores
from auditkit.mint.attacks.signals import Scores
from auditkit.mint.attacks.song import modified_entropy_scores
from auditkit.mint.attacks.watson import calibrated_loss_scores
from auditkit.mint.attacks.ye import population_scores, reference_scores
from auditkit.mint.attacks.yeom import loss_scores
from auditkit.mint.attacks.zarifzadeh import rmia_offline_scores, rmia_online_scores


@dataclass(frozen=True)
class AttackInputs:
    """All there is to attack with. Each field is the parameter of that name of the attacks.

    What is None rules out the attacks that need it.
    """

    logits: ArrayLike  # (N, classes) of M on the tested samples
    labels: ArrayLike  # (N,)
    reference_logits: ArrayLike | None = None  # (R, N, classes)
    reference_members: ArrayLike | None = None  # (R, N), true where trained on the sample
    population_logits: ArrayLike | None = None  # (Z, classes) of M on samples no model has seen
    population_labels: ArrayLike | None = None  # (Z,)
    population_reference_logits: ArrayLike | None = None  # (R, Z, classes)
    a: float | None = None  # of offline RMIA, from `choose_rmia_a`


@dataclass(frozen=True)
class Attack:
    """One attack of the literature; its function also takes options that have a default."""

    name: str
    title: str
    source: str
    function: Callable[..., Scores]
    needs_in_references: bool = False  # every tested sample was in the training of some reference

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the fields of `AttackInputs` without which the attack can't run."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.default is inspect.Parameter.empty)

    def applies_to(self, inputs: AttackInputs) -> bool:
        """Tell whether everything that the attack needs is there."""
        if self._missing(inputs):
            return False
        members = inputs.reference_members
        return not self.needs_in_references or bool(np.asarray(members).any(axis=0).all())

    def scores(self, inputs: AttackInputs) -> Scores:
        """Return the score of every tested sample, higher for members, float64 (N,).

        Raises:
            MissingInputError: an input that the attack needs is None.
            AttackError: see the attack's own function.

        """
        missing = self._missing(inputs)
        if missing:
            raise MissingInputError(
                f"expected everything that {self.title} needs, found no {', '.join(missing)}"
            )
        return self.function(**{name: getattr(inputs, name) for name in self.needs})

    def _missing(self, inputs: AttackInputs) -> list[str]:
        return [name for name in self.needs if getattr(inputs, name) is None]


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        attack.name: attack
        for attack in (
            Attack("gap", "gap attack", "Yeom et al., 2018", gap_scores),
            Attack("loss", "loss", "Yeom et al., 2018", loss_scores),
            Attack("confidence", "confidence", "Salem et al., 2019", confidence_scores),
            Attack(
                "modified_entropy",
                "modified entropy",
                "Song and Mittal, 2021",
                modified_entropy_scores,
            ),
            Attack("attack_p", "Attack-P (population)", "Ye et al., 2022", population_scores),
            Attack("attack_r", "Attack-R (references)", "Ye et al., 2022", reference_scores),
            Attack(
                "difficulty_calibration",
                "difficulty calibration",
                "Watson et al., 2022",
                calibrated_loss_scores,
            ),
            Attack(
                "lira_online",
                "LiRA, online",
                "Carlini et al., 2022",
                lira_online_scores,
                needs_in_references=True,
            ),
            Attack("lira_offline", "LiRA, offline", "Carlini et al., 2022", lira_offline_scores),
            Attack(
                "rmia_online",
                "RMIA, online",
                "Zarifzadeh et al., 2024",
                rmia_online_scores,
                needs_in_references=True,
            ),
            Attack("rmia_offline", "RMIA, offline", "Zarifzadeh et al., 2024", rmia_offline_scores),
        )
    }
)
