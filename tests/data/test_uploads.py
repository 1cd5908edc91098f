"""A citizen sends a folder of photographs as a ZIP archive; somebody else sends a bomb."""

import io
import stat
import struct
import zipfile
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from auditkit.data.errors import (
    ArchiveEntryError,
    ArchiveError,
    ArchiveFormatError,
    ArchiveNameError,
    ArchiveTooLargeError,
    NestedArchiveError,
)
from auditkit.data.images import decode_image
from auditkit.data.names import shown
from auditkit.data.uploads import UploadLimits, images_in_zip

MEBIBYTE = 2**20
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


def packed(files: Mapping[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    file.seek(0)
    return file


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_folder_of_photographs_comes_out_in_the_order_of_its_names(how: int) -> None:
    archive = packed(
        {
            "roll/": b"",
            "roll/b.PNG": picture(),
            "roll/a.png": picture(),
            "__MACOSX/roll/._a.png": b"left by the system",
            "roll/.DS_Store": b"left by the system",
        },
        how,
    )
    images = list(images_in_zip(archive))
    assert [image.name for image in images] == ["roll/a.png", "roll/b.PNG"]
    for image in images:
        np.testing.assert_array_equal(decode_image(image.data, 6, 5, 3), PIXELS)


def test_a_bomb_is_refused_by_its_table() -> None:
    bomb = packed({"zeros.png": bytes(32 * MEBIBYTE)})
    assert len(bomb.getvalue()) < MEBIBYTE
    with pytest.raises(ArchiveTooLargeError, match="more than an image can be"):
        list(images_in_zip(bomb))


def test_a_bomb_whose_table_lies_is_stopped_while_it_comes_out() -> None:
    bomb = packed({"zeros.png": bytes(32 * MEBIBYTE)})
    data = bytearray(bomb.getvalue())
    place = data.index(b"PK\x01\x02") + 24  # uncompressed size in the table (APPNOTE, 4.3.12)
    struct.pack_into("<I", data, place, 100)
    with pytest.raises(ArchiveFormatError, match=r"zeros\.png"):
        list(images_in_zip(io.BytesIO(bytes(data))))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (UploadLimits(most_files=2), "at most 2 files"),
        (UploadLimits(most_file_bytes=10), r"a\.png: expected at most 10 bytes"),
        (UploadLimits(most_total_bytes=3 * len(picture()) - 1), "once unpacked"),
    ],
)
def test_every_limit_counts_before_anything_is_read(limits: UploadLimits, words: str) -> None:
    files = {f"{letter}.png": picture() for letter in "abc"}
    assert len(list(images_in_zip(packed(files)))) == 3
    with pytest.raises(ArchiveTooLargeError, match=words):
        next(images_in_zip(packed(files), limits))


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "a/../../b.png", "C:\\a.png", "a\\b.png", "C:a.png"]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ArchiveNameError, match="lead out of it"):
        next(images_in_zip(packed({"fine.png": picture(), name: picture()})))


def test_two_files_of_one_name_are_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", picture())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", b"another")
    with pytest.raises(ArchiveNameError, match="two files"):
        next(images_in_zip(file))


def test_archives_in_archives_are_refused_whatever_they_are_called() -> None:
    inner = packed({"a.png": picture()}).getvalue()
    for name in ("more.zip", "more.tar.gz", "holiday.png"):
        with pytest.raises(NestedArchiveError, match="archive in the archive"):
            list(images_in_zip(packed({name: inner})))


def test_what_is_no_image_is_not_passed_over_in_silence() -> None:
    with pytest.raises(ArchiveEntryError, match=r"notes\.txt"):
        next(images_in_zip(packed({"a.png": picture(), "notes.txt": b"hello"})))
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveEntryError, match="a link"):
        next(images_in_zip(file))


def test_passwords_and_other_compressions_are_refused() -> None:
    with pytest.raises(ArchiveFormatError, match="without a password"):
        next(images_in_zip(packed({"a.png": picture()}, zipfile.ZIP_LZMA)))
    data = bytearray(packed({"a.png": picture()}).getvalue())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArchiveFormatError, match="without a password"):
        next(images_in_zip(io.BytesIO(bytes(data))))


def test_a_huge_table_is_not_even_read() -> None:
    data = bytearray(packed({"a.png": picture()}).getvalue())
    large = bytes(data[:-22]) + b"PK\x06\x07" + bytes(16) + bytes(data[-22:])
    with pytest.raises(ArchiveTooLargeError, match="more than 4 GB"):
        next(images_in_zip(io.BytesIO(large)))
    struct.pack_into("<I", data, len(data) - 10, 2**32 - 1)  # its size (APPNOTE, 4.3.16)
    with pytest.raises(ArchiveTooLargeError, match="a table of"):
        next(images_in_zip(io.BytesIO(bytes(data))))


def test_files_that_share_their_bytes_are_refused() -> None:
    noise = np.random.default_rng(1).bytes(10_000)
    archive = packed({"a.png": noise, "b.png": noise}, zipfile.ZIP_STORED).getvalue()
    second = archive.index(b"PK\x03\x04", 4)
    table = archive.index(b"PK\x01\x02")
    shared = bytearray(archive[:second] + archive[table:])
    place = shared.rindex(b"PK\x01\x02")
    struct.pack_into("<I", shared, place + 42, 0)  # where the second one lies: with the first
    struct.pack_into("<I", shared, len(shared) - 6, second)  # where the table lies
    with pytest.raises(ArchiveFormatError, match="overlap"):
        next(images_in_zip(io.BytesIO(bytes(shared))))


def test_what_is_no_archive_is_refused() -> None:
    for data in (b"", picture(), b"\x80\x04K\x01.", packed({"a.png": picture()}).getvalue()[:-30]):
        with pytest.raises(ArchiveFormatError, match="pack it anew"):
            next(images_in_zip(io.BytesIO(data)))


@given(place=st.integers(0, 300), value=st.integers(0, 255), cut=st.integers(0, 300))
def test_damage_never_gives_another_error(place: int, value: int, cut: int) -> None:
    whole = packed({"a.png": picture(), "b.png": picture()[:40]}).getvalue()
    damaged = bytearray(whole)
    damaged[place % len(whole)] = value
    for data in (bytes(damaged), whole[: len(whole) - cut % len(whole)]):
        with suppress(ArchiveError):
            assert len(list(images_in_zip(io.BytesIO(data)))) <= 2


def test_names_are_fit_to_be_shown() -> None:
    assert shown("Ferien/Köln 3.png") == "Ferien/Köln 3.png"
    tricks = shown("a\u202egnp.exe\r\n\x1b[2J" + "x" * 200)
    assert tricks.isprintable()
    assert len(tricks) == 80
    evil = packed({"\x1b[2J.txt": b""})
    with pytest.raises(ArchiveEntryError) as caught:
        next(images_in_zip(evil))
    assert str(caught.value).isprintable()
