"""Without a saved base, the engine fetches the published one by its digest."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from containers.errors import BasePullError
from containers.identity import identify
from containers.pull import pull_base
from tests.containers.engine import require_engine
from tests.containers.saved_images import IMAGE, MANIFEST, Image, sha256

NAME = "auditkit-test/base"


@contextmanager
def registry(contents: Image) -> Iterator[str]:
    """Serve one image as registries do (OCI Distribution Specification 1.1) at this address."""
    blobs = dict(contents.blobs())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match = re.fullmatch(rf"/v2/{NAME}/(?:manifests|blobs)/sha256:(\w+)", self.path)
            found = b"{}" if self.path == "/v2/" else None
            if match:
                found = blobs.get(f"blobs/sha256/{match[1]}")
            self.send_response(200 if found is not None else 404)
            kind = MANIFEST if "/manifests/" in self.path else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(found or b"")

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_request(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}/{NAME}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_pulled_base_is_the_one_with_that_digest(tmp_path: Path) -> None:
    engine = require_engine()
    path = tmp_path / "base.tar"
    with registry(IMAGE) as address:
        reference = f"{address}@sha256:{sha256(IMAGE.manifest())}"
        try:
            pull_base(reference, path)
        finally:
            engine.images.remove(reference, force=True)
    assert identify(path).config_digest == sha256(IMAGE.config)
    assert list(tmp_path.iterdir()) == [path]


def test_another_digest_or_no_registry_is_one_clear_error(tmp_path: Path) -> None:
    require_engine()
    with registry(IMAGE) as address, pytest.raises(BasePullError, match="auditkit image base"):
        pull_base(f"{address}@sha256:{'0' * 64}", tmp_path / "base.tar")
    with pytest.raises(BasePullError, match="auditkit image base"):
        pull_base(f"{address}@sha256:{'0' * 64}", tmp_path / "base.tar")
    assert not list(tmp_path.iterdir())
