"""CIFAR-10, real images, the whole supervised story: what T and M say about each cohort.

Claims: MINT balanced accuracy of at least 0.86 (the paper's figure) on held-out samples at a
threshold that was calibrated on C alone, in under 15 minutes on two CPU cores; and what it costs
the audited accuracy, next to the same M trained alone under the same schedule.

    python benchmarks/cifar10_story.py --data FOLDER  # train/<class>/*.jpg, test/<class>/*.jpg

The settings in examples/cifar10.toml were chosen on the pool with seed 100 and on CIFAR-10's own
test part. So that no figure is reported on samples that a setting was chosen on, the fresh test
cohort here are 10,000 training images outside that pool, which the search never touched.

Everything is the product's own: `auditkit init`, `order create`, `serve`, `train`, `export` and
`verify` as separate processes, once with the MINT Model and once with its weight at 0.

Printed on 2026-11-21 on two cores of an AMD EPYC server (AVX512, one thread, other programs
running), torch 2.15.0, timm 1.0.31; one nonce, so one draw of D, E and C; percent with exact 95 %
intervals:

    train, evaluate, seal and submit: 283 s; verify offline: 7 s

    cohort           n  AUC     flagged at FPR 5 %   at 1 %               at 0.1 %             accuracy of M
    told          4500  0.9969  100.0 [99.9, 100.0]  92.5 [91.7, 93.2]    18.5 [17.3, 19.6]    100.0 [99.9, 100.0]
    silent         400  0.5061  7.2 [4.9, 10.2]      2.2 [1.0, 4.2]       0.0 [0.0, 0.9]       100.0 [99.1, 100.0]
    told_only      400  0.9970  100.0 [99.1, 100.0]  92.2 [89.2, 94.7]    19.8 [16.0, 24.0]    61.8 [56.8, 66.5]
    external     20000  0.2878  0.0 [0.0, 0.0]       0.0 [0.0, 0.0]       0.0 [0.0, 0.0]       56.5 [55.8, 57.2]
    calibration   5000  0.5001                                                                 57.1 [55.7, 58.5]
    test         10000          4.8 [4.4, 5.3]       0.9 [0.7, 1.1]       0.0 [0.0, 0.1]       57.1 [56.1, 58.1]

    MINT balanced accuracy, threshold from C at 5 % FPR: 0.9758
    PPV at nominal FPR 0.05, priors 1, 10, 50 %: 0.173, 0.697, 0.954
    PPV at nominal FPR 0.01, priors 1, 10, 50 %: 0.515, 0.921, 0.991
    PPV at nominal FPR 0.001, priors 1, 10, 50 %: 0.903, 0.990, 0.999
    audited accuracy (fresh test): joint 57.1 [56.1, 58.1], M alone 60.1 [59.1, 61.0]
    baselines on joint M: gap attack 0.715, loss threshold AUC 0.896, TPR at 1 % 1.1 [0.8, 1.4]
    baselines on M alone: gap attack 0.700, loss threshold AUC 0.871, TPR at 1 % 0.8 [0.6, 1.2]
    model-free classifier of D against C on pixels: 48.1 [45.9, 50.4]
"""  # noqa: E501 - a table

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from auditkit.cli.demo import example
from auditkit.data.pools import open_pool
from auditkit.evidence.derivation import derive_split
from auditkit.mint.baselines import gap_attack, loss_threshold, pixel_classifier
from auditkit.mint.metrics import balanced_accuracy, cohort_metrics, positive_predictive_value
from auditkit.mint.scores import CohortScores, read_scores
from developer_agent.environment import describe_environment
from developer_agent.run_config import parse_run_config, read_toml
from developer_agent.run_folder import RunFolder
from developer_agent.session import read_grant
from schemas import CohortName, RateEstimate

AUDITKIT = Path(sys.executable).parent / "auditkit"
PRIORS = (0.01, 0.10, 0.50)
START_SECONDS = 60
POOL, FRESH, POOL_SEED = 30_300, 10_000, 100
CALIBRATION = 4999  # the least that the example's order wants


def run(folder: Path, *arguments: str) -> float:
    """Run one command, show what it prints, and return its seconds."""
    started = time.monotonic()
    subprocess.run([AUDITKIT, *arguments], cwd=folder, check=True)
    return time.monotonic() - started


def percent(rate: RateEstimate) -> str:
    """Return a rate and its exact interval in percent."""
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def set_up(
    folder: Path,
    data: Path,
    images: Sequence[str] = (),
    *,
    pool: int = POOL,
    fresh: int = FRESH,
    calibration: int = CALIBRATION,
) -> tuple[subprocess.Popen[bytes], list[str]]:
    """Make the auditor, both orders and the server; return it and the settings of every run."""
    run(folder, "init", "--home", "auditor", "--auditor", "Benchmark Authority")
    # Orders allow these images; as top-level keys they stand in front of the first table.
    joint = f"images = {json.dumps(list(images))}\n" + example("orders/cifar10.toml").read_text()
    joint = joint.replace(str(CALIBRATION), str(calibration))
    alone = (
        joint.replace('"cifar10"', '"cifar10-alone"') + "\n[mint_weight]\nleast = 0.0\nmost = 0.0\n"
    )
    for name, text in (("joint", joint), ("alone", alone)):
        (folder / f"{name}.toml").write_text(text)
        run(folder, "order", "create", f"{name}.toml", "--home", "auditor")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [AUDITKIT, "serve", "--home", "auditor", "--port", str(port)], cwd=folder
    )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    settings = {
        "server.url": f"http://127.0.0.1:{port}",
        "server.trust_root": str(folder / "auditor/trust-root.json"),
        "server.token_file": str(folder / "auditor/tokens/developer.token"),
        "pool.path": str(data),
        "test.path": str(data),
        "pool.selection.seed": POOL_SEED,
        "test.part": "train",
    }
    options = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    options.append(f"pool.selection.limit={pool}")
    options.append(f"test.selection={{ skip = {pool}, limit = {fresh}, seed = {POOL_SEED} }}")
    return server, [part for option in options for part in ("--set", option)]


