"""An evidence bundle is one file with one form: what was written is read, and nothing else."""

import io
import struct
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence import archive
from auditkit.evidence import bundle as bundle_module
from auditkit.evidence.bundle import (
    Bundle,
    Continuation,
    Lines,
    QuotedNotes,
    Replay,
    open_bundle,
    read_bundle,
    write_bundle,
    write_bundle_to,
)
from auditkit.evidence.errors import (
    BundleChecksumError,
    BundleContentError,
    BundleError,
    BundleFormatError,
    BundleMemberError,
    BundleSizeError,
)

BUNDLE = Bundle(
    order=b'{"payload":"order"}',
    request=b'{"developer":"d"}',
    grant=b'{"payload":"grant"}',
    records=(b'{"sequence":0}', b'{"sequence":1}', '{"name":"é"}'.encode()),
    checkpoints=("a\n1\nroot\n\n— a sig\n".encode(), "a\n3\nroot\n\n— a sig\n".encode()),
    pool_leaves=bytes(range(96)),
    test_leaves=bytes(32),
    weights=b"\x08" + bytes(40),
    description=b'{"classes":2}',
    scores=b"\x09" + bytes(8),
    verdicts=(b'{"payload":"first"}', b'{"payload":"second"}'),
    continuations=(
        Continuation(b'{"asks":1}', b'{"payload":"one"}'),
        Continuation(b'{"asks":2}', b'{"payload":"two"}'),
    ),
    trust_roots=(b'{"payload":"root 1"}', b'{"payload":"root 2"}'),
    registry=b'{"entries":[]}',
    registry_checkpoint=b"a/registry\n1\nroot\n",
    replays=(Replay(b'{"payload":"draw 1"}', b'{"payload":"result 1"}'), Replay(b'{"draw":2}')),
    verifications=(b'{"payload":"summary"}',),
)
DATA = write_bundle(BUNDLE)
EARLY = Bundle(BUNDLE.order, BUNDLE.request, BUNDLE.grant, (), (), bytes(64), bytes(32))


@pytest.mark.parametrize("bundle", [BUNDLE, EARLY], ids=["complete", "before the submission"])
def test_a_bundle_is_read_as_it_was_written(bundle):
    data = write_bundle(bundle)
    read = read_bundle(data)
    assert read == bundle
    assert write_bundle(read) == data, "equal content gives equal bytes"
    assert write_bundle(open_bundle(io.BytesIO(data))) == data, "also when it is passed on"


def test_a_bundle_is_written_to_and_read_from_files(tmp_path):
    path = tmp_path / "session.zip"
    with path.open("wb") as file:
        write_bundle_to(BUNDLE, file)
    assert path.read_bytes() == DATA
    with path.open("rb") as file:
        assert read_bundle(file) == BUNDLE
    with path.open("rb") as file:
        opened = open_bundle(file)
        assert opened.final_checkpoint == BUNDLE.checkpoints[-1]
        # Both are read piece by piece, side by side, and as often as one likes.
        for _ in range(2):
            pairs = list(zip(opened.records, opened.checkpoints, strict=False))
            assert pairs == list(zip(BUNDLE.records, BUNDLE.checkpoints, strict=False))
        assert tuple(opened.records) == BUNDLE.records
        assert tuple(opened.checkpoints) == BUNDLE.checkpoints
        assert (len(opened.records), len(opened.checkpoints)) == (3, 2)
        assert BUNDLE.records[1] in opened.records
        assert BUNDLE.checkpoints[1] in opened.checkpoints
        assert b"another" not in opened.records


def test_ordinary_tools_open_a_bundle():
    with zipfile.ZipFile(io.BytesIO(DATA)) as tool:
        assert tool.testzip() is None
        assert tool.read("records.jsonl") == b"\n".join(BUNDLE.records) + b"\n"
        assert tool.namelist() == sorted(tool.namelist())
        assert {info.date_time for info in tool.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in tool.infolist()} == {zipfile.ZIP_STORED}


