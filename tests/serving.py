"""A web server on this machine for the tests: files by range requests, and what goes wrong."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path; `fault` may make a request fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.fault: Callable[[int, str], int | str | None] = lambda number, method: None
        """(how many requests came before, HEAD or GET) -> a status to answer with, "cut" the body
        in half, "hang", ignore "ranges", or None to serve."""
        self.refusal = b"<html>no</html>"
        """Body of an answer that is an error."""
        self.requests: list[tuple[str, str, str | None]] = []
        """(method, path with query, Range header)"""
        self.signed: list[bool] = []
        """Whether each request had a signature."""
        self.sent = 0
        """Bytes of bodies."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        server = self.server
        fault = server.fault(len(server.requests), self.command)
        asked = self.headers.get("Range")
        server.requests.append((self.command, self.path, asked))
        server.signed.append("Authorization" in self.headers)
        if fault == "hang":
            time.sleep(5)
        data = server.files.get(self.path.partition("?")[0])
        if isinstance(fault, int) or data is None:
            self._answer(fault if isinstance(fault, int) else 404, server.refusal)
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        if found is None or fault == "ranges":
            self._answer(200, data, cut=fault == "cut")
            return
        first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        span = f"bytes {first}-{last}/{len(data)}"
        body = data[first : last + 1]
        self._answer(206, body, cut=fault == "cut", headers={"Content-Range": span})

    def _answer(
        self, status: int, body: bytes, *, cut: bool = False, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, text in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[: len(body) // 2] if cut else body
        self.close_connection = self.close_connection or cut
        try:
            self.wfile.write(body)
        except OSError:
            return
        self.server.sent += len(body)


@contextmanager
def serving() -> Iterator[FileServer]:
    with FileServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
