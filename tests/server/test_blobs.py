"""Submitted files, in a folder and in a bucket of a real S3 service."""

import hashlib
import os
import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import bucket
import pytest
from hand_built import is_problem
from live import LiveServer, make_home
from submitted import as_png, flat_calibration, make_submission, noise_image

from auditor_server.errors import (
    BlobDamagedError,
    BlobMissingError,
    BlobStoreUnavailableError,
    BlobStoreUrlError,
)
from auditor_server.home import COPIES_FOLDER
from auditor_server.settings import MEBIBYTE
from auditor_server.store.blobs import BlobFolder, BlobStore
from auditor_server.store.buckets import MOST_COPIES, PART_BYTES, BlobBucket

LARGE = random.Random(6).randbytes(PART_BYTES + 3 * MEBIBYTE + 1)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(name="service", scope="module")
def fixture_service() -> Iterator[bucket.S3Service]:
    service = bucket.S3Service()
    service.start()
    with service.in_environment():
        yield service
    service.stop()


@pytest.fixture(name="blobs", params=["folder", "bucket"])
def fixture_blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return BlobFolder(tmp_path)
    request.getfixturevalue("service")
    return BlobBucket(bucket.URL, tmp_path / "copies")


@pytest.mark.parametrize("data", [b"", b"a model", LARGE], ids=["empty", "small", "in parts"])
def test_what_is_stored_is_what_is_read(blobs: BlobStore, data: bytes) -> None:
    source = BytesIO(data)
    source.seek(len(data) // 2)  # whoever looked at it before
    digest = blobs.write(source)
    assert digest == digest_of(data)
    assert blobs.write(BytesIO(data)) == digest
    assert blobs.read(digest) == data
    blobs.check(digest)
    blobs.fetch(digest)
    assert BlobFolder(blobs.folder).read(digest) == data
    blobs.probe()
    blobs.delete(digest)
    blobs.delete(digest)
    for what in (blobs.read, blobs.fetch, blobs.check):
        with pytest.raises(BlobMissingError, match=digest):
            what(digest)


class Interrupted(BytesIO):
    """An upload that ends in the middle of its second reading, or of its first."""

    left = 3 * len(LARGE) // 2

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise OSError(5, "the disk is broken")
        return data


def test_half_a_file_is_never_there(
    tmp_path: Path, service: bucket.S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = service.objects
    with pytest.raises(BlobStoreUnavailableError):
        BlobBucket(bucket.URL, tmp_path / "copies").write(Interrupted(LARGE))
    assert service.objects == before
    monkeypatch.setattr(Interrupted, "left", len(LARGE) // 2)
    folder = tmp_path / "blobs"
    folder.mkdir()
    with pytest.raises(BlobStoreUnavailableError, match="the disk is broken"):
        BlobFolder(folder).write(Interrupted(LARGE))
    assert list(folder.iterdir()) == []


def test_what_is_not_what_its_name_says_is_not_given_out(
    tmp_path: Path, service: bucket.S3Service
) -> None:
    data = b"the true weights"
    for blobs in (BlobFolder(tmp_path), BlobBucket(bucket.URL, tmp_path / "copies")):
        digest = blobs.write(BytesIO(data))
        forged = data.replace(b"true", b"best")
        service.put(digest, forged) if isinstance(blobs, BlobBucket) else blobs.path(
            digest
        ).write_bytes(forged)
        wrong = [blobs.read, blobs.check, *([blobs.fetch] if isinstance(blobs, BlobBucket) else [])]
        for what in wrong:
            with pytest.raises(BlobDamagedError, match=digest_of(forged)):
                what(digest)
        blobs.write(BytesIO(data))  # whoever has the file mends it
        assert blobs.read(digest) == data


def test_a_copy_that_was_damaged_is_made_anew(tmp_path: Path, service: bucket.S3Service) -> None:
    digest = BlobBucket(bucket.URL, tmp_path / "copies").write(BytesIO(b"weights"))
    (tmp_path / "copies" / digest).write_bytes(b"weight")
    blobs = BlobBucket(bucket.URL, tmp_path / "copies")
    blobs.fetch(digest)
    assert BlobFolder(blobs.folder).read(digest) == b"weights"


def test_copies_do_not_fill_the_disk(tmp_path: Path, service: bucket.S3Service) -> None:
    blobs = BlobBucket(bucket.URL, tmp_path / "copies")
    digests = [blobs.write(BytesIO(bytes([number]))) for number in range(MOST_COPIES + 4)]
    for age, digest in enumerate(reversed(digests)):
        blobs.fetch(digest)
        os.utime(blobs.folder / digest, (age, age))
        blobs.fetch(digests[-1])  # the one that is always asked for
    assert len(list(blobs.folder.iterdir())) == MOST_COPIES
    assert (blobs.folder / digests[-1]).exists()


def test_a_store_that_is_away_is_told_from_a_blob_that_is(
    tmp_path: Path, service: bucket.S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = BlobBucket("s3://no-such-bucket/x", tmp_path / "copies")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = BlobBucket(bucket.URL, tmp_path / "copies")
    gone = BlobFolder(tmp_path / "gone")
    for blobs in (other, away, gone):
        attempts: list[Any] = [lambda to=blobs: to.write(BytesIO(b"x")), blobs.probe]
        if blobs is not gone:
            attempts += [lambda to=blobs: to.read(digest_of(b"x"))]
        for attempt in attempts:
            with pytest.raises(BlobStoreUnavailableError) as caught:
                attempt()
            assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["s3://", "s3://key:secret@bucket/x", "s3://bucket?x=1", "gs://bucket", "/srv/blobs"]
)
def test_other_places_are_refused_by_name(tmp_path: Path, url: str) -> None:
    with pytest.raises(BlobStoreUrlError, match="s3://BUCKET"):
        make_home(tmp_path).open_blobs(url)


def test_a_server_whose_models_lie_in_a_bucket(tmp_path: Path) -> None:
    """From submission to verdict and bundle; what the service does then is told by name."""
    service = bucket.S3Service()
    service.start()
    server = LiveServer(make_home(tmp_path), blobs=bucket.URL, environment=service.environment)
    server.start()
    try:
        digest = server.add_order("digits-2026")
        agent, late = (server.open_session("digits-2026", digest) for _ in range(2))
        submission = make_submission(agent.grant.session_id, flat_calibration(0.0))
        submission.seal(agent)
        answer = submission.send(agent)
        assert answer.status_code == 200, answer.text
        weights = digest_of(submission.weights)
        assert service.objects[weights] == len(submission.weights)
        assert len(service.objects) == 3
        assert not any((server.home.path / "blobs").iterdir())

        files = [("images", ("a.png", as_png(noise_image(1))))]
        auditor = server.client("auditor")
        assert auditor.post(f"{agent.path}/queries", files=files).status_code == 200
        assert (server.home.path / COPIES_FOLDER / weights).exists()
        assert auditor.get(f"{agent.path}/bundle").status_code == 200

        service.put(weights, b"other weights")
        answer = auditor.get(f"{agent.path}/bundle")
        assert is_problem(answer, 500, "BlobDamagedError"), answer.text

        service.stop()
        other = make_submission(late.grant.session_id, flat_calibration(0.0))
        other.seal(late)
        answer = other.send(late)
        assert is_problem(answer, 503, "BlobStoreUnavailableError"), answer.text
        assert late.status()["state"] == "sealed"  # nothing refers to what is not there
    finally:
        server.stop()
        service.stop()
