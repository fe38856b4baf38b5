"""The Hugging Face hub: is it there, one file of it, or a whole model folder.

Gives up when ``deadline_s`` seconds pass without a byte, name resolution included, and never tries
twice. Fetches no pickled weights and no code. Knows nothing of the catalog or of hashes.
"""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError
from urllib.parse import quote

import huggingface_hub
from huggingface_hub import errors

from agentmem.errors import ConfigError, DownloadError, ModelNotFoundError

DEADLINE_S = 5.0
CHUNK_BYTES = 1 << 20
WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model")
"""What of a repository is fetched: weights without pickle, configuration, tokenizer."""
UNWANTED = ("*/*", "consolidated*")
"""Subfolders hold other formats; ``consolidated`` repeats the weights in another layout."""


class Hub:
    """The hub at ``endpoint`` (default: ``HF_ENDPOINT``, else huggingface.co).

    Each method raises ConfigError when the endpoint is no http(s) address.
    """

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
            if not isinstance(error.__cause__, HTTPError):  # a refusal is an answer too
                raise

    def folder(self, repo: str) -> Path:
        """A model folder in Hugging Face's own cache, brought up to date when the hub answers.

        Raises:
            ModelNotFoundError: the hub knows no such repository.
            DownloadError: out of reach and not in the cache, or access is denied.
        """
        unreachable: DownloadError | None = None
        try:
            self.check()
        except DownloadError as error:
            unreachable = error
        try:
            folder = huggingface_hub.snapshot_download(
                repo,
                endpoint=self.endpoint,
                allow_patterns=list(WANTED),
                ignore_patterns=list(UNWANTED),
                local_files_only=unreachable is not None,
            )
        except errors.GatedRepoError as error:
            raise DownloadError(
                f"{repo!r} is gated: accept its terms on the hub and log in with `hf auth login`."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise ModelNotFoundError(
                f"the hub has no repository {repo!r}, or it is private. Check the spelling, or log in."
            ) from error
        except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError, ValueError) as error:
            raise DownloadError(
                f"{repo!r} is not in the local Hugging Face cache and cannot be fetched: "
                f"{unreachable or error} Connect once to download it, or pass a local folder."
            ) from error
        return Path(folder)

    def _open(self, url: str) -> Response:
        """A response whose first bytes have come."""
        if not url.startswith(("https://", "http://")):
            raise ConfigError(f"HF_ENDPOINT={self.endpoint!r} is no http(s) address; correct or unset it.")
        if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
            raise DownloadError(f"{self.endpoint} was not asked: HF_HUB_OFFLINE is set.")
        attempt = _Attempt(url, self.deadline_s)
        attempt.start()
        return attempt.result()


class Response(Protocol):
    """What is needed of an HTTP response."""

    def read(self, amount: int, /) -> bytes:
        """Up to ``amount`` bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class _Attempt(threading.Thread):
    """One request on its own thread, abandoned at the deadline: no socket timeout bounds DNS."""

    def __init__(self, url: str, deadline_s: float) -> None:
        super().__init__(daemon=True, name="agentmem-hub-request")
        self._url, self._deadline_s = url, deadline_s
        self._guard = threading.Lock()
        self._answered = threading.Event()
        self._abandoned = False
        self._response: Response | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Send the request; a response nobody waits for any more is closed at once."""
        try:
            response = self._ask()
        except Exception as error:  # noqa: BLE001  reported by the waiting thread, whatever it is
            self._error = error
        else:
            with self._guard:
                if self._abandoned:
                    response.close()
                else:
                    self._response = response
        self._answered.set()

    def _ask(self) -> Response:
        """The response once its first byte has come; Hub has checked the scheme."""
        request = urllib.request.Request(self._url, headers={"User-Agent": "agentmem"})  # noqa: S310
        try:
            response = urllib.request.urlopen(request, timeout=self._deadline_s)  # noqa: S310
        except HTTPError as error:
            error.close()  # it holds the connection
            raise
        try:
            response.peek(1)
        except BaseException:
            response.close()
            raise
        found: Response = response
        return found

    def result(self) -> Response:
        """The response; its socket keeps the deadline as its time limit. Raises DownloadError."""
        self._answered.wait(self._deadline_s)
        with self._guard:
            if self._response is not None:
                return self._response
            self._abandoned = True
        reason = self._error or f"no answer within {self._deadline_s:g} s"
        raise DownloadError(f"{self._url} is out of reach: {reason}.") from self._error
