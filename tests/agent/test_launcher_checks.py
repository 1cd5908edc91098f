"""What the launcher looks at before it starts anything."""

from pathlib import Path

import pytest

from developer_agent.launcher import DataUnreadableError, check_readable


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").write_bytes(b"")
    (folder / "labels.csv").write_text("")
    for path in (folder, folder / "cat"):
        path.chmod(0o755)
    (folder / "labels.csv").chmod(0o644)
    return folder


def test_data_that_everybody_may_read_are_fine(data: Path) -> None:
    check_readable(data)
    check_readable(data / "labels.csv")


@pytest.mark.parametrize(("name", "mode"), [(".", 0o700), ("cat", 0o754), ("labels.csv", 0o640)])
def test_data_that_the_agent_may_not_read_are_told_before_the_start(
    name: str, mode: int, data: Path
) -> None:
    (data / name).chmod(mode)
    with pytest.raises(DataUnreadableError, match="chmod -R"):
        check_readable(data)