def lines(*pieces: bytes, limit: int = 10) -> Lines:
    return Lines(lambda: pieces, limit)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_are_cut_wherever_the_pieces_end(size):
    text = b"one\ntwo\nthree\n"
    cut = lines(*(text[start : start + size] for start in range(0, len(text), size)))
    assert list(cut) == [b"one", b"two", b"three"] == list(cut), "it can be read again"
    assert len(cut) == 3


@pytest.mark.parametrize("text", [b"\n", b"a\n\nb\n", b"a\nb", b"\na\n"])
def test_empty_and_unfinished_lines_are_refused(text):
    with pytest.raises(BundleContentError):
        list(lines(text))


def test_a_line_without_end_is_refused_before_it_is_held():
    """A reader that waited for the newline would hold what a hostile file has, gigabytes."""
    given = []

    def endless():
        while True:
            given.append(1)
            yield b"x" * 100

    with pytest.raises(BundleContentError, match="more than 1000 bytes"):
        list(iter(Lines(endless, 1000)))
    assert len(given) == 11


def test_a_log_is_passed_on_piece_by_piece(monkeypatch):
    """A log longer than a piece is written as it comes, and read as it comes."""
    monkeypatch.setattr(archive, "PIECE_BYTES", 16)
    bundle = replace(BUNDLE, records=Lines(lambda: (b"record %d\n" % i for i in range(50)), 100))
    data = write_bundle(bundle)
    assert tuple(read_bundle(data).records) == tuple(bundle.records)
    assert data == write_bundle(replace(bundle, records=tuple(bundle.records)))


def members():
    with zipfile.ZipFile(io.BytesIO(DATA)) as tool:
        return {name: tool.read(name) for name in tool.namelist()}


def archive_of(contents):
    file = io.BytesIO()
    archive.write(contents, file)
    return file.getvalue()


