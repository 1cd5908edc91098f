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
)
DATA = write_bundle(BUNDLE)
EARLY = replace(BUNDLE, records=(), checkpoints=(), weights=None, description=None, scores=None)
EARLY = replace(EARLY, verdicts=(), continuations=())


@pytest.mark.parametrize("bundle", [BUNDLE, EARLY], ids=["complete", "before the submission"])
def test_a_bundle_is_read_as_it_was_written(bundle):
    data = write_bundle(bundle)
    read = read_bundle(data)
    assert replace(read, records=tuple(read.records)) == bundle
    assert write_bundle(read) == data, "equal content gives equal bytes"


def test_a_bundle_is_written_to_and_read_from_files(tmp_path):
    path = tmp_path / "session.zip"
    with path.open("wb") as file:
        write_bundle_to(BUNDLE, file)
    assert path.read_bytes() == DATA
    with path.open("rb") as file:
        assert list(read_bundle(file).records) == list(BUNDLE.records)


def test_ordinary_tools_open_a_bundle():
    with zipfile.ZipFile(io.BytesIO(DATA)) as tool:
        assert tool.testzip() is None
        assert tool.read("records.jsonl") == b"\n".join(BUNDLE.records) + b"\n"
        assert tool.namelist() == sorted(tool.namelist())
        assert {info.date_time for info in tool.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in tool.infolist()} == {zipfile.ZIP_STORED}


def test_records_are_cut_out_when_asked_for():
    lines = read_bundle(DATA).records
    assert len(lines) == 3
    assert list(lines) == list(BUNDLE.records) == list(lines), "it can be read again"
    assert lines[0] == BUNDLE.records[0]
    assert lines[-1] == BUNDLE.records[-1]
    assert list(lines[1:]) == list(BUNDLE.records[1:])
    assert lines == BUNDLE.records
    assert lines != list(BUNDLE.records[:2])
    with pytest.raises(IndexError):
        lines[3]


@pytest.mark.parametrize("text", [b"\n", b"a\n\nb\n", b"a\nb", b"\na\n"])
def test_empty_and_unfinished_lines_are_refused(text):
    with pytest.raises(BundleContentError):
        Lines(text)


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


REQUIRED = sorted(
    bundle_module.MEMBER_LIMITS.keys()
    - {bundle_module.WEIGHTS, bundle_module.DESCRIPTION, bundle_module.SCORES}
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


def test_too_many_verdicts_are_refused(monkeypatch):
    monkeypatch.setattr(bundle_module, "MAX_VERDICTS", 1)
    with pytest.raises(BundleMemberError, match="at most 1 verdicts"):
        write_bundle(BUNDLE)


def test_too_many_continuations_are_refused(monkeypatch):
    monkeypatch.setattr(bundle_module, "MAX_CONTINUATIONS", 1)
    with pytest.raises(BundleMemberError, match="at most 1 continuations"):
        write_bundle(BUNDLE)
    with pytest.raises(BundleMemberError, match="at most 1 continuations"):
        read_bundle(DATA)


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


@given(st.binary(max_size=200), st.integers(0, len(DATA)))
@settings(deadline=None, derandomize=True)
def test_garbage_raises_only_typed_errors(garbage, position):
    for data in (garbage, DATA[:position] + garbage + DATA[position + len(garbage) :]):
        with suppress(BundleError):
            assert write_bundle(read_bundle(data)) == data