def scores_of(run_folder: Path) -> dict[CohortName, CohortScores]:
    """Read the scores that a run has sealed."""
    return read_scores(RunFolder(run_folder).scores.read())


def print_table(joint: Path, alone: Path, data: Path) -> None:
    """Print every figure of the claim."""
    scores, alone_scores = scores_of(joint), scores_of(alone)
    print(
        f"\n{'cohort':<12}{'n':>6}  {'AUC':<8}{'flagged at FPR 5 %':<21}{'at 1 %':<21}"
        f"{'at 0.1 %':<21}accuracy of M"
    )
    for metrics in cohort_metrics(scores):
        flagged = [percent(rate.flagged) for rate in metrics.flagged]
        auc = "" if metrics.auc is None else f"{metrics.auc:.4f}"
        cells = "".join(f"{text:<21}" for text in flagged) or " " * 63
        print(
            f"{metrics.cohort:<12}{metrics.size:>6}  {auc:<8}{cells}"
            f"{percent(metrics.task_accuracy)}"
        )
    told, test, calibration = scores["told"], scores["test"], scores["calibration"]
    balanced = balanced_accuracy(told.scores, test.scores, calibration.scores)
    print(f"\nMINT balanced accuracy, threshold from C at 5 % FPR: {balanced:.4f}")
    by_cohort = {metrics.cohort: metrics for metrics in cohort_metrics(scores)}
    rates = zip(by_cohort["told"].flagged, by_cohort["test"].flagged, strict=True)
    for true, false in rates:
        values = [
            positive_predictive_value(true.flagged.value, false.flagged.value, prior)
            for prior in PRIORS
        ]
        shown = ", ".join("-" if value is None else f"{value:.3f}" for value in values)
        print(f"PPV at nominal FPR {true.false_positive_rate:g}, priors 1, 10, 50 %: {shown}")
    by_alone = {metrics.cohort: metrics for metrics in cohort_metrics(alone_scores)}
    print(
        f"audited accuracy (fresh test): joint {percent(by_cohort['test'].task_accuracy)}, "
        f"M alone {percent(by_alone['test'].task_accuracy)}"
    )
    for name, found in (("joint M", scores), ("M alone", alone_scores)):
        loss = loss_threshold(found["told"], found["test"], found["calibration"])
        at_one = next(f for f in loss.flagged if f.false_positive_rate == 0.01)
        print(
            f"baselines on {name}: gap attack {gap_attack(found['told'], found['test']):.3f}, "
            f"loss threshold AUC {loss.auc:.3f}, TPR at 1 % {percent(at_one.flagged)}"
        )
    print_model_free(joint, data)


def print_model_free(joint: Path, data: Path) -> None:
    """Print how well D and C can be told apart without any model; must be chance."""
    document = read_toml(example("cifar10.toml"))
    config = parse_run_config(document, "cifar10.toml")
    selection = config.pool.selection.model_copy(update={"seed": POOL_SEED})
    pool = open_pool(
        config.pool.model_copy(update={"path": str(data), "selection": selection}), Path()
    )
    grant = read_grant(RunFolder(joint))
    split = derive_split(bytes.fromhex(grant.nonce), grant.split)
    accuracy = pixel_classifier(pool.images[split.told], pool.images[split.calibration], seed=0)
    print(f"model-free classifier of D against C on pixels: {percent(accuracy)}")


def main() -> None:
    """Run both trainings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="cifar10-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    server, settings = set_up(folder, arguments.data.resolve())
    config = str(example("cifar10.toml"))
    joint, alone = folder / "joint", folder / "alone"
    try:
        seconds = run(
            folder, "train", "--no-container", config, *settings, "--set", f'output="{joint}"'
        )
        run(
            folder,
            "train",
            "--no-container",
            config,
            *settings,
            "--set",
            f'output="{alone}"',
            "--set",
            "training.mint.mint_weight=0.0",
            "--set",
            'server.order="cifar10-alone"',
        )
        run(
            folder,
            "export",
            read_grant(RunFolder(joint)).session_id,
            "--output",
            "evidence.bundle",
            "--server",
            json.loads(settings[1].partition("=")[2]),
            "--token-file",
            "auditor/tokens/auditor.token",
        )
        run(
            folder,
            "report",
            read_grant(RunFolder(joint)).session_id,
            "--output",
            "report.html",
            "--server",
            json.loads(settings[1].partition("=")[2]),
            "--token-file",
            "auditor/tokens/auditor.token",
        )
    finally:
        server.terminate()
        server.wait()
    verified = run(folder, "verify", "evidence.bundle", "--trust-root", "auditor/trust-root.json")
    environment = describe_environment(2)
    print(
        f"\n{os.cpu_count()} CPU cores, {environment.platform}, torch {environment.torch}, "
        f"timm {environment.timm}, {environment.cpu_capability}"
    )
    print(f"train, evaluate, seal and submit: {seconds:.0f} s; verify offline: {verified:.0f} s")
    print_table(joint, alone, arguments.data.resolve())


if __name__ == "__main__":
    main()
