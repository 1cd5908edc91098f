"""The developer's own source files: which ones a configuration names, and what they are called.

A file's name is its path below the code's folder, so it is the same in the configuration's folder
and inside an image.
"""

from pathlib import Path

from developer_agent.environment import SourceFile
from developer_agent.errors import AgentError
from developer_agent.run_config import CodeConfig


class SourceFileError(AgentError):
    """A source file is missing, or lies outside the code's folder."""


def source_files(code: CodeConfig, folder: Path) -> list[SourceFile]:
    """Return all files that a configuration names, sorted by name; of folders, the *.py below them.

    Args:
        code: paths are relative to `folder`.
        folder: of the configuration; inside an image, where the code was packaged.

    Raises:
        SourceFileError: one is missing, or outside the folder.
    """
    root = folder.resolve()
    found = {file for name in (code.loop, *code.files) for file in _expand(root, name)}
    return [SourceFile(path.relative_to(root).as_posix(), path) for path in sorted(found)]


def _expand(root: Path, name: str) -> list[Path]:
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise SourceFileError(
            f"the configuration names the source file {name}, which lies outside {root}; move it "
            "into the folder of the configuration"
        )
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    if not path.is_file():
        raise SourceFileError(
            f"the configuration names the source file {name}, and there is no {path}; correct "
            "code.loop or code.files"
        )
    return [path]
