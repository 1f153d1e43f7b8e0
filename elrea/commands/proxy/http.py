"""What the proxy reads and writes: bodies, headers, errors, and the lines of its log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST = 16 * 2**20
"""Bytes of a request at most."""
_OF_CONNECTION = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"expect",
    b"transfer-encoding", b"upgrade", b"host", b"content-length",
}  # fmt: skip
"""Headers that belong to one connection."""


class Refused(Exception):
    """A request that is answered without the engine, with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def body_of(request: Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        Refused: It is none, or too large.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST:
            raise Refused(413, f"a request may have {LARGEST // 2**20} MiB")
    try:
        body = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as found:
        raise Refused(400, "the request is not JSON") from found
    if isinstance(body, dict):
        return body
    raise Refused(400, "the request must be a JSON object")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that do not belong to one connection, those that `Connection` names left out too."""
    pairs = [(name.lower(), value) for name, value in headers]
    named = {
        each.strip().lower() for name, value in pairs if name == b"connection" for each in value.split(b",")
    }  # fmt: skip
    return [(name, value) for name, value in pairs if name not in _OF_CONNECTION | named]


def error(status: int, message: str) -> dict[str, Any]:
    """An error as OpenAI's API writes it."""
    kind = "invalid_request_error" if status < 500 else "api_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def log_request(entry: Mapping[str, Any], begun: float, status: int | str) -> None:
    """Prints one JSON line, which has neither prompts nor headers."""
    now, taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.perf_counter() - begun
    line = {"time": now, **entry, "status": status, "seconds": round(taken, 4)}
    print(json.dumps(line), flush=True)
