"""Mistakes that people make: one clear error each, exit code not 0, and never a traceback."""

import pickle
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from world import World


@dataclass(frozen=True)
class Mistake:
    """What was done wrong, and words that the message must have."""

    name: str
    arguments: Callable[[World, Path], list[str]]
    words: tuple[str, ...]


def with_config(world: World, folder: Path, *changes: tuple[str, str]) -> str:
    """Write a changed copy of the configuration; paths still lead to the same auditor."""
    text = world.config.read_text().replace('"auditor/', f'"{world.home}/')
    for old, new in (('output = "run"', f'output = "{folder}/run"'), *changes):
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "config.toml"
    path.write_text(text)
    return str(path)


def order(world: World, folder: Path, name: str, *changes: tuple[str, str]) -> None:
    text = (world.folder / "order.toml").read_text().replace('"digits"', f'"{name}"', 1)
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "order.toml").write_text(text)
    world.cli(
        "order", "create", str(folder / "order.toml"), "--home", str(world.home)
    ).check_returncode()


def expired_order(world: World, folder: Path) -> list[str]:
    order(world, folder, "expired", ('purpose = "Tests."', 'purpose = "T"\nvalid_days = 1e-6'))
    return [
        "train",
        "--no-container",
        with_config(world, folder, ('order = "digits"', 'order = "expired"')),
    ]


def foreign_order(world: World, folder: Path) -> list[str]:
    changed = ('developer = "Example Lab"', 'developer = "Another Lab"')
    return ["train", "--no-container", with_config(world, folder, changed)]


def unknown_order(world: World, folder: Path) -> list[str]:
    return [
        "train",
        "--no-container",
        with_config(world, folder, ('order = "digits"', 'order = "nothing"')),
    ]


def typo(world: World, folder: Path) -> list[str]:
    return ["train", "--no-container", with_config(world, folder, ("epochs =", "epochz ="))]


def wrong_type(world: World, folder: Path) -> list[str]:
    return [
        "train",
        "--no-container",
        with_config(world, folder, ("batch_size = 40", 'batch_size = "many"')),
    ]


def no_config(world: World, folder: Path) -> list[str]:
    return ["train", "--no-container", str(folder / "nowhere.toml")]


def broken_toml(world: World, folder: Path) -> list[str]:
    return ["train", "--no-container", with_config(world, folder, ("[server]", "[server"))]


def folder_pool(world: World, folder: Path, path: str) -> list[str]:
    pool = f'kind = "image_folder"\npath = "{path}"\nchannels = 1'
    digits = 'kind = "digits"\nselection = { limit = 600 }'
    return ["train", "--no-container", with_config(world, folder, (digits, pool))]


def missing_data(world: World, folder: Path) -> list[str]:
    return folder_pool(world, folder, "/does/not/exist")


def undecodable_image(world: World, folder: Path) -> list[str]:
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8), number, np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    (folder / "images" / "dog" / "2.png").write_bytes(b"this is no picture")
    return folder_pool(world, folder, str(folder / "images"))


def empty_folder(world: World, folder: Path) -> list[str]:
    (folder / "images").mkdir()
    return folder_pool(world, folder, str(folder / "images"))


def wrong_query_size(world: World, folder: Path) -> list[str]:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "large.png")
    return ["query", world.session_id(), str(folder / "large.png"), *world.asking]


def query_of_no_image(world: World, folder: Path) -> list[str]:
    (folder / "text.png").write_text("hello")
    return ["query", world.session_id(), str(folder / "text.png"), *world.asking]


def query_of_empty_folder(world: World, folder: Path) -> list[str]:
    return ["query", world.session_id(), str(folder), *world.asking]


def query_rate_too_small(world: World, folder: Path) -> list[str]:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "small.png")
    return [
        "query",
        world.session_id(),
        str(folder / "small.png"),
        *world.asking,
        "--fpr",
        "0.0001",
    ]


def unknown_session(world: World, folder: Path) -> list[str]:
    return ["export", "no-such-session", *world.access]


def server_unreachable(world: World, folder: Path) -> list[str]:
    return [
        "train",
        "--no-container",
        with_config(world, folder, (world.url, "http://127.0.0.1:9")),
    ]


def wrong_token(world: World, folder: Path) -> list[str]:
    (folder / "token").write_text("developer-00000000.wrong")
    old = f'"{world.home}/tokens/developer.token"'
    return ["train", "--no-container", with_config(world, folder, (old, f'"{folder}/token"'))]


def role_not_allowed(world: World, folder: Path) -> list[str]:
    old = f'"{world.home}/tokens/developer.token"'
    new = f'"{world.home}/tokens/compliance-officer.token"'
    return ["train", "--no-container", with_config(world, folder, (old, new))]


def no_token(world: World, folder: Path) -> list[str]:
    return ["export", world.session_id(), "--server", world.url]


def port_in_use(world: World, folder: Path) -> list[str]:
    return ["serve", "--home", str(world.home), "--port", str(world.port)]


def home_exists(world: World, folder: Path) -> list[str]:
    return ["init", "--home", str(world.home)]


def no_home(world: World, folder: Path) -> list[str]:
    return ["serve", "--home", str(folder / "nothing")]


def copied_run(world: World, folder: Path) -> Path:
    shutil.copytree(world.folder / "run", folder / "run")
    return folder / "run" / "model" / "weights.safetensors"


