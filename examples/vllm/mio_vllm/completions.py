"""vLLM's `/v1/completions`, asked with token ids and answered with token ids."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

KEY = "VLLM_API_KEY"
"""Environment variable with the key that the server was started with, where it was."""
LARGEST = 1 << 26
"""Most bytes of a response that are read."""


class ServerError(Exception):
    """What a person should know of a request that failed, in one line."""


@dataclass(frozen=True)
class Completion:
    """An answer as the server gives it."""

    tokens: list[int]
    """With the one that ended it, where one did."""
    reason: str
    """`stop` or `length`."""


@dataclass(frozen=True)
class Server:
    """A server of vLLM."""

    url: str
    timeout: float = 600.0
    """Seconds."""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, url: str) -> Server:
        """Raises `ServerError` for what is no address of a server."""
        if not url.startswith(("http://", "https://")):
            raise ServerError(f"{url}: cannot be asked: an address begins with http:// or https://")
        key = os.environ.get(KEY)
        return cls(url.rstrip("/"), headers={"Authorization": f"Bearer {key}"} if key else {})

    def model(self) -> tuple[str, int]:
        """Name of the model that is served, and the tokens that prompt and answer may have together. Raises
        `ServerError`."""
        try:
            first = self._ask("/v1/models")["data"][0]
            return str(first["id"]), int(first["max_model_len"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(f"{self.url}: is no server of vLLM: /v1/models lacks {error}") from None

    def complete(self, model: str, prompt: list[int], options: dict[str, Any]) -> Completion:
        """Goes on with a prompt. Raises `ServerError` with what the server says of a request that it refuses."""
        body = {"model": model, "prompt": prompt, "return_token_ids": True, **options}
        try:
            choice = self._ask("/v1/completions", body)["choices"][0]
            return Completion([int(token) for token in choice["token_ids"]], str(choice["finish_reason"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(f"{self.url}: the answer has no tokens ({error!r}); is it vLLM 0.32 or newer?") from None

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json", **self.headers})
        try:
            with urlopen(request, timeout=self.timeout) as response:
                content = response.read(LARGEST + 1)
        except HTTPError as error:
            raise ServerError(f"{self.url}{path}: {error.code}: {_said(error.read(LARGEST))}") from None
        except (URLError, OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(f"{self.url}: cannot be asked ({reason}); is `vllm serve` running there?") from None
        if len(content) > LARGEST:
            raise ServerError(f"{self.url}{path}: the response has more than {LARGEST} bytes")
        try:
            return json.loads(content)
        except ValueError:
            raise ServerError(f"{self.url}{path}: the response is not JSON") from None


def _said(content: bytes) -> str:
    """The message of an error."""
    try:
        said = json.loads(content)
        return str(said.get("error", said).get("message", said))
    except (ValueError, AttributeError):
        return content[:200].decode(errors="replace")
