"""The hub: given up quickly when it does not answer, used when it does."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agentmem.engine.cache import ModelCache
from agentmem.engine.catalog import CatalogEntry
from agentmem.engine.fetch import Fetcher
from agentmem.engine.hub import Hub
from agentmem.errors import ConfigError, DownloadError, HashMismatchError
from support.tiny_models import build

CONTENT = b"gguf bytes " * 5000
ENTRY = CatalogEntry(
    "tiny", "Apache-2.0", "tiny file.gguf", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "org/tiny", ()
)


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests talk to this machine only, so the suite's offline switch is lifted."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def _listen(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server that accepts and then does ``talk`` with each connection."""
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            threading.Thread(target=talk, args=(connection, stop), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    stop.set()
    thread.join(10)
    server.close()


def _mute(connection: socket.socket, stop: threading.Event) -> None:
    stop.wait(60)
    connection.close()


def _drip(connection: socket.socket, stop: threading.Event) -> None:
    """Header bytes for ever, each soon enough to keep any socket timeout quiet."""
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not stop.wait(0.02):
            connection.sendall(b"x")
    except OSError:
        pass
    connection.close()


def _stall(connection: socket.socket, stop: threading.Event) -> None:
    """Headers and no body."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    stop.wait(60)
    connection.close()


@pytest.fixture(params=[_mute, _drip, _stall], ids=["mute", "drip", "stall"])
def silent(request: pytest.FixtureRequest) -> Iterator[str]:
    """A hub that never answers properly, in three ways."""
    yield from _listen(request.param)


class _Files(BaseHTTPRequestHandler):
    """Serves CONTENT under the one address the hub would, 404 elsewhere."""

    def do_GET(self) -> None:
        """One file."""
        found = self.path == "/org/tiny/resolve/main/tiny%20file.gguf"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(CONTENT)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_the_deadline_is_five_seconds_at_most() -> None:
    """The default deadline is the promised one."""
    assert Hub().deadline_s <= 5.0


def test_a_hub_that_does_not_answer_is_given_up(silent: str) -> None:
    """No byte within the deadline is a DownloadError, whether it is mute, drips headers or stalls."""
    hub = Hub(silent, deadline_s=0.3)

    with pytest.raises(DownloadError, match="out of reach"):
        hub.check()
    with pytest.raises(DownloadError, match="out of reach"):
        next(hub.file("org/tiny", "x.gguf"))


def test_nobody_listening_is_given_up() -> None:
    """A refused connection is a DownloadError with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(DownloadError, match="refused"):
        Hub(f"http://127.0.0.1:{port}").check()


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch, hub: str) -> None:
    """HF_HUB_OFFLINE is respected even where the hub would answer."""
    Hub(hub).check()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        Hub(hub).check()


def test_the_endpoint_must_be_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that would read local files is refused."""
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")

    with pytest.raises(ConfigError, match="HF_ENDPOINT"):
        next(Hub().file("org/tiny", "x.gguf"))


def test_a_file_comes_from_the_hub(hub: str, tmp_path: Path) -> None:
    """The pinned file is read from its repository's main branch and checked."""
    path = Fetcher(ModelCache(tmp_path), hub=Hub(hub)).fetch(ENTRY)

    assert path.read_bytes() == CONTENT


def test_a_missing_file_on_the_hub_is_an_error(hub: str) -> None:
    """An HTTP error is a DownloadError that carries the code."""
    with pytest.raises(DownloadError, match="404"):
        next(Hub(hub).file("org/other", "tiny.gguf"))


def test_other_bytes_from_the_hub_are_refused(hub: str, tmp_path: Path) -> None:
    """A hub that delivers other bytes under the right name is not believed."""
    other = CatalogEntry("tiny", "Apache-2.0", ENTRY.file_name, ENTRY.size, "0" * 64, "org/tiny", ())

    with pytest.raises(HashMismatchError, match="was removed"):
        Fetcher(ModelCache(tmp_path), hub=Hub(hub)).fetch(other)
    assert list(ModelCache(tmp_path).made("files").iterdir()) == []


def test_a_repository_is_found_in_the_local_cache(tmp_path: Path) -> None:
    """Without a network, a repository in Hugging Face's own cache is found; another is refused."""
    repo = tmp_path / "hub" / "models--org--tiny"
    build("llama").save_pretrained(repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    script = (
        "import json\n"
        "from agentmem.engine.hub import Hub\n"
        "from agentmem.errors import DownloadError\n"
        "folder = Hub().folder('org/tiny')\n"
        "try:\n    Hub().folder('org/absent')\n"
        "except DownloadError as error:\n    print(json.dumps([str(folder), str(error)]))\n"
    )
    place = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    place["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **place}, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    folder, refusal = json.loads(done.stdout)
    assert Path(folder) == repo / "snapshots" / "abc"
    assert "'org/absent' is not in the local Hugging Face cache" in refusal
    assert "HF_HUB_OFFLINE" in refusal
