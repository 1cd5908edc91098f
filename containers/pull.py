"""The published base, fetched by the container engine and saved."""

from pathlib import Path

import docker

from containers.engine import TRANSFER_SECONDS, Engine
from containers.engine_calls import PIECE_BYTES, engine_call
from containers.engine_errors import EngineError, EngineLostError
from containers.errors import BasePullError
from containers.progress import Counter, Progress, silent
from containers.write import new_file

PULLING = "pulling the base"
SAVING = "saving the base"


def pull_base(reference: str, output: Path, progress: Progress = silent) -> None:
    """Let the engine fetch an image, and save it to a file.

    The engine checks that the registry's manifest hashes to the digest in the reference; what it
    then saves has no trace of that manifest. Whoever has to be sure saves the base once, identifies
    it, and builds on that file.

    Args:
        reference: name of an image, with the digest of its manifest.
        output: the archive to write.
        progress: is told how many bytes are saved.

    Raises:
        OSError: the file cannot be written.
        EngineError: there is no engine, or it does not answer.
        BasePullError: the engine cannot fetch the image.
    """
    with Engine.connect() as engine:
        address = engine.facts().address
    with engine_call("pull an image"):
        client = docker.DockerClient(base_url=address, timeout=TRANSFER_SECONDS)
    try:
        progress(PULLING)
        try:
            with engine_call("pull an image"):
                image = client.images.pull(reference)
        except EngineLostError:
            raise
        except EngineError as error:
            raise BasePullError(
                f"cannot fetch the base {reference}: {error}. Where no registry can be reached, "
                "make a base with `auditkit image base` and give it with --base"
            ) from error
        size = int(image.attrs.get("Size", 0))
        with new_file(output) as partial, partial.open("wb") as file, engine_call("save an image"):
            pieces = image.save(chunk_size=PIECE_BYTES)
            file.writelines(Counter(progress, SAVING, size).count(pieces))
    finally:
        client.close()
