"""CIFAR-10, real images, in the closed container: trained, drawn, disclosed and replayed.

Claims: segments of a training are executed again bit by bit in the same image, started anew, and
so are its initial weights and the scores of C; with that the evidence reaches L3.

    python benchmarks/contained_replay.py --data FOLDER --image TRAINER_ARCHIVE

examples/cifar10.toml as it is, but for a state every 20 steps, so that there are segments to draw
from. Everything is the product's own commands, as in cifar10_story.py. Times of steps are read from
the log and from the signed result; what is printed besides them is what a replay costs once.

What it printed is in benchmarks/results/contained_replay.md: on 2026-11-21, 10 of 10 segments, the
initial weights and the scores of C equal bit by bit, level L3.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from auditkit.cli.demo import example
from containers.identity import identify
from developer_agent.run_folder import RunFolder
from developer_agent.session import read_grant
from schemas import ReplayResult

sys.path.insert(0, str(Path(__file__).parent))
from cifar10_story import run, set_up
from replay_cost import machine, print_costs, sealed_session, training_seconds

INTERVAL = 20
DRAWN = 10


def main() -> None:
    """Train, draw, disclose, replay, verify, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--image", type=Path, required=True, help="from `auditkit image build`")
    parser.add_argument("--segments", type=int, default=DRAWN)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="contained-replay-")).resolve()
    image, output = arguments.image.resolve(), folder / "run"
    allowed = [identify(image).config_digest]
    server, settings = set_up(folder, arguments.data.resolve(), images=allowed)
    url = json.loads(settings[1].partition("=")[2])
    for setting in (
        f"container.image={json.dumps(str(image))}",
        f"training.state_interval_steps={INTERVAL}",
        f'output="{output}"',
    ):
        settings += ["--set", setting]
    config = str(example("cifar10.toml"))
    access = ["--server", url, "--token-file", "auditor/tokens/auditor.token"]
    root = ["--trust-root", "auditor/trust-root.json"]
    files = ["--draw", "draw.json", "--packages", "packages", "--output", "result.json"]
    try:
        training = run(folder, "train", config, *settings)
        session = read_grant(RunFolder(output)).session_id
        uniform = str(arguments.segments)
        run(folder, "draw", session, "--uniform", uniform, *access, "-o", "draw.json")
        run(folder, "export", session, "--output", "evidence.bundle", *access)
        opened = ["--draw", "draw.json", "--output", "packages", "--calibration"]
        opening = run(folder, "disclose", config, *opened, *settings)
        inside = ["--image", str(image), "--submit", *access]
        whole = run(folder, "replay", "evidence.bundle", *files, *root, *inside)
        run(folder, "export", session, "--output", "replayed.bundle", *access)
        run(folder, "verify", "replayed.bundle", *root)
    finally:
        server.terminate()
        server.wait()
    result = ReplayResult.from_bytes((folder / "result.json").read_bytes())
    segments = len(sealed_session(folder).log.segments)
    seconds, steps = training_seconds(output)
    executed = sum(one.seconds for one in result.segments)
    print(
        f"\n{machine(result.environment)}\n\n"
        f"{steps} steps in {seconds:.0f} s, {segments} segments; the whole of `train` "
        f"{training:.0f} s, `disclose` {opening:.0f} s, `replay` {whole:.0f} s\n\n"
        f"segments: {', '.join(one.outcome for one in result.segments)}; "
        f"initial weights: {result.initialisation.outcome}; scores of C: {result.scores.outcome}; "
        f"grade: {result.grade}\n"
    )
    print_costs(result, segments, seconds, whole - executed, INTERVAL)


if __name__ == "__main__":
    main()
