"""What people upload instead of an image, by mistake or on purpose, is refused in plain words."""

import io
import json
import os
import pickle
import select
import socket
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hand_built import PURPOSE, HandBuiltAgent, is_problem
from live import LiveServer
from numpy.typing import NDArray
from PIL import Image
from submitted import SIDE, as_png, flat_calibration, make_submission, noise_image

from auditkit.data.manifest import sample_digest
from auditkit.data.pools import open_pool
from auditkit.data.source import DataSource
from auditkit.evidence import dsse, statements
from auditor_server.settings import MEBIBYTE, MOST_QUERY_BYTES
from schemas import MembershipVerdict

GIGABYTE = 2**30
PICTURE = noise_image(1)


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/auditkit-was-here",)


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG of any size and depth, whatever its pixels are (PNG, section 11.2)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zip_of(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return file.getvalue()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


SVG = b"""<?xml version="1.0"?>
<!-- a drawing -->
<svg xmlns="http://www.w3.org/2000/svg"><script>alert(document.cookie)</script></svg>"""
WIDE = np.full((SIDE, SIDE), 40_000, dtype=np.uint16)
REFUSED = {
    "pickle.png": (pickle.dumps(Bomb()), "NotAnImageError", "a pickle"),
    "photos.zip": (zip_of("a.png", as_png(PICTURE)), "NotAnImageError", "a ZIP archive"),
    "bomb.zip": (zip_of("zeros", bytes(64 * MEBIBYTE)), "NotAnImageError", "a ZIP archive"),
    "drawing.svg": (SVG, "NotAnImageError", "an SVG drawing"),
    "photo.jpg": (b"<!DOCTYPE html><title>Photo</title>", "NotAnImageError", "a web page"),
    "nothing.png": (b"", "NotAnImageError", "0 bytes"),
    "cut.png": (as_png(PICTURE)[:-400], "DamagedImageError", "cut off or damaged"),
    "square.png": (png(10_000, 10_000, 8, 2, b""), "TooManyPixelsError", "10000 x 10000"),
    "vast.png": (png(2**31 - 1, 2**31 - 1, 8, 2, b""), "TooManyPixelsError", "many more"),
    "wide.png": (saved(Image.fromarray(WIDE), "PNG"), "ImageDepthError", "eight bits"),
}


@pytest.fixture(name="asked", scope="module")
def fixture_asked(live_server: LiveServer) -> HandBuiltAgent:
    """A session with a model, to be asked about all of these."""
    agent = live_server.open_session("uploads", live_server.add_order("uploads"))
    submission = make_submission(agent.grant.session_id, flat_calibration(0.0))
    submission.seal(agent)
    assert submission.send(agent).status_code == 200
    return agent


def ask(server: LiveServer, agent: HandBuiltAgent, name: str, data: bytes) -> Any:
    client = server.client("compliance-officer")
    files = [("images", (name, data))]
    return client.post(f"{agent.path}/queries", data=PURPOSE, files=files)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sound_image_is_refused_and_named(
    live_server: LiveServer, asked: HandBuiltAgent, name: str
) -> None:
    data, error, words = REFUSED[name]
    response = ask(live_server, asked, name, data)
    assert is_problem(response, 422, error)
    assert name in response.json()["detail"]
    assert words in response.json()["detail"]
    assert not Path("/tmp/auditkit-was-here").exists()


def test_a_name_is_shown_without_its_tricks(live_server: LiveServer, asked: HandBuiltAgent) -> None:
    response = ask(live_server, asked, "a\u202egnp.exe" + "x" * 500, b"")
    detail = response.json()["detail"]
    assert "\u202e" not in detail
    assert len(detail) < 300


def oriented(pixels: NDArray[np.uint8], kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter before it is shown
    return saved(Image.fromarray(pixels), kind, exif=exif)


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(noise_image(seed)) for seed in range(50)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def sixteen_bits() -> bytes:
    rows = noise_image(3).astype(">u2") * 257
    return png(SIDE, SIDE, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


UNUSUAL = {
    "oriented.jpg": oriented(PICTURE, "JPEG"),
    "oriented.png": oriented(PICTURE, "PNG"),
    "oriented.tiff": oriented(PICTURE, "TIFF"),
    "animated.gif": animated("GIF"),
    "animated.png": animated("PNG"),
    "animated.webp": animated("WEBP"),
    "sixteen-bits.png": sixteen_bits(),
    "ink.jpg": saved(Image.fromarray(PICTURE).convert("CMYK"), "JPEG"),
    "palette.png": saved(Image.fromarray(PICTURE).convert("P"), "PNG"),
    "see-through.png": saved(Image.fromarray(PICTURE).convert("RGBA"), "PNG"),
}


def test_unusual_images_are_read_as_a_pool_reads_them(
    live_server: LiveServer, asked: HandBuiltAgent, tmp_path: Path
) -> None:
    for label, (name, data) in enumerate(UNUSUAL.items()):
        folder = tmp_path / f"class-{label:02}"
        folder.mkdir()
        (folder / name).write_bytes(data)
    pool = open_pool(
        DataSource(kind="image_folder", path=".", height=SIDE, width=SIDE, channels=3), tmp_path
    )
    for (name, data), image in zip(UNUSUAL.items(), pool.images, strict=True):
        response = ask(live_server, asked, name, data)
        assert response.status_code == 200, response.text
        (envelope,) = response.json()["verdicts"]
        payload = dsse.Envelope.from_bytes(json.dumps(envelope).encode()).payload
        verdict = statements.parse(payload, statements.VERDICT_PREDICATE, MembershipVerdict)
        assert verdict.sample_digest == sample_digest(image).hex(), name


def memory_peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


def connect(server: LiveServer, path: str, headers: dict[str, str]) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((str(address.hostname), int(address.port or 0)))
    lines = [f"POST /v1{path} HTTP/1.1", "Host: audit", *map(": ".join, headers.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode())
    return connection


def answer_on(connection: socket.socket) -> bytes:
    connection.settimeout(30)
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(2**16)
    return received


def authorised(server: LiveServer) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {server.home.tokens['auditor']}",
        "Content-Type": "multipart/form-data; boundary=edge",
    }


def test_four_gigabytes_are_refused_before_they_are_sent(
    live_server: LiveServer, asked: HandBuiltAgent
) -> None:
    headers = {**authorised(live_server), "Content-Length": str(4 * GIGABYTE)}
    with connect(live_server, f"{asked.path}/queries", headers) as connection:
        answer = answer_on(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"BodyTooLargeError" in answer


def test_four_gigabytes_without_a_length_are_refused_while_they_come(
    live_server: LiveServer, asked: HandBuiltAgent
) -> None:
    before = memory_peak(live_server.process.pid)
    headers = {**authorised(live_server), "Transfer-Encoding": "chunked"}
    start = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    zeros = bytes(MEBIBYTE)
    sent = 0
    with connect(live_server, f"{asked.path}/queries", headers) as connection:
        connection.sendall(b"%x\r\n%s\r\n" % (len(start), start))
        while sent < 4 * GIGABYTE and not select.select([connection], [], [], 0)[0]:
            try:
                connection.sendall(b"%x\r\n%s\r\n" % (len(zeros), zeros))
            except OSError:  # the server has hung up; its answer is still to be read
                break
            sent += len(zeros)
        answer = answer_on(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"BodyTooLargeError" in answer
    assert sent < MOST_QUERY_BYTES + 32 * MEBIBYTE
    assert memory_peak(live_server.process.pid) < before + 64 * MEBIBYTE
