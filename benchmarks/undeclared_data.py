"""CIFAR-10, real images: does a set of n silent samples show, though no T was told of them?

    python benchmarks/undeclared_data.py --data FOLDER  # train/<class>/*.jpg

M alone, trained with augmentation on D, of which 500 samples are silent. For sets of n of them the
aggregated test compares the mean rank of M's loss with that of C, at a false-alarm rate of 0.1 %.
Strangers are samples that M never trained on: told-only ones, which the auditor would tell T, and
fresh ones. Split, sizes and M are those of `membership_codes.py`; near-duplicates are dropped from
the pool.

Printed on 2026-11-21 on one core of an AMD EPYC server (AVX512, other programs running), seed 0:
power 0.6 [0.3, 1.0] % at n = 1, 96.6 [95.7, 97.3] % at n = 10, 100.0 [99.8, 100.0] % at n = 50 and
100, over 2,000 sets drawn again and again from the 500 (10 disjoint sets of 50: all found). No kind
of stranger raised more alarms than announced; all tables are in results/.
"""

import argparse
import hashlib
from pathlib import Path

from membership_codes import CONFIG, SIZES, opened, percent, table

from auditkit.mint.attacks import loss_scores
from auditkit.mint.power import false_alarm_table, power_curve
from auditkit.studies.trial import Trial, train_trial
from schemas import CohortName

FALSE_ALARM_RATE = 0.001
SET_SIZES = (1, 10, 50, 100)


def scores(trial: Trial, cohort: CohortName) -> list[float]:
    """Return the loss attack's score of each sample of a cohort."""
    logits = trial.ask(trial.images(cohort)).logits
    return loss_scores(logits, trial.labels(cohort)).tolist()


def main() -> None:
    """Train M alone and print power and false alarms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="train/<class>/, test/<class>/")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pool, test = opened(arguments.data, SIZES)
    mint = CONFIG.mint.model_copy(update={"evidence": "membership", "mint_weight": 0.0})
    config = CONFIG.model_copy(update={"mint": mint, "external_batch_size": 0})
    nonce = hashlib.sha256(f"benchmarks/membership_codes/{arguments.seed}".encode()).digest()
    trial = train_trial(config, pool, test, SIZES, nonce)
    calibration = scores(trial, "calibration")
    power = power_curve(
        scores(trial, "silent"),
        calibration,
        seed=arguments.seed,
        sizes=SET_SIZES,
        false_alarm_rate=FALSE_ALARM_RATE,
    )
    table(
        f"Power at a false-alarm rate of {FALSE_ALARM_RATE:g}, {trial.seconds:.0f} s of training",
        ["n", "resampled sets of the 500", "disjoint sets"],
        ([str(p.size), percent(p.resampled), percent(p.disjoint)] for p in power),
    )
    strangers = {name: scores(trial, name) for name in ("told_only", "test", "external")}
    for size in SET_SIZES:
        alarms = false_alarm_table(
            strangers,
            calibration,
            seed=arguments.seed,
            sizes=(size,),
            false_alarm_rate=FALSE_ALARM_RATE,
        )
        table(
            f"False alarms, disjoint sets of {size}",
            ["strangers", "sets", "alarms %", "compatible"],
            (
                [
                    row.kind,
                    str(row.flagged.trials),
                    percent(row.flagged),
                    "yes" if row.compatible else "**no**",
                ]
                for row in alarms
            ),
        )


if __name__ == "__main__":
    main()
