"""A real S3 service over HTTP: moto's server, in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import obstore
import requests
from obstore.store import S3Store

REGION = "eu-central-1"
BUCKET = "submitted-models"
URL = f"s3://{BUCKET}/auditor/2026"


@dataclass
class S3Service:
    """The service, with one empty bucket."""

    process: subprocess.Popen[str] = field(init=False)
    endpoint: str = field(init=False)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                self.endpoint = found.group()
                break
        place = (
            '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        )
        requests.put(f"{self.endpoint}/{BUCKET}", data=place, timeout=30).raise_for_status()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-word",
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    @property
    def objects(self) -> dict[str, int]:
        """What lies below the prefix, and its size, past the code under test."""
        return {
            str(found["path"]): found["size"]
            for page in obstore.list(self._store())
            for found in page
        }

    def put(self, name: str, data: bytes) -> None:
        obstore.put(self._store(), name, data)

    def _store(self) -> S3Store:
        with self.in_environment():
            return S3Store.from_url(URL, client_options={"allow_http": True})
