"""What we write is what other tools read: the engine, skopeo, and `docker build` beside them."""

import json
import shutil
from pathlib import Path

import pytest

from containers import recipe
from containers.build import carry_out
from containers.diff import FieldChange, compare
from containers.errors import MissingSourceError
from containers.identity import identify
from containers.write import Configuration, new_image
from schemas import ImageIdentity
from tests.containers.engine import output_of, require_engine, require_program
from tests.containers.saved_images import File, layer

RECIPE = """\
ARG BASE=auditkit-test-base
FROM ${BASE}
COPY packages/ /opt/test/packages/
COPY start.py /opt/test/start.py
ENV LANG=C.UTF-8
ENV PATH="/opt/test:/usr/bin"
LABEL dev.auditkit.test="two words"
USER 10001:10001
WORKDIR /
ENTRYPOINT ["/opt/test/start.py", "--now"]
"""
BASE = layer(
    File("etc/", mode=0o755), File("etc/passwd", b"root:x:0:0\n"), File("opt/", mode=0o755)
)
SETTINGS_THAT_MATTER = ("architecture", "os", "config.")
ONLY_IN_ENGINES = {"config.Image", "config.Hostname"}
"""Names of the builder's own intermediate images."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.tar"
    settings = {"Env": ["PATH=/usr/bin", "KEPT=1"], "Cmd": ["nothing"], "Labels": {"base": "1"}}
    with new_image(path) as writer:
        writer.add_layer([BASE])
        writer.finish(Configuration("amd64", "linux", settings))
    return path


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    for name, content, mode in (
        ("packages/a/b/deep.py", "deep = 1\n", 0o644),
        ("packages/a-b.py", "", 0o644),
        ("packages/tool", "#!/bin/sh\n", 0o755),
        ("packages/" + "x" * 120 + ".txt", "a long name", 0o644),
        ("start.py", "print('started')\n", 0o755),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(mode)
    (folder / "packages/link").symlink_to("a/b/deep.py")
    (folder / "Dockerfile").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture
def built(base: Path, context: Path, tmp_path: Path) -> tuple[Path, ImageIdentity]:
    path = tmp_path / "built.tar"
    return path, carry_out(recipe.parse(RECIPE), base, context, path)


def test_the_engine_gives_it_the_same_name(built: tuple[Path, ImageIdentity]) -> None:
    path, identity = built
    engine = require_engine()
    with path.open("rb") as file:
        (image,) = engine.images.load(file)
    try:
        assert image.id == f"sha256:{identity.config_digest}"
        assert image.attrs["RootFS"]["Layers"] == [f"sha256:{one}" for one in identity.diff_ids]
        assert image.attrs["Config"]["Entrypoint"] == ["/opt/test/start.py", "--now"]
        assert image.attrs["Config"]["Cmd"] is None
        saved = path.with_name("saved.tar")
        with saved.open("wb") as file:
            file.writelines(image.save())
        assert identify(saved).config_digest == identity.config_digest
        assert compare(path, saved).is_same_image
    finally:
        engine.images.remove(image.id)


def test_skopeo_finds_the_same_image_by_both_layouts(
    built: tuple[Path, ImageIdentity],
) -> None:
    path, identity = built
    skopeo = require_program("skopeo")
    for transport in ("docker-archive", "oci-archive"):
        found = json.loads(output_of(skopeo, "inspect", f"{transport}:{path}"))
        assert found["Layers"] == [f"sha256:{one}" for one in identity.diff_ids]
        assert found["Env"] == ["PATH=/opt/test:/usr/bin", "KEPT=1", "LANG=C.UTF-8"]
        config = output_of(skopeo, "inspect", "--config", "--raw", f"{transport}:{path}")
        assert json.loads(config)["config"]["User"] == "10001:10001"
    assert found["Digest"] == f"sha256:{identity.manifest_digest}"


def test_docker_build_of_the_same_folder_gives_the_same_files_and_settings(
    base: Path, context: Path, built: tuple[Path, ImageIdentity]
) -> None:
    engine = require_engine()
    with base.open("rb") as file:
        (loaded,) = engine.images.load(file)
    loaded.tag("auditkit-test-base", "latest")
    image = None
    try:
        image, _ = engine.images.build(path=str(context), rm=True, network_mode="none")
        saved = context.with_name("docker.tar")
        with saved.open("wb") as file:
            file.writelines(image.save())
    finally:
        if image is not None:
            engine.images.remove(image.id, force=True)
        engine.images.remove("auditkit-test-base:latest", force=True)
    difference = compare(built[0], saved)
    assert difference.files == ()
    changed = {
        change.field: change
        for change in difference.config
        if change.field.startswith(SETTINGS_THAT_MATTER)
        and change.field not in ONLY_IN_ENGINES
        # What an engine writes out, and means nothing.
        and (change.before, change.after) not in {(None, None)}
        and not (change.before is None and change.after in ("", False, None, [], {}))
    }
    assert changed == {}
    # And the comparison does see what differs.
    other = recipe.parse(RECIPE.replace("two words", "three words"))
    carry_out(other, base, context, context.with_name("other.tar"))
    found = compare(built[0], context.with_name("other.tar")).config
    label = "config.Labels.dev.auditkit.test"
    assert FieldChange(label, "two words", "three words") in found


def test_a_recipe_without_its_files_is_refused(base: Path, context: Path) -> None:
    output = context.with_name("never.tar")
    shutil.rmtree(context / "packages")
    with pytest.raises(MissingSourceError, match="packages"):
        carry_out(recipe.parse(RECIPE), base, context, output)
    (context / "packages").touch()
    with pytest.raises(MissingSourceError, match="folder"):
        carry_out(recipe.parse(RECIPE), base, context, output)
    assert not output.exists()