def foreign_archive(edit=None, method=zipfile.ZIP_STORED, comment=b""):
    """The same members as another tool would pack them, with one thing changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as tool:
        for name, data in members().items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            info.create_system = 3
            info.external_attr = archive.ATTRIBUTES
            if edit:
                edit(info)
            tool.writestr(info, data)
        tool.comment = comment
    return file.getvalue()


def set_field(name, value):
    return lambda info: setattr(info, name, value)


def flip_encryption_flags():
    data = bytearray(DATA)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(signature) + offset] |= 1
    return bytes(data)


def declared_size(size):
    """Let the first entry of the directory claim another size."""
    data = bytearray(DATA)
    struct.pack_into("<LL", data, data.find(b"PK\x01\x02") + 20, size, size)
    return bytes(data)


def test_the_archive_is_the_plainest_one_that_tools_write():
    assert foreign_archive() == DATA


FOREIGN = {
    "nothing": b"",
    "a short file": b"PK",
    "not an archive": b"x" * 1000,
    "something before it": b"#!/bin/sh\n" + DATA,
    "something after it": DATA + b"\0",
    "cut off": DATA[:-1],
    "cut off in the middle": DATA[: len(DATA) // 2],
    "two archives": DATA + DATA,
    "compression": foreign_archive(method=zipfile.ZIP_DEFLATED),
    "a comment on the archive": foreign_archive(comment=b"hello"),
    "a comment on a member": foreign_archive(set_field("comment", b"hello")),
    "an extra field": foreign_archive(set_field("extra", b"\xfe\xca\x00\x00")),
    "a later date": foreign_archive(set_field("date_time", (2026, 1, 1, 0, 0, 0))),
    "an executable member": foreign_archive(set_field("external_attr", 0o100755 << 16)),
    "a symbolic link": foreign_archive(set_field("external_attr", 0o120777 << 16)),
    "another system": foreign_archive(set_field("create_system", 0)),
    "encryption": flip_encryption_flags(),
    "a size of four gigabytes": declared_size(2**32 - 1),
    "a smaller size": declared_size(1),
    "a name that is not ASCII": DATA.replace(
        b"verdicts/00", "verdicts/\N{ARABIC-INDIC DIGIT ZERO}".encode()
    ),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN.keys())
def test_archives_of_another_form_are_refused(data):
    with pytest.raises((BundleFormatError, BundleSizeError)):
        read_bundle(data)


@pytest.mark.parametrize(
    "reason", ["compression", "a comment on a member", "an extra field", "encryption"]
)
def test_a_member_in_another_form_is_named(reason):
    with pytest.raises(BundleFormatError, match=r"checkpoints\.jsonl.*as auditkit writes it"):
        read_bundle(FOREIGN[reason])


STRANGE_NAMES = {
    "a parent folder": "../request.json",
    "a hidden parent folder": "model/../../request.json",
    "an absolute path": "/etc/passwd",
    "a drive letter": "C:\\request.json",
    "a backslash": "model\\weights.safetensors",
    "a folder": "verdicts/",
    "an unknown member": "notes.txt",
    "a pickle": "model/weights.pkl",
    "another case": "Request.json",
    "a verdict with a short number": "verdicts/2.dsse.json",
    "a verdict with a newline": "verdicts/000002.dsse.json\n",
    "a null character": "request.json\0.txt",
    "no name": "",
}


@pytest.mark.parametrize("name", STRANGE_NAMES.values(), ids=STRANGE_NAMES.keys())
def test_members_with_other_names_are_refused(name):
    with pytest.raises(BundleMemberError):
        read_bundle(archive_of(members() | {name: b"x"}))


REQUIRED = (
    "checkpoints.jsonl",
    "grant.dsse.json",
    "order.dsse.json",
    "pool.leaves",
    "records.jsonl",
    "request.json",
    "test.leaves",
)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_member_is_named(name):
    contents = members()
    del contents[name]
    with pytest.raises(BundleMemberError, match=name):
        read_bundle(archive_of(contents))


def test_a_gap_between_verdicts_is_noticed():
    contents = members()
    del contents["verdicts/000000.dsse.json"]
    with pytest.raises(BundleMemberError, match="without a gap"):
        read_bundle(archive_of(contents))


def raw_archive(entries):
    """An archive of our form, but with members in the given order and as often as given."""
    body, directory, offset = b"", [], 0
    for name, data in entries:
        member = archive.Member(name, offset, len(data), zlib.crc32(data))
        body += member.local_header() + data
        directory.append(member)
        offset = member.end
    central = b"".join(member.central_header() for member in directory)
    count = len(directory)
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, count, count, len(central), len(body), 0)
    return body + central + end


def test_a_repeated_member_is_refused():
    entries = sorted([*members().items(), ("request.json", b"{}")])
    with pytest.raises(BundleMemberError, match="sorted and different"):
        read_bundle(raw_archive(entries))


def test_members_out_of_order_are_refused():
    assert raw_archive(members().items()) == DATA
    with pytest.raises(BundleMemberError, match="sorted and different"):
        read_bundle(raw_archive(reversed(members().items())))


def test_overlapping_members_are_refused():
    """Two entries of the directory that share one member's bytes, as in a zip bomb."""
    first = archive.Member("request.json", 0, 4, zlib.crc32(b"{}{}"))
    second = replace(first, name="test.leaves")
    body = first.local_header() + b"{}{}"
    central = first.central_header() + second.central_header()
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 2, 2, len(central), len(body), 0)
    with pytest.raises(BundleFormatError, match="gap or overlap"):
        read_bundle(body + central + end)


def test_a_large_count_of_members_is_refused_before_they_are_read():
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 0, 0, 0)
    with pytest.raises(BundleFormatError):
        read_bundle(end)


def test_every_changed_byte_is_noticed():
    for position in range(len(DATA)):
        changed = bytearray(DATA)
        changed[position] ^= 0x40
        with pytest.raises(BundleError):
            read_bundle(bytes(changed))


def test_a_changed_record_is_named():
    data = DATA.replace(b'{"sequence":1}', b'{"sequence":2}')
    with pytest.raises(BundleChecksumError, match=r"records\.jsonl"):
        read_bundle(data)


OVERSIZED = {
    "request": replace(BUNDLE, request=bytes(bundle_module.MAX_REQUEST_BYTES + 1)),
    "order": replace(BUNDLE, order=bytes(bundle_module.MAX_ENVELOPE_BYTES + 1)),
    "verdict": replace(BUNDLE, verdicts=(bytes(bundle_module.MAX_ENVELOPE_BYTES + 1),)),
    "continuation request": replace(
        BUNDLE,
        continuations=(Continuation(bytes(bundle_module.MAX_REQUEST_BYTES + 1), b"{}"),),
    ),
    "continuation": replace(
        BUNDLE,
        continuations=(Continuation(b"{}", bytes(bundle_module.MAX_ENVELOPE_BYTES + 1)),),
    ),
}


