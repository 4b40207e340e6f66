"""A peer with DICOMweb, or whatever else answers at its address."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WebAnswer(BaseHTTPRequestHandler):
    """What a `WebPeer` answers."""

    server: WebPeer

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()
        self.server.signed_in.append(self.headers.get("Authorization"))

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, body = self.server.answers.pop(0) if self.server.answers else (self.server.status, self.server.body)
        self.send_response(status)
        for name, value in {**self.server.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


class WebPeer(ThreadingHTTPServer):
    """A peer that answers everything alike; `answers` come first, each once. location: where it redirects to"""

    def __init__(
        self, status: int, body: dict[str, Any] | str, *, kind: str = "application/dicom+json", location: str = ""
    ) -> None:
        self.status, self.body = status, (body if isinstance(body, str) else json.dumps(body) if body else "").encode()
        self.headers = {"Content-Type": kind, **({"Location": location} if location else {})}
        self.signed_in, self.bodies, self.asked = list[str | None](), list[bytes](), list[str]()
        self.answers = list[tuple[int, bytes]]()
        super().__init__(("127.0.0.1", 0), WebAnswer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dicom-web"

    def __enter__(self) -> WebPeer:
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()
