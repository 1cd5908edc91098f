"""Blobs in an S3 bucket, and a folder with copies of those that other processes must read.

A put is atomic and durable when it is answered (S3's strong consistency), and carries a SHA-256
that the service compares with what it has received.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from auditor_server.errors import (
    BlobDamagedError,
    BlobMissingError,
    BlobStoreUnavailableError,
    BlobStoreUrlError,
)
from auditor_server.store.blobs import (
    BlobFolder,
    check_content,
    chunks_of,
    digest_of,
    incoming,
    missing,
)

SCHEME = "s3"
# Under this name lies nothing but what a probe has written.
PROBE = "probe"
CONNECT_TIME = timedelta(seconds=5)
# Of one request: a part of a large blob over a slow line.
REQUEST_TIME = timedelta(seconds=60)
# Somebody waits for the answer; whoever gets none asks again.
MOST_RETRIES = 3
RETRY_TIME = timedelta(seconds=20)
# Of large blobs; S3 takes at most 10,000 parts of at least 5 MiB.
PART_BYTES = 16 * 2**20
PARTS_AT_ONCE = 4
# Copies of what was asked for last: weights and descriptions of as many models as are kept loaded,
# several times over.
MOST_COPIES = 16


class BlobBucket:
    """Blobs below a prefix of a bucket. Credentials come from the environment (AWS_…)."""

    def __init__(self, url: str, copies: Path) -> None:
        """Name the bucket; nothing is sent yet.

        Args:
            url: s3://BUCKET or s3://BUCKET/PREFIX.
            copies: folder for copies; made if it is not there.

        Raises:
            BlobStoreUrlError: the URL names no bucket.

        """
        parts = urlsplit(url)
        if not parts.hostname or parts.netloc != parts.hostname or parts.query or parts.fragment:
            raise BlobStoreUrlError(
                f"expected {SCHEME}://BUCKET or {SCHEME}://BUCKET/PREFIX, without credentials; "
                "those come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        self._url = url
        self._copies = BlobFolder(copies)
        self._sound_copies: set[str] = set()
        copies.mkdir(mode=0o700, exist_ok=True)
        try:
            self._store = S3Store.from_url(
                url,
                checksum_algorithm="SHA256",
                # An endpoint without TLS is used only if AWS_ENDPOINT_URL names one.
                client_options={
                    "allow_http": True,
                    "connect_timeout": CONNECT_TIME,
                    "timeout": REQUEST_TIME,
                },
                retry_config={"max_retries": MOST_RETRIES, "retry_timeout": RETRY_TIME},
            )
        except BaseError as error:
            raise BlobStoreUrlError(f"{url} can't be used: {_reason(error)}") from error

    @property
    def folder(self) -> Path:
        """Where those blobs lie that were fetched last."""
        return self._copies.folder

    def write(self, source: BinaryIO) -> str:
        """See `BlobStore.write`; the source is read twice, since its name has to come first."""
        source.seek(0)
        digest = digest_of(chunks_of(source))
        source.seek(0)
        self._put(digest, source)
        return digest

    def read(self, digest: str) -> bytes:
        """See `BlobStore.read`."""
        data = b"".join(self._chunks(digest))
        check_content(digest, digest_of(iter([data])))
        return data

    def fetch(self, digest: str) -> None:
        """See `BlobStore.fetch`."""
        path = self._copies.path(digest)
        if self._has_copy(path):
            return
        try:
            with incoming(self.folder) as new:
                found = hashlib.sha256()
                for chunk in self._chunks(digest):
                    found.update(chunk)
                    new.file.write(chunk)
                check_content(digest, found.hexdigest())
                new.publish(path)
        except OSError as error:
            raise BlobStoreUnavailableError(
                f"no copy of blob {digest} can be put in {self.folder}: {error.strerror}; see to "
                "its disk"
            ) from error
        self._sound_copies.add(digest)
        self._forget_oldest()

    def _has_copy(self, path: Path) -> bool:
        """Tell whether there is a copy, which is checked when this process first relies on it."""
        try:
            if path.name not in self._sound_copies:
                self._copies.check(path.name)
            os.utime(path)  # the last one to go
        except (BlobMissingError, BlobDamagedError, FileNotFoundError):
            return False
        self._sound_copies.add(path.name)
        return True

    def check(self, digest: str) -> None:
        """See `BlobStore.check`."""
        check_content(digest, digest_of(self._chunks(digest)))

    def delete(self, digest: str) -> None:
        """See `BlobStore.delete`."""
        self._copies.delete(digest)
        with self._reached():
            obstore.delete(self._store, digest)

    def probe(self) -> None:
        """See `BlobStore.probe`."""
        self._put(PROBE, BytesIO(b"\n"))
        for _ in self._chunks(PROBE):
            pass

    def _put(self, name: str, source: BinaryIO) -> None:
        with self._reached():
            obstore.put(
                self._store, name, source, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )

    def _chunks(self, digest: str) -> Iterator[bytes]:
        with self._reached(digest):
            for chunk in obstore.get(self._store, digest).stream():
                yield bytes(chunk)

    def _forget_oldest(self) -> None:
        with suppress(FileNotFoundError):  # another worker does the same
            copies = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in copies[:-MOST_COPIES]:
                path.unlink()

    @contextmanager
    def _reached(self, wanted: str | None = None) -> Iterator[None]:
        """Give errors their types; `wanted` is the blob that is read."""
        try:
            yield
        except FileNotFoundError as error:
            if wanted is not None and "NoSuchBucket" not in str(error):
                raise missing(wanted, self._url) from error
            raise self._unavailable(error) from error
        except BlobMissingError:
            raise
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BlobStoreUnavailableError:
        return BlobStoreUnavailableError(
            f"{self._url} can't be used: {_reason(error)}; see to the bucket, to its credentials "
            "and to AWS_ENDPOINT_URL"
        )


def _reason(error: Exception) -> str:
    # What follows is a trace for debugging the library.
    return str(error).split("\n\nDebug source", maxsplit=1)[0].strip()
