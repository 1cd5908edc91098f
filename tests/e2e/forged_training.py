"""A forger's training: the real agent, and in one step another sample than the schedule's.

    python forged_training.py CONFIG TOKEN_FILE STEP

The log says nothing of it: every record is as it would be without.
"""

import sys
from pathlib import Path

from developer_agent.supervised_run import Run, supervised


def main() -> None:
    config, token, forged = sys.argv[1:]
    run = Run.from_file(Path(config), Path(token).read_text().strip())
    with supervised(run) as current:
        supervision = current.supervision
        supervision.enhance()
        optimiser = supervision.optimiser()
        for batch in supervision.batches():
            if batch.plan.step == int(forged):
                batch.inputs[0] = batch.inputs[1]
            losses = supervision.losses(batch)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            optimiser.step()
            supervision.step(batch, losses)
        supervision.seal()
        report = current.finish().report
    # Until something is executed again, nothing gives the forger away.
    sys.exit(0 if report is not None and report.passed else 1)


main()