@pytest.mark.parametrize("bundle", OVERSIZED.values(), ids=OVERSIZED.keys())
def test_a_member_beyond_its_limit_is_not_written(bundle):
    with pytest.raises(BundleSizeError):
        write_bundle(bundle)


def test_a_member_beyond_its_limit_is_not_read():
    contents = members() | {"request.json": bytes(bundle_module.MAX_REQUEST_BYTES + 1)}
    with pytest.raises(BundleSizeError, match=r"request\.json"):
        read_bundle(archive_of(contents))


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "huge.zip"
    with path.open("wb") as file:
        file.truncate(archive.MAX_ARCHIVE_BYTES + 1)
    with path.open("rb") as file, pytest.raises(BundleSizeError):
        read_bundle(file)


UNWRITABLE = {
    "a record of two lines": replace(BUNDLE, records=(b"a\nb",)),
    "an empty record": replace(BUNDLE, records=(b"",)),
    "a checkpoint that is not UTF-8": replace(BUNDLE, checkpoints=(b"\xff",)),
    "half a leaf": replace(BUNDLE, pool_leaves=bytes(33)),
    "half a test leaf": replace(BUNDLE, test_leaves=bytes(31)),
}


@pytest.mark.parametrize("bundle", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_what_a_bundle_cannot_carry_is_not_written(bundle):
    with pytest.raises(BundleContentError):
        write_bundle(bundle)


UNREADABLE = {
    "a record without newline": {"records.jsonl": b"{}"},
    "an empty record": {"records.jsonl": b"{}\n\n"},
    "a checkpoint that is no JSON": {"checkpoints.jsonl": b"note\n"},
    "a checkpoint that is no string": {"checkpoints.jsonl": b"{}\n"},
    "a checkpoint in another spelling": {"checkpoints.jsonl": b'"\\u0061"\n'},
    "half a leaf": {"pool.leaves": bytes(33)},
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_members_with_other_content_are_refused(change):
    with pytest.raises(BundleContentError):
        read_bundle(archive_of(members() | change))


SERIES = [series.folder for series in bundle_module.ALL_SERIES]


@pytest.mark.parametrize("folder", SERIES)
def test_a_series_is_full_at_some_point(folder):
    series = next(found for found in bundle_module.ALL_SERIES if found.folder == folder)
    ending = next(iter(series.limits))
    assert series.name(series.most - 1, ending).startswith(f"{folder}/")
    with pytest.raises(BundleMemberError, match=f"at most {series.most} {folder}"):
        series.name(series.most, ending)


def test_too_many_verdicts_are_not_written():
    with pytest.raises(BundleMemberError, match="at most 999 trust"):
        write_bundle(replace(BUNDLE, trust_roots=(b"{}",) * 1000))


FIRST, SECOND = "continuations/001", "continuations/002"
BADLY_NUMBERED = {
    "a request without its answer": ([f"{SECOND}.dsse.json"], {}),
    "an answer without its request": ([f"{SECOND}.request.json"], {}),
    "a gap": ([f"{FIRST}.request.json", f"{FIRST}.dsse.json"], {}),
    "a gap that keeps the number of files": (
        [f"{SECOND}.request.json", f"{SECOND}.dsse.json"],
        {"continuations/003.request.json": b"{}", "continuations/003.dsse.json": b"{}"},
    ),
    "a number 0": (
        [],
        {"continuations/000.request.json": b"{}", "continuations/000.dsse.json": b"{}"},
    ),
    "halves of two": ([f"{FIRST}.dsse.json", f"{SECOND}.request.json"], {}),
    "a fourth digit": ([], {"continuations/0003.dsse.json": b"{}"}),
    "another file": ([], {"continuations/003.key.pem": b"{}"}),
}


REPLAYS = {
    "a result without its draw": (
        ["replays/002.draw.dsse.json"],
        {"replays/002.result.dsse.json": b"{}"},
    ),
    "a gap before a draw": (["replays/001.draw.dsse.json", "replays/001.result.dsse.json"], {}),
    "a gap before a trust root": (["trust/001.dsse.json"], {}),
    "a trust root without digits": ([], {"trust/root.dsse.json": b"{}"}),
    "a gap before a verification": ([], {"verifications/003.dsse.json": b"{}"}),
    "another part of a replay": ([], {"replays/001.package.zip": b"{}"}),
    "an ending without a number": ([], {"replays/.draw.dsse.json": b"{}"}),
}
BADLY_NUMBERED |= REPLAYS


@pytest.mark.parametrize(("without", "more"), BADLY_NUMBERED.values(), ids=BADLY_NUMBERED.keys())
def test_continuations_are_whole_and_numbered(without, more):
    kept = {name: data for name, data in members().items() if name not in without}
    with pytest.raises(BundleMemberError):
        read_bundle(archive_of(kept | more))


NEWLINE_FREE = st.binary(min_size=1, max_size=20).filter(lambda line: b"\n" not in line)


@given(st.lists(NEWLINE_FREE, max_size=20), st.lists(st.text(max_size=20), max_size=5))
@settings(deadline=None, derandomize=True)
def test_any_log_survives_its_bundle(records, notes):
    checkpoints = tuple(note.encode() for note in notes)
    bundle = replace(EARLY, records=tuple(records), checkpoints=checkpoints)
    data = write_bundle(bundle)
    read = read_bundle(data)
    assert list(read.records) == records
    assert read.checkpoints == checkpoints
    assert write_bundle(read) == data
    assert write_bundle(open_bundle(io.BytesIO(data))) == data


@given(st.binary(max_size=200), st.integers(0, len(DATA)))
@settings(deadline=None, derandomize=True)
def test_garbage_raises_only_typed_errors(garbage, position):
    for data in (garbage, DATA[:position] + garbage + DATA[position + len(garbage) :]):
        with suppress(BundleError):
            assert write_bundle(read_bundle(data)) == data


# -- hostile files ---------------------------------------------------------------------------------


def zip64_marked():
    """A plain bundle whose end record claims that ZIP64 records tell where the directory is."""
    data = bytearray(DATA)
    struct.pack_into("<L", data, len(data) - 6, 2**32 - 1)
    return bytes(data)


def zip64_field_added():
    """An entry that tells in a ZIP64 field what its plain fields could tell."""
    member = archive.Member("request.json", 0, 2, zlib.crc32(b"{}"))
    entry = bytearray(member.central_header() + struct.pack("<HHQ", 1, 8, 0))
    struct.pack_into("<H", entry, 30, 12)
    struct.pack_into("<L", entry, 42, 2**32 - 1)
    body = member.local_header() + b"{}"
    return (
        body
        + entry
        + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(body), 0)
    )


def a_million_members():
    """End records that claim a million members."""
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 2**31, 2**32 - 1, 0)
    big = struct.pack(
        "<4sQHHLLQQQQ", b"PK\x06\x06", 44, 813, 45, 0, 0, 10**6, 10**6, 2**31, 0
    ) + struct.pack("<4sLQL", b"PK\x06\x07", 0, 2**31, 1)
    return big + end


