"""Regenerate `vectors/*.json`: what public libraries say about the same fixed logits.

Not collected by pytest. `vectors/README.md` says in which environment to run it.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from privacy_guard.analysis.mia.aggregate_analysis_input import AggregationType
from privacy_guard.attacks.calib_attack import CalibAttack, CalibScoreType
from privacy_guard.attacks.lira_attack import LiraAttack
from privacy_guard.attacks.rmia_attack import RmiaAttack

sys.skip_tf_privacy_import = True  # the library's own switch: its attacks need no TensorFlow
from tensorflow_privacy.privacy.privacy_tests.membership_inference_attack import (  # noqa: E402
    advanced_mia as tensorflow_mia,
)

FOLDER = Path(__file__).parent / "vectors"
SEED = 20240731
SAMPLES, CLASSES, REFERENCES, QUERIES, POPULATION = 24, 5, 8, 2, 20
LIBRARIES = ("tensorflow-empirical-privacy", "privacyguard-platform")

RMIA_CASES = [
    {"a": a, "gamma": gamma, "online": online}
    for online, a, gamma in [
        (True, 0.0, 1.0),
        (True, 0.0, 2.0),
        (False, 0.0, 1.0),
        (False, 0.3, 1.0),
        (False, 0.3, 2.0),
        (False, 1.0, 0.5),
    ]
]


def draw(generator, members, count, queries):
    """Logits of M or of a reference that was trained on `members`; easy and hard samples."""
    labels = np.arange(count) % CLASSES
    easiness = np.linspace(-1.5, 4.0, count)
    logits = generator.normal(size=(queries, count, CLASSES))
    boost = easiness + 2.5 * members + generator.normal(scale=0.5, size=count)
    logits[:, np.arange(count), labels] += boost
    return logits.round(3)


def world(generator, references, queries):
    """Everything both attacks look at, as plain lists of short decimals."""
    count = SAMPLES
    members = np.arange(count) % 2 == 0
    return {
        "labels": (np.arange(count) % CLASSES).tolist(),
        "members": members.tolist(),
        "logits": draw(generator, members, count, queries).tolist(),
        "reference_members": references.tolist(),
        "reference_logits": [draw(generator, row, count, queries).tolist() for row in references],
    }


def statistic(logits, labels, option):
    """One number per query and sample, by TensorFlow Privacy."""
    return np.array(
        [tensorflow_mia.calculate_statistic(np.array(one), labels, option=option) for one in logits]
    )


def scores_in_order(result, members):
    """Put the library's two tables, of members and of others, back into the samples' order."""
    scores = np.empty(len(members))
    scores[members] = result.df_train_merge["score"]
    scores[~members] = result.df_test_merge["score"]
    return scores.tolist()


def split(table, members):
    table = table.assign(user_id=np.arange(len(table)))
    return {
        "df_train_merge": table[members].copy(),
        "df_test_merge": table[~members].copy(),
        "row_aggregation": AggregationType.NONE,
    }


def lira_vectors(generator):
    """References of which two to six were trained on each sample."""
    order = generator.permuted(np.tile(np.arange(REFERENCES), (SAMPLES, 1)), axis=1).T
    given = world(generator, order < 2 + np.arange(SAMPLES) % 5, QUERIES)
    labels, truth = np.array(given["labels"]), np.array(given["members"])
    table = np.array(given["reference_members"])
    target = statistic(given["logits"], labels, "logit")
    references = np.array([statistic(one, labels, "logit") for one in given["reference_logits"]])

    expected = {"signals": target.tolist()}
    for queries in (1, QUERIES):
        observed = [target[:queries, i] for i in range(SAMPLES)]
        kinds = [
            [references[mask[:, i], :queries, i] for i in range(SAMPLES)]
            for mask in (table, ~table)
        ]
        for name, fixed in (("global", True), ("per_sample", False)):
            for option in ("both", "out"):
                scores = tensorflow_mia.compute_score_lira(
                    observed, *kinds, option=option, fix_variance=fixed, median_or_mean="mean"
                )
                expected[f"tensorflow_{option}_{name}_{queries}"] = scores.tolist()

    single = references[:, 0]
    columns = {"score_orig": target[0]}
    for name, mask in (("in", table), ("out", ~table)):
        selected = np.where(mask, single, np.nan)
        columns[f"score_mean_{name}"] = np.nanmean(selected, axis=0)
        columns[f"score_std_{name}"] = np.nanstd(selected, axis=0)
    attack = LiraAttack(**split(pd.DataFrame(columns), truth), online_attack=True)
    expected["privacyguard_online_per_sample_1"] = scores_in_order(attack.run_attack(), truth)
    return {"given": given, "expected": expected}


def rmia_table(target, references, members):
    columns = {"score_orig": target}
    for index, (signal, mask) in enumerate(zip(references, members, strict=True)):
        columns[f"score_ref_{index}"] = signal
        columns[f"member_ref_{index}"] = mask
    return pd.DataFrame(columns)


def rmia_vectors(generator):
    """Online: half of the references are IN for every sample. Offline: all of them are OUT.

    Elsewhere the library averages over other references than the paper does.
    """
    half = generator.permuted(np.tile(np.arange(REFERENCES), (SAMPLES, 1)), axis=1).T
    worlds = {
        True: world(generator, half < REFERENCES // 2, 1),
        False: world(generator, np.zeros((REFERENCES, SAMPLES), dtype=bool), 1),
    }
    nobody = np.zeros(POPULATION, dtype=bool)
    population = {
        "labels": (np.arange(POPULATION) % CLASSES).tolist(),
        "logits": draw(generator, nobody, POPULATION, 1).tolist(),
        "reference_logits": [
            draw(generator, nobody, POPULATION, 1).tolist() for _ in range(REFERENCES)
        ],
    }
    z_labels = np.array(population["labels"])
    z_target = statistic(population["logits"], z_labels, "conf with prob")[0]
    z_references = [
        statistic(one, z_labels, "conf with prob")[0] for one in population["reference_logits"]
    ]
    cases = []
    for case in RMIA_CASES:
        given = worlds[case["online"]]
        labels, truth = np.array(given["labels"]), np.array(given["members"])
        table = rmia_table(
            statistic(given["logits"], labels, "conf with prob")[0],
            [statistic(one, labels, "conf with prob")[0] for one in given["reference_logits"]],
            given["reference_members"],
        )
        # The library compares ratios with 1; a factor on every population ratio makes that gamma.
        everyone = rmia_table(case["gamma"] * z_target, z_references, [nobody] * REFERENCES)
        attack = RmiaAttack(
            **split(table, truth),
            df_population=everyone,
            num_reference_models=REFERENCES,
            alpha_coefficient=case["a"],
            online=case["online"],
        )
        cases.append({**case, "scores": scores_in_order(attack.run_attack(), truth)})

    given = worlds[False]
    labels, truth = np.array(given["labels"]), np.array(given["members"])
    loss = [
        pd.DataFrame(
            {
                "user_id": np.arange(SAMPLES),
                "label": 1,
                "predictions": statistic(logits, labels, "conf with prob")[0],
            }
        )
        for logits in (given["logits"], given["reference_logits"][0])
    ]
    calibrated = CalibAttack(
        *(table[mask].copy() for table in loss for mask in (truth, ~truth)),
        row_aggregation=AggregationType.NONE,
        should_calibrate_scores=True,
        score_type=CalibScoreType.LOSS,
    )
    return {
        "online": worlds[True],
        "offline": worlds[False],
        "population": population,
        "cases": cases,
        "calibrated_by_first_reference": scores_in_order(calibrated.run_attack(), truth),
    }


def main():
    generator = np.random.default_rng(SEED)
    made_with = {name: version(name) for name in LIBRARIES}
    for name, vectors in (("lira", lira_vectors(generator)), ("rmia", rmia_vectors(generator))):
        text = json.dumps({"made_with": made_with, **vectors}, separators=(",", ":"))
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
