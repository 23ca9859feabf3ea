"""A scripted OpenAI-compatible server on loopback: what it answers is a function of the request."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Say:
    """One answer. raw: the body as it is; torn: of it only half is sent, then the line is cut;
    pieces: it is sent in so many, delay_s before each."""

    text: str | None = "#### 1"
    status: int = 200
    finish: str = "stop"
    usage: dict[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5}
    )
    headers: dict[str, str] = field(default_factory=dict)
    raw: str | None = None
    delay_s: float = 0.0
    torn: bool = False
    pieces: int = 1

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw.encode()
        if self.status != 200:
            return json.dumps({"error": {"message": f"no: {self.status}"}}).encode()
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        found = {"id": "x", "object": "chat.completion", "choices": [choice]}
        return json.dumps(found | ({"usage": self.usage} if self.usage else {})).encode()


# (body of the request, how often this body came before) -> answer
Script = Callable[[dict[str, Any], int], Say]


class Server:
    """Attributes: asked and sold, how often each body came and was answered with status 200."""

    def __init__(self, script: Script):
        self.script = script
        self.asked: Counter[str] = Counter()
        self.sold: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.running = self.most = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"])).decode()
                with server._lock:
                    server.running += 1
                    server.most = max(server.most, server.running)
                    before = server.asked[raw]
                    server.asked[raw] += 1
                    body = json.loads(raw)
                    server.bodies.append(body)
                    server.headers.append(dict(self.headers.items()))
                say = server.script(body, before)
                out = say.body()
                time.sleep(say.delay_s)
                with server._lock:
                    server.running -= 1
                    server.sold[raw] += say.status == 200 and not say.torn
                with contextlib.suppress(ConnectionError):  # the client may be gone
                    self.send_response(say.status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(out)))
                    for name, value in say.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    part = -(-len(out) // say.pieces)
                    self.wfile.write(out[: len(out) // 2] if say.torn else out[:part])
                    for start in range(part, 0 if say.torn else len(out), part):
                        time.sleep(say.delay_s)
                        self.wfile.write(out[start : start + part])
                self.close_connection = say.torn

            def log_message(self, *arguments: Any) -> None:
                del arguments

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: Any) -> None:
                del arguments

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@contextlib.contextmanager
def serving(script: Script = lambda body, before: Say()) -> Iterator[Server]:
    server = Server(script)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])
