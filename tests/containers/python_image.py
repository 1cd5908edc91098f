"""A small image for the container engine, made on the spot, and what is made of it.

The image contains the interpreter that runs the tests, without any packages. What it runs is
`/output/program.py`, so that each test says itself what happens inside.
"""

import re
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from containers.container import Container
from containers.engine import Engine
from containers.identity import identify
from containers.lockdown import Lockdown
from schemas import ImageIdentity
from tests.containers.saved_images import File, Image, image, layer, save

LABEL = "auditkit.test"
SPARED = {"test", "site-packages", "idlelib", "ensurepip", "tkinter", "lib2to3", "__pycache__"}
ENTRYPOINT = [
    "/python/bin/python3",
    "-I",
    "-c",
    "import runpy; runpy.run_path('/output/program.py')",
]
ENVIRONMENT = ["PATH=/python/bin", "LANG=C.UTF-8"]


@cache
def python_layer() -> bytes:
    """The interpreter that runs this, its standard library and the libraries that they need."""
    library = Path(sysconfig.get_path("stdlib"))
    modules = sorted(
        path
        for path in library.rglob("*")
        if path.suffix in {".py", ".so"}
        and not path.name.startswith(("_tkinter.", "_test"))
        and not SPARED & set(path.relative_to(library).parts)
        and not path.relative_to(library).parts[0].startswith("config-")
    )
    interpreter = Path(sys.executable).resolve()
    binaries = [interpreter, *(path for path in modules if path.suffix == ".so")]
    listed = subprocess.run(
        ["ldd", *map(str, binaries)], capture_output=True, text=True, check=False
    )
    libraries = sorted(set(re.findall(r"(/\S+) \(0x", listed.stdout)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return layer(
        File("tmp/", mode=0o1777),
        File("python/bin/python3", interpreter.read_bytes(), mode=0o755),
        *(
            File(f"python/lib/{version}/{path.relative_to(library)}", path.read_bytes(), mode=0o755)
            for path in modules
        ),
        *(File(path[1:], Path(path).read_bytes(), mode=0o755) for path in libraries),
    )


def python_image(*more: bytes, **settings: Any) -> Image:
    """The image, unlike any other one, so that nobody else removes it."""
    defaults = {
        "Entrypoint": ENTRYPOINT,
        "Env": ENVIRONMENT,
        "User": "10001:10001",
        "WorkingDir": "/",
        "Labels": {LABEL: uuid.uuid4().hex},
    }
    return image(python_layer(), *more, **(defaults | settings))


@dataclass(frozen=True)
class LoadedImage:
    """An image in the engine, and the containers that were made of it."""

    engine: Engine
    id: str
    identity: ImageIdentity
    config: str
    archive: Path
    labels: dict[str, str] = field(default_factory=lambda: {LABEL: uuid.uuid4().hex})

    def lockdown(self, folder: Path, program: str, **changes: Any) -> Lockdown:
        """A lockdown with folders of its own and this program to run."""
        relay, output = folder / "relay", folder / "output"
        for place in (relay, output):
            place.mkdir(exist_ok=True, parents=True)
        output.chmod(0o777)
        (output / "program.py").write_text(program, encoding="utf-8")
        return replace(
            Lockdown(
                relay_folder=relay,
                output=output,
                pool=None,
                test=None,
                user=(10001, 10001),
                memory_bytes=2**28,
                cpus=1.0,
                most_processes=64,
                labels=self.labels,
            ),
            **changes,
        )

    def create(self, folder: Path, program: str, **changes: Any) -> Container:
        return self.engine.create(self.id, self.lockdown(folder, program, **changes))


@contextmanager
def loaded(engine: Engine, folder: Path, contents: Image) -> Iterator[LoadedImage]:
    """Load an image, and remove it in the end with all of its containers."""
    path = save(folder, contents.docker(), "loaded.tar")
    identity = identify(path)
    image_id = engine.load(path, identity)
    found = LoadedImage(engine, image_id, identity, contents.config.decode(), path)
    try:
        yield found
    finally:
        for container in engine.containers(found.labels):
            container.remove()
        engine.remove_image(image_id)
        path.unlink()