def truncated_weights(world: World, folder: Path) -> list[str]:
    weights = copied_run(world, folder)
    weights.write_bytes(weights.read_bytes()[:-100])
    return ["submit", with_config(world, folder)]


def pickled_weights(world: World, folder: Path) -> list[str]:
    copied_run(world, folder).write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))
    return ["submit", with_config(world, folder)]


def changed_weights(world: World, folder: Path) -> list[str]:
    weights = copied_run(world, folder)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    return ["submit", with_config(world, folder)]


def nothing_to_submit(world: World, folder: Path) -> list[str]:
    return ["submit", with_config(world, folder)]


def bundle_is_no_bundle(world: World, folder: Path) -> list[str]:
    (folder / "evidence.bundle").write_text("hello")
    return ["verify", str(folder / "evidence.bundle"), "--trust-root", world.trust_root]


def no_bundle(world: World, folder: Path) -> list[str]:
    return ["verify", str(folder / "nothing"), "--trust-root", world.trust_root]


def trust_root_is_none(world: World, folder: Path) -> list[str]:
    (folder / "root.json").write_text("{}")
    bundle = world.export()
    return ["verify", str(bundle), "--trust-root", str(folder / "root.json")]


def unknown_architecture(world: World, folder: Path) -> list[str]:
    changed = ('architecture = "resnet18"', 'architecture = "resnet19"')
    return ["train", "--no-container", with_config(world, folder, changed)]


def unknown_tap(world: World, folder: Path) -> list[str]:
    taps = '[training.taps]\nsetup = "named"\nmodules = ["layer9"]\n[training.mint]'
    return ["train", "--no-container", with_config(world, folder, ("[training.mint]", taps))]


def wrong_image_size(world: World, folder: Path) -> list[str]:
    return ["train", "--no-container", with_config(world, folder, ("height = 8", "height = 16"))]


def wrong_classes(world: World, folder: Path) -> list[str]:
    return ["train", "--no-container", with_config(world, folder, ("classes = 10", "classes = 5"))]


def weight_outside_order(world: World, folder: Path) -> list[str]:
    changed = ("hidden = [64]", "hidden = [64]\nmint_weight = 99.0")
    return ["train", "--no-container", with_config(world, folder, changed)]


MISTAKES = [
    Mistake("expired order", expired_order, ("in force", "new order")),
    Mistake("foreign order", foreign_order, ("Another Lab", "Example Lab")),
    Mistake("unknown order", unknown_order, ("nothing",)),
    Mistake("typo in the configuration", typo, ("epochz", "epochs")),
    Mistake("wrong type in the configuration", wrong_type, ("batch_size", "many")),
    Mistake("no configuration", no_config, ("nowhere.toml",)),
    Mistake("broken TOML", broken_toml, ("TOML",)),
    Mistake("missing data", missing_data, ("/does/not/exist",)),
    Mistake("undecodable image in the pool", undecodable_image, ("2.png",)),
    Mistake("empty folder", empty_folder, ("images",)),
    Mistake("query of another size", wrong_query_size, ("8 x 8", "32 x 32")),
    Mistake("query of no image", query_of_no_image, ("text.png",)),
    Mistake("query of an empty folder", query_of_empty_folder, ("no image",)),
    Mistake("rate below what C allows", query_rate_too_small, ("0.0001", "calibration")),
    Mistake("unknown session", unknown_session, ("no-such-session",)),
    Mistake("server unreachable", server_unreachable, ("127.0.0.1:9",)),
    Mistake("wrong token", wrong_token, ("token",)),
    Mistake("role that may not train", role_not_allowed, ("compliance-officer",)),
    Mistake("no token", no_token, ("AUDITKIT_TOKEN",)),
    Mistake("port in use", port_in_use, ("port", "another port")),
    Mistake("home exists", home_exists, ("not empty",)),
    Mistake("no home", no_home, ("auditkit init",)),
    Mistake("truncated weights", truncated_weights, ("weights",)),
    Mistake("pickle renamed to safetensors", pickled_weights, ("pickle",)),
    Mistake("changed weights", changed_weights, ("weights",)),
    Mistake("nothing to submit", nothing_to_submit, ("missing",)),
    Mistake("bundle is no bundle", bundle_is_no_bundle, ("bundle",)),
    Mistake("no bundle", no_bundle, ("nothing",)),
    Mistake("trust root is none", trust_root_is_none, ("trust root",)),
    Mistake("unknown architecture", unknown_architecture, ("resnet19", "resnet18")),
    Mistake("unknown tap", unknown_tap, ("layer9", "layer1")),
    Mistake("images of another size", wrong_image_size, ("8 x 8", "16 x 8")),
    Mistake("too few classes", wrong_classes, ("10", "5")),
    Mistake("weight outside the order", weight_outside_order, ("mint_weight", "99")),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_gets_one_clear_error(mistake: Mistake, finished: World, tmp_path: Path) -> None:
    done = finished.cli(*mistake.arguments(finished, tmp_path))
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count("error:") == 1, done.stderr
    for word in mistake.words:
        assert word in done.stderr, done.stderr


def test_nothing_accepted_is_lost_by_bad_input(finished: World) -> None:
    """After all of the above, the session still verifies."""
    code, report = finished.verify(finished.export("after.bundle"))
    assert code == 0, report


def test_a_broken_connection_is_no_traceback(finished: World, tmp_path: Path) -> None:
    """Something listens that is no auditkit server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        done = finished.cli("doctor", "--server", url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
