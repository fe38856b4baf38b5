"""The Hugging Face hub: is it there, one file of it, or a whole model folder.

Gives up within ``deadline_s`` seconds when the hub does not answer, name resolution included, and
never tries twice. Fetches no pickled weights and no code. Knows nothing of the catalog or of hashes.
"""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from agentmem.errors import DownloadError, ModelNotFoundError

DEADLINE_S = 5.0
STALL_S = 30.0
CHUNK_BYTES = 1 << 20
FOLDER_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model")
"""What of a repository is fetched: weights without pickle, configuration, tokenizer."""


class _Response(Protocol):
    def read(self, amount: int = ...) -> bytes: ...
    def close(self) -> None: ...


class Hub:
    """The hub at ``endpoint`` (default: ``HF_ENDPOINT``, else huggingface.co)."""

    def __init__(self, endpoint: str | None = None, *, deadline_s: float = DEADLINE_S) -> None:
        chosen = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        self.endpoint = chosen.rstrip("/")
        self.deadline_s = deadline_s

    def file(self, repo: str, file_name: str) -> Iterator[bytes]:
        """The file's bytes in pieces. Raises DownloadError, within the deadline if nothing answers."""
        url = f"{self.endpoint}/{quote(repo)}/resolve/main/{quote(file_name)}"
        response = self._open(url)
        try:
            while piece := response.read(CHUNK_BYTES):
                yield piece
        except (OSError, HTTPException) as error:
            raise DownloadError(f"{url} broke off: {error}") from error
        finally:
            response.close()

    def check(self) -> None:
        """Raise DownloadError when the hub does not answer within the deadline."""
        try:
            self._open(f"{self.endpoint}/robots.txt").close()
        except DownloadError as error:
            if not isinstance(error.__cause__, urllib.request.HTTPError):  # any answer is an answer
                raise

    def folder(self, repo: str) -> Path:
        """A model folder in Hugging Face's own cache, downloaded when the hub answers.

        Raises:
            ModelNotFoundError: the hub knows no such repository.
            DownloadError: out of reach and not in the cache, or access is denied.
        """
        import huggingface_hub
        from huggingface_hub import errors

        unreachable: DownloadError | None = None
        try:
            self.check()
        except DownloadError as error:
            unreachable = error
        try:
            return Path(
                huggingface_hub.snapshot_download(
                    repo,
                    endpoint=self.endpoint,
                    allow_patterns=list(FOLDER_PATTERNS),
                    local_files_only=unreachable is not None,
                    tqdm_class=None,
                )
            )
        except errors.GatedRepoError as error:
            raise DownloadError(
                f"{repo!r} is gated: accept its terms on the hub and log in with `hf auth login`."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise ModelNotFoundError(
                f"the hub has no repository {repo!r}, or it is private. Check the spelling, or log in."
            ) from error
        except (errors.LocalEntryNotFoundError, OSError, ValueError, errors.HfHubHTTPError) as error:
            reason = unreachable or error
            raise DownloadError(
                f"{repo!r} is not in the local Hugging Face cache and cannot be fetched: {reason}. "
                "Connect once to download it, or pass a local folder."
            ) from error

    def _open(self, url: str) -> _Response:
        """A response whose headers have come. The thread bounds what no socket timeout does (DNS)."""
        if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
            raise DownloadError(f"{self.endpoint} was not asked: HF_HUB_OFFLINE is set.")
        attempt = _Attempt(url, self.deadline_s)
        attempt.start()
        return attempt.result()


class _Attempt(threading.Thread):
    """One request on its own thread, abandoned at the deadline."""

    def __init__(self, url: str, deadline_s: float) -> None:
        super().__init__(daemon=True, name="agentmem-hub-request")
        self._url, self._deadline_s = url, deadline_s
        self._guard = threading.Lock()
        self._answered = threading.Event()
        self._abandoned = False
        self._response: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Send the request; a response nobody waits for any more is closed at once."""
        request = urllib.request.Request(self._url, headers={"User-Agent": "agentmem"})
        try:
            response = urllib.request.urlopen(request, timeout=self._deadline_s)
        except Exception as error:  # whatever went wrong is reported to the waiting thread
            self._error = error
        else:
            with self._guard:
                if self._abandoned:
                    response.close()
                else:
                    self._response = response
        self._answered.set()

    def result(self) -> _Response:
        """The response, with its stall limit set for the transfer. Raises DownloadError."""
        self._answered.wait(self._deadline_s)
        with self._guard:
            self._abandoned = self._response is None
        if self._abandoned:
            reason = self._error or f"no answer within {self._deadline_s:g} s"
            raise DownloadError(f"{self._url} is out of reach: {reason}.") from self._error
        _set_timeout(self._response, STALL_S)
        response: _Response = self._response
        return response


def _set_timeout(response: Any, seconds: float) -> None:
    """Once bytes flow, a pause may be longer than the first answer could take."""
    raw = getattr(getattr(response, "fp", None), "raw", None)
    connection = getattr(raw, "_sock", None)
    if connection is not None:
        connection.settimeout(seconds)