def header_that_disagrees():
    """The header before the data names another member than the directory does."""
    return DATA.replace(b"grant.dsse.json", b"grunt.dsse.json", 1)


HOSTILE = {
    "an end record that points to ZIP64 records": zip64_marked(),
    "a ZIP64 field that nothing needs": zip64_field_added(),
    "a million members": a_million_members(),
    "a header that disagrees with the directory": header_that_disagrees(),
    "a directory that is longer than the file": DATA[:-10] + struct.pack("<L", 2**31) + DATA[-6:],
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused_when_they_are_opened(data):
    with pytest.raises((BundleFormatError, BundleSizeError)):
        open_bundle(io.BytesIO(data))


def sparse(path, members):
    """Write an archive of members that are one hole each; return it open for reading."""
    directory, offset = [], 0
    with path.open("wb") as file:
        for name, size in members:
            member = archive.Member(name, offset, size, 0)
            file.seek(offset)
            file.write(member.local_header())
            directory.append(member)
            offset = member.end
        file.seek(offset)
        file.write(archive._directory_and_end(directory))
    return path.open("rb")


def test_members_that_are_too_much_together_are_not_read(tmp_path):
    """Each is within its limit, and holding all of them would take 8 GB."""
    members = [(f"trust/{number:03d}.dsse.json", 8_000_000) for number in range(1, 999)]
    names = dict.fromkeys(REQUIRED, 100) | dict(members)
    limits = dict.fromkeys(names, 2**33)
    with sparse(tmp_path / "bomb", sorted(names.items())) as file:
        assert archive.Archive(file, limits.__getitem__).members.keys() == names.keys()
        with pytest.raises(BundleSizeError):
            open_bundle(file)


def test_a_log_beyond_four_gigabytes_is_opened_with_zip64(tmp_path):
    """Ordinary tools see the same members at the same places."""
    names = dict.fromkeys(REQUIRED, 32) | {"records.jsonl": 2**32 + 5}
    with sparse(tmp_path / "large", sorted(names.items())) as file:
        found = archive.Archive(file, lambda _name: 2**36).members
        with zipfile.ZipFile(file) as tool:
            for info in tool.infolist():
                assert (info.header_offset, info.file_size) == (
                    found[info.filename].offset,
                    found[info.filename].size,
                )
                assert info.extract_version == (
                    45 if info.file_size > 2**32 or info.header_offset > 2**32 else 20
                )
        assert found["request.json"].offset > 2**32, "its place needs ZIP64, its size does not"
        assert found.keys() == names.keys()


class _Hole(io.RawIOBase):
    """A file that keeps what is written but for the middle of a very long run."""

    def __init__(self):
        self.place = 0
        self.kept = {}

    def seek(self, place, whence=0):
        assert whence == 0
        self.place = place
        return place

    def tell(self):
        return self.place

    def write(self, data):
        if len(data) < 2**20:
            self.kept[self.place] = bytes(data)
        self.place += len(data)
        return len(data)


@pytest.mark.slow
def test_a_log_beyond_four_gigabytes_is_written_with_zip64():
    piece = bytes(2**24)
    file = _Hole()
    archive.write({"records.jsonl": lambda: (piece for _ in range(2**8)), "z": b"end"}, file)
    first = archive.Member("records.jsonl", 0, 2**32, checksum_of(piece, 2**8))
    assert file.kept[0] == first.local_header()
    assert len(first.local_header()) == 30 + len("records.jsonl") + 20
    assert (
        file.kept[first.end] == archive.Member("z", first.end, 3, zlib.crc32(b"end")).local_header()
    )
    assert file.kept[max(file.kept)].endswith(struct.pack("<LH", 2**32 - 1, 0))


def checksum_of(piece, count):
    checksum = 0
    for _ in range(count):
        checksum = zlib.crc32(piece, checksum)
    return checksum


def test_a_changed_log_is_noticed_when_it_has_been_read():
    data = DATA.replace(b'{"sequence":1}', b'{"sequence":2}')
    opened = open_bundle(io.BytesIO(data))
    with pytest.raises(BundleChecksumError, match=r"records\.jsonl"):
        list(opened.records)
    assert tuple(opened.checkpoints) == BUNDLE.checkpoints


def test_a_file_that_is_cut_while_it_is_read_is_noticed(tmp_path):
    path = tmp_path / "evidence.bundle"
    path.write_bytes(DATA)
    with path.open("r+b") as file:
        opened = open_bundle(file)
        file.truncate(DATA.index(b'{"sequence":1}'))
        with pytest.raises(BundleChecksumError):
            list(opened.records)


def test_a_note_of_many_megabytes_is_refused():
    contents = members() | {"checkpoints.jsonl": b'"' + b"x" * 5_000_000 + b'"\n'}
    opened = open_bundle(io.BytesIO(archive_of(contents)))
    assert isinstance(opened.checkpoints, QuotedNotes)
    with pytest.raises(BundleContentError, match="more than 2000000 bytes"):
        list(opened.checkpoints)
    with pytest.raises(BundleContentError):
        write_bundle(replace(BUNDLE, checkpoints=(b"x" * 5_000_000,)))
