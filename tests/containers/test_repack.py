"""An OCI layout becomes what older engines load, and stays the same image."""

from pathlib import Path

import pytest

from containers.engine import Engine
from containers.errors import ContainerError
from containers.identity import identify
from containers.repack import loadable
from tests.containers.engine import require_engine
from tests.containers.saved_images import BASE, IMAGE, File, image, layer, save


def test_an_oci_layout_is_packed_for_older_engines(tmp_path: Path) -> None:
    path = save(tmp_path, IMAGE.oci())
    with loadable(path) as packed:
        assert packed != path
        found = identify(packed)
    assert found.config_digest == identify(path).config_digest
    assert found.diff_ids == identify(path).diff_ids
    assert not packed.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_an_engine_takes_it(tmp_path: Path) -> None:
    require_engine().close()
    contents = image(BASE, layer(File("app/repacked.py", b"repacked()")))
    path = save(tmp_path, contents.oci())
    identity = identify(path)
    with Engine.connect() as engine, loadable(path) as packed:
        image_id = engine.load(packed, identity)
        engine.remove_image(image_id)
    assert image_id == f"sha256:{identity.config_digest}"


def test_what_engines_load_is_loaded_as_it_is(tmp_path: Path) -> None:
    for number, members in enumerate((IMAGE.docker(), IMAGE.both())):
        path = save(tmp_path, members, f"{number}.tar")
        with loadable(path) as packed:
            assert packed == path


def test_a_changed_layout_is_not_packed(tmp_path: Path) -> None:
    path = save(tmp_path, IMAGE.oci())
    path.write_bytes(path.read_bytes().replace(b"train()", b"steal()"))
    with pytest.raises(ContainerError), loadable(path):
        pass
    assert list(tmp_path.iterdir()) == [path]
