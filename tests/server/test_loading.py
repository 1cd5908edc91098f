"""What a process that only keeps and checks evidence must do without."""

import subprocess
import sys

import pytest
from live import LiveServer
from processes import has_loaded_torch, model_workers
from submitted import as_png, flat_calibration, make_submission, noise_image

SECONDS_TO_LOAD = {"torch", "timm", "torchvision", "sklearn", "scipy.stats"}


@pytest.mark.parametrize("module", ["auditor_server.serve", "auditor_server.app", "auditkit.cli"])
def test_what_takes_seconds_is_loaded_with_the_first_model(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not SECONDS_TO_LOAD & set(loaded.stdout.decode().split())


def test_a_server_that_verified_and_answered_has_not_loaded_torch(own_server: LiveServer) -> None:
    own_server.start()
    agent = own_server.open_session("digits-2026", own_server.add_order("digits-2026"))
    submission = make_submission(agent.grant.session_id, flat_calibration(0.0))
    submission.seal(agent)
    assert submission.send(agent).status_code == 200
    files = [("images", ("a.png", as_png(noise_image(1))))]
    answer = own_server.client("auditor").post(f"{agent.path}/queries", files=files)
    assert answer.status_code == 200, answer.text
    server = own_server.process.pid
    assert not has_loaded_torch(server)
    assert len(model_workers(server)) == 1  # somebody has loaded it
