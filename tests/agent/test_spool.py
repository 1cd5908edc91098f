import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence import merkle
from developer_agent.errors import (
    DiskWriteError,
    SpoolLineError,
    SpoolRangeError,
    SpoolWriteError,
)
from developer_agent.spool import Spool

LINES = [b'{"step":%d,"loss":0.%d}' % (step, 7**step) for step in range(12)]
line_strategy = st.binary(min_size=1, max_size=40).filter(lambda b: not {0, 10} & set(b))


def test_lines_come_back_in_order_and_after_reopening(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "spool") as spool:
        assert [spool.append(line) for line in LINES] == list(range(12))
        assert spool.read(3, 4) == LINES[3:7]
        assert spool.read(12, 0) == []
    with Spool.open(tmp_path / "spool") as spool:
        assert list(spool.lines()) == LINES
        assert spool.append(b"next") == 12


def test_root_is_that_of_rfc_6962_for_every_size(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "spool") as spool:
        spool.extend(LINES)
        for size in [0, 1, 5, 12, 7, 11]:  # shrinking too: recovery asks for an earlier root
            assert spool.root(size) == merkle.root(LINES[:size])
        spool.truncate(4)
        spool.append(b"another fifth line")
        assert spool.root(5) == merkle.root([*LINES[:4], b"another fifth line"])
        with pytest.raises(SpoolRangeError):
            spool.root(6)


def test_cut_at_every_byte_offset_keeps_exactly_the_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with Spool.open(path) as spool:
        spool.extend(LINES)
    data = path.read_bytes()
    for offset in range(len(data) + 1):
        path.write_bytes(data[:offset])
        whole = data[:offset].count(b"\n")
        with Spool.open(path) as spool:
            assert list(spool.lines()) == LINES[:whole]
            spool.append(b"after the crash")
        with Spool.open(path) as spool:
            assert list(spool.lines()) == [*LINES[:whole], b"after the crash"]


def test_blocks_that_never_reached_the_disk_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"one\ntwo\nth\0\0\0\0\nfour\n")
    with Spool.open(path) as spool:
        assert list(spool.lines()) == [b"one", b"two"]
    assert path.read_bytes() == b"one\ntwo\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(line_strategy, max_size=6), max_size=6), st.data())
def test_any_history_of_appends_and_crashes(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("spool") / "spool"
    expected: list[bytes] = []
    for batch in batches:
        with Spool.open(path) as spool:
            assert list(spool.lines()) == expected
            spool.extend(batch)
        content = path.read_bytes()
        offset = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:offset])
        expected = content[:offset].split(b"\n")[:-1]
    with Spool.open(path) as spool:
        assert list(spool.lines()) == expected
        assert spool.root(len(spool)) == merkle.root(expected)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_file_opens_to_its_longest_whole_prefix(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("spool") / "spool"
    path.write_bytes(content)
    readable = content.split(b"\0")[0]
    with Spool.open(path) as spool:
        assert len(spool) == readable.count(b"\n")
        spool.append(b"x")
        assert list(spool.lines())[-1] == b"x"


def test_recovery_of_a_file_larger_than_one_block(tmp_path: Path) -> None:
    lines = [b"%d" % index * (index % 97 + 1) for index in range(30_000)]
    with Spool.open(tmp_path / "spool") as spool:
        spool.extend(lines)
    with Spool.open(tmp_path / "spool") as spool:
        assert list(spool.lines()) == lines
        assert spool.read(29_999, 1) == [lines[-1]]


@pytest.mark.parametrize("line", [b"", b"two\nlines", b"nul\0byte"])
def test_what_is_not_one_line_is_refused_and_nothing_written(tmp_path: Path, line: bytes) -> None:
    with Spool.open(tmp_path / "spool") as spool:
        with pytest.raises(SpoolLineError):
            spool.extend([b"good", line])
        assert len(spool) == 0
    assert (tmp_path / "spool").read_bytes() == b""


def test_reading_is_bounded_in_bytes_and_always_makes_progress(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "spool") as spool:
        spool.extend([b"x" * 99] * 10)  # 100 bytes each with the newline
        assert len(spool.read(0, 10, most_bytes=350)) == 3
        assert len(spool.read(0, 10, most_bytes=300)) == 3
        assert len(spool.read(0, 10, most_bytes=1)) == 1
        assert len(spool.read(0, 10, most_bytes=5000)) == 10


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 3), (3, 0), (1, -1)])
def test_lines_that_do_not_exist_are_refused(tmp_path: Path, first: int, count: int) -> None:
    with Spool.open(tmp_path / "spool") as spool:
        spool.extend([b"a", b"b"])
        with pytest.raises(SpoolRangeError):
            spool.read(first, count)
        with pytest.raises(SpoolRangeError):
            spool.truncate(3)


def test_a_file_cut_by_someone_else_is_noticed(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "spool") as spool:
        spool.extend(LINES)
        os.truncate(tmp_path / "spool", 5)
        with pytest.raises(SpoolRangeError, match="another program"):
            spool.read(0, 12)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskWriteError, match="nowhere"):
        Spool.open(tmp_path / "nowhere" / "spool")


def test_full_disk_says_how_much_is_needed_and_leaves_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # its own process: the limit can't be raised again
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (250, 250))
            spool = Spool.open(path)
            for _ in range(2):
                spool.append(b"x" * 99)
            for _ in range(2):  # the write that fits in part, and again
                try:
                    spool.append(b"y" * 99)
                except SpoolWriteError as error:
                    os.write(writer, f"{error.needed} {'training state' in str(error)} ".encode())
            spool.append(b"z" * 40)  # a shorter line still fits
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as report:
        assert report.read().split() == ["100", "True", "100", "True"]
    with Spool.open(path) as spool:
        assert list(spool.lines()) == [b"x" * 99, b"x" * 99, b"z" * 40]


def test_kill_minus_nine_of_a_writer_loses_nothing_that_was_synced(tmp_path: Path) -> None:
    generator = random.Random(20)
    path = tmp_path / "spool"
    synced_total = 0
    for _ in range(25):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                spool = Spool.open(path)
                while True:
                    for _ in range(5):
                        spool.append(b"%d " % len(spool) + b"x" * generator.randrange(5000))
                    spool.sync()
                    os.write(writer, b"%d\n" % len(spool))
            finally:
                os._exit(1)
        os.close(writer)
        os.read(reader, 1)  # it writes
        time.sleep(generator.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as report:
            promised = report.read().split(b"\n")[:-1]
        with Spool.open(path) as spool:
            if len(promised) > 1:
                synced_total = int(promised[-1])
            assert len(spool) >= synced_total
            numbers = [int(line.split(b" ")[0]) for line in spool.lines()]
            assert numbers == list(range(len(spool)))
            synced_total = len(spool)
    assert synced_total > 0
