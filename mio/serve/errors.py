"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

from mio.core.errors import nearest

_SHOWN = 3
"""Problems of one request that are told."""
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request is refused.

    Args:
        status: of HTTP.
        param: field of the request that it is about, as in `messages[0].content[1].image_url`.
        code: for programs.
        headers: further ones of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def content(self) -> dict[str, Any]:
        """Body of the response."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def unsupported(param: str, message: str) -> ApiError:
    """The value of a field is understood, and this server or run cannot do it."""
    return ApiError(400, message, param, "unsupported_value")


def busy(waiting: int, seconds: float) -> ApiError:
    """Too many answers wait; the client is told when to come back."""
    return ApiError(
        429,
        f"{waiting} requests wait for an answer already; try again in a while",
        code="rate_limit_exceeded",
        headers={"retry-after": str(max(1, math.ceil(seconds)))},
    )


def stopping(grace: float) -> ApiError:
    """The server ends."""
    return ApiError(
        503,
        "the server is being stopped, and takes no further requests",
        code="server_stopping",
        headers={"retry-after": str(max(1, math.ceil(grace)))},
    )


def from_validation(error: ValidationError, known: Sequence[str]) -> ApiError:
    """What is wrong with a request, by field. `known` are its fields."""
    problems = error.errors(include_url=False, include_context=True, include_input=False)
    told = [_told(problem, known) for problem in problems[:_SHOWN]]
    more = f"; and {len(problems) - _SHOWN} problems more" if len(problems) > _SHOWN else ""
    first = problems[0]
    code = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}.get(first["type"])
    return ApiError(400, "; ".join(told) + more, place(first["loc"]) or None, code or "invalid_value")


def _told(problem: ErrorDetails, known: Sequence[str]) -> str:
    where = place(problem["loc"])
    if problem["type"] == "extra_forbidden":
        hint = nearest(str(problem["loc"][-1]), known)
        return f"unrecognized request argument supplied: `{where}`{hint}"
    if problem["type"] == "missing":
        return f"missing required parameter: `{where}`"
    if problem["type"] == "json_invalid":
        return f"the body is not valid JSON: {problem['msg'].removeprefix('Invalid JSON: ')}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"invalid `{where}`: {message[0].lower()}{message[1:]}" if where else message


def place(loc: Sequence[int | str]) -> str:
    """Where something is in a request: `messages[0].content[1]`. Names that a client made up are cut short."""
    written = ""
    for key in loc:
        written += f"[{key}]" if isinstance(key, int) else f"{'.' if written else ''}{key:.80}"
    return written
