"""An object store on loopback: moto's HTTP server, with a way to make it fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "bucket"
KEY, SECRET = "AKIATESTING", "not-a-secret-of-anybody"

SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
NO_SUCH_KEY_ID = (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")

LOST = (503, "SlowDown", "The request was carried out, and its answer lost.")

Answer = tuple[int, str, str]
Environ = dict[str, Any]
Fault = Callable[[Environ], Answer | None]


class _Frail:
    """A WSGI application in front of another: asks `fault` about each request, and counts them."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app, self.fault = app, lambda _: None
        self.seen: list[str] = []
        self.creating = threading.Lock()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.seen.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        answer = self.fault(environ)
        if answer is LOST:
            list(self.app(environ, lambda *_: None))
            environ["CONTENT_LENGTH"] = "0"
        if answer is None:
            if "HTTP_IF_NONE_MATCH" not in environ:
                return self.app(environ, start_response)
            with self.creating:  # moto looks and then writes; S3 does both at once
                return list(self.app(environ, start_response))
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code, message = answer
        start_response(f"{status} {code}", [("Content-Type", "application/xml")])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []  # what came after its headers would be read as the next answer
        return [f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()]


class ObjectStore:
    """One server with one bucket. Processes started while `environment` is set find it as they would find S3."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.endpoint = "http://{}:{}".format(*self._server.get_host_and_port())
        http: Any = self._server._server
        self._frail = http.app = _Frail(http.app)
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def stop(self) -> None:
        self._server.stop()

    @property
    def seen(self) -> list[str]:
        """Requests so far."""
        return self._frail.seen

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        self._frail.fault = fault
        try:
            yield
        finally:
            self._frail.fault = lambda _: None


def first(count: int, answer: Answer = SLOW_DOWN) -> Fault:
    """The first so many requests are refused."""
    left, lock = [count], threading.Lock()

    def fault(environ: Environ) -> Answer | None:
        with lock:
            left[0] -= 1
            return answer if left[0] >= 0 else None

    return fault


@contextmanager
def as_environment(store: ObjectStore, **changes: str) -> Iterator[None]:
    """For this process too. Clients are kept by fsspec, and know the environment they were made in."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        for name, value in {**store.environment, **changes}.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield
        s3fs.S3FileSystem.clear_instance_cache()
