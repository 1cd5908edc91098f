"""Things break while a training runs; nothing that was acknowledged is ever lost."""

import signal
from collections.abc import Callable

from world import World, failed_checks

MakeWorld = Callable[..., World]


def test_killed_server_comes_back_and_nothing_is_lost(make_world: MakeWorld) -> None:
    world = make_world(epochs=40)
    world.serve()
    training = world.start("train", "--no-container", str(world.config))
    world.wait_for_steps(20, training)
    world.kill_server()
    world.wait_for_steps(world.recorded_steps() + 20, training)  # training goes on meanwhile
    world.serve()
    assert training.wait(240) == 0, world.log("train")
    code, report = world.verify(world.export())
    assert code == 0, report


def test_server_gone_for_good_leaves_a_complete_training_to_sync(make_world: MakeWorld) -> None:
    world = make_world(epochs=6)
    world.serve()
    training = world.start("train", "--no-container", str(world.config))
    world.wait_for_steps(5, training)
    world.kill_server()
    assert training.wait(240) == 3, world.log("train")
    log = world.log("train")
    assert "records unacknowledged" in log
    assert "auditkit sync" in log
    assert "Traceback" not in log
    gone = world.cli("sync", str(world.config))
    assert gone.returncode == 1
    assert "Traceback" not in gone.stderr
    world.serve()
    synced = world.cli("sync", str(world.config))
    assert synced.returncode == 0, synced.stdout + synced.stderr
    code, report = world.verify(world.export())
    assert code == 0, report


def test_killed_agent_resumes_and_the_log_tells(make_world: MakeWorld) -> None:
    world = make_world(epochs=30)
    world.serve()
    training = world.start("train", "--no-container", str(world.config))
    world.wait_for_steps(33, training)
    training.send_signal(signal.SIGKILL)
    training.wait()

    # Without resume the session is shown as what it is, and never verifies as complete.
    code, report = world.verify(world.export("broken-off.bundle"))
    assert code == 1
    assert not report["verified"]
    assert "log-complete" in failed_checks(report)

    again = world.cli("train", "--no-container", str(world.config))
    assert again.returncode == 1
    assert "--resume" in again.stderr

    resumed = world.cli("train", "--no-container", str(world.config), "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "resumed after step" in resumed.stdout
    code, report = world.verify(world.export())
    assert code == 0, report
    complete = next(f for f in report["findings"] if f["check"] == "log-complete")
    assert "resumed" in complete["detail"]


def test_interrupting_is_a_clean_stop(make_world: MakeWorld) -> None:
    world = make_world(epochs=30)
    world.serve()
    training = world.start("train", "--no-container", str(world.config))
    world.wait_for_steps(10, training)
    training.send_signal(signal.SIGINT)
    assert training.wait(60) == 130
    log = world.log("train")
    assert "--resume" in log
    assert "Traceback" not in log
    resumed = world.cli("train", "--no-container", str(world.config), "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr


def test_order_that_says_stop_stops_the_training(make_world: MakeWorld) -> None:
    world = make_world(epochs=2000, outage_policy="stop")
    order = world.folder / "order2.toml"
    order.write_text(
        (world.folder / "order.toml")
        .read_text()
        .replace('order_id = "digits"', 'order_id = "strict"\nlate_after_seconds = 1.0')
    )
    world.cli("order", "create", str(order), "--home", str(world.home)).check_returncode()
    world.config.write_text(
        world.config.read_text()
        .replace('order = "digits"', 'order = "strict"')
        .replace("epochs = 2000", "epochs = 200")
    )
    world.serve()
    training = world.start("train", "--no-container", str(world.config))
    world.wait_for_steps(5, training)
    world.kill_server()
    assert training.wait(120) == 1, world.log("train")
    assert "order says to stop" in world.log("train")
    assert "Traceback" not in world.log("train")
