"""A server on 127.0.0.1 that lays files out as the Hugging Face hub does, for one commit of one repository."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = 1 << 12  # bytes from which on a file is an LFS object


class Hub:
    """What the server holds, and what it was asked.

    commit: of everything. cut: how many bytes of the next large file to send before the connection breaks.
    """

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        self.repository, self.files = repository, files
        self.commit = hashlib.sha1(b"first").hexdigest()
        self.cut: int | None = None
        self.served: dict[str, bytes] = {}  # other bytes than those that were announced
        self.requests: list[tuple[str, str, str | None]] = []

    def etag(self, name: str) -> str:
        data = self.files[name]
        if len(data) >= LARGE:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """The server's address while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            asked = self.requestline.split()[1]  # in self.path one slash stands for several at the beginning
            hub.requests.append((self.command, asked, self.headers.get("Range")))
            path = self.path.split("?")[0]
            if path.startswith("/cdn/"):
                self.send(path.removeprefix("/cdn/"), body=body)
                return
            prefix = f"/{hub.repository}/resolve/"
            revision, _, name = path.removeprefix(prefix).partition("/")
            if not path.startswith(prefix):
                self.refuse("RepoNotFound")
            elif revision not in ("main", hub.commit):
                self.refuse("RevisionNotFound")
            elif name not in hub.files:
                self.refuse("EntryNotFound")
            elif len(hub.files[name]) >= LARGE:
                self.send_response(302)
                self.send_header("Location", f"{address}/cdn/{name}")
                self.send_header("X-Repo-Commit", hub.commit)
                self.send_header("X-Linked-ETag", f'"{hub.etag(name)}"')
                self.send_header("X-Linked-Size", str(len(hub.files[name])))
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send(name, body=body)

        def refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, name: str, *, body: bool) -> None:
            data = hub.served.get(name, hub.files[name])
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", f'"{hub.etag(name)}"')
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if not body:
                return
            if hub.cut is not None and len(data) >= LARGE:
                self.wfile.write(data[start : start + hub.cut])
                self.wfile.flush()
                hub.cut = None
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(data[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
