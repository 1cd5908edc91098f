"""Bytecode for the code of an image: a read-only root cannot keep what Python compiles later."""

import subprocess
import tempfile
from pathlib import Path

from containers import compile_files
from containers.errors import BytecodeError
from containers.interpreter import ENVIRONMENT, Interpreter
from containers.progress import Progress, silent

PHASE = "compiling bytecode"


def compile_folder(
    interpreter: Interpreter, folder: Path, path_in_image: str, progress: Progress = silent
) -> None:
    """Write bytecode beside every Python file of a folder.

    It depends on the files, their paths in the image and the interpreter alone.

    Args:
        interpreter: the image's Python.
        folder: the folder on the host.
        path_in_image: where it will be in the image; tracebacks name this path.
        progress: is told how many files are done.

    Raises:
        OSError: files cannot be read or written.
        BytecodeError: the interpreter failed.
    """
    sources = sorted(path for path in folder.rglob("*.py") if path.is_file())
    # Files for input and errors, so that neither side can block the other.
    with tempfile.TemporaryFile() as listed, tempfile.TemporaryFile() as errors:
        for source in sources:
            in_image = f"{path_in_image}/{source.relative_to(folder).as_posix()}"
            listed.write(f"{source}\0{in_image}\0".encode())
        listed.seek(0)
        with subprocess.Popen(  # noqa: S603 - our script, in the image that the user chose
            interpreter.run(str(Path(compile_files.__file__))),
            env=ENVIRONMENT,
            stdin=listed,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process:
            for done, _ in enumerate(process.stdout or (), start=1):
                progress(PHASE, done, len(sources))
        if process.returncode:
            errors.seek(0)
            raise BytecodeError(
                f"the Python of the base could not compile {folder.name} (exit code "
                f"{process.returncode}): {errors.read().decode(errors='replace').strip()[-500:]}"
            )
