"""The application of `elrea route-proxy`: an OpenAI-compatible proxy that names the adapter in each request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from elrea.commands.together import Together
from elrea.errors import ElreaError

if TYPE_CHECKING:
    from elrea.method.ensemble.ensemble import Ensemble
    from elrea.method.ensemble.ensemble import Route as Weights

Form = Literal["name", "experts", "members"]
"""What a request names: the nearest expert, the experts' scales (1 for the nearest), or all members' scales."""
PATHS = ("/v1/chat/completions", "/v1/completions")
LARGEST = 16 * 2**20
"""Bytes of a request at most."""
TOGETHER = 16
"""Requests that are routed in one pass at most."""
_OF_CONNECTION = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "host", "content-length",
}  # fmt: skip
"""Headers that belong to one connection."""


class Refused(Exception):
    """A request that is answered without the engine, with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def prompt_of(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt of a request, as a row of data=jsonl.

    Raises:
        Refused: The request has none, or several.
    """
    chat = path.endswith("/chat/completions")
    name = "messages" if chat else "prompt"
    value = body.get(name)
    if isinstance(value, list) and not chat and len(value) == 1:
        value = value[0]
    if not isinstance(value, list if chat else str) or not value:
        raise Refused(400, f"{name!r} must be {'a list of messages' if chat else 'one text'}")
    return {name: value}


def addressed(
    body: Mapping[str, Any], weights: Weights, form: Form, names: list[str]
) -> dict[str, Any]:
    """The request to the engine.

    Args:
        body: The request.
        weights: Of its prompt.
        form: What the engine takes.
        names: Of each cluster, the name of the adapter that answers.
    """
    if form == "name":
        return {**body, "model": names[weights.nearest]}
    if form == "experts":
        scales = [float(number == weights.nearest) for number in range(len(weights.cosines))]
    else:
        whole = sum(weights.weights.values())
        scales = [weight / whole for weight in weights.weights.values()]  # λ of (D.1)
    return {**body, "lora": [{"id": number, "scale": scale} for number, scale in enumerate(scales)]}


class Proxy:
    """Routes requests and passes them on.

    Args:
        ensemble: Whose router is used.
        engine: Address of the engine, without a slash at its end.
        form: What the engine takes.
        names: Of each cluster, the name of the adapter that answers.
        timeout: Longest silence of the engine, in seconds.
    """

    def __init__(
        self, ensemble: Ensemble, engine: str, form: Form, names: list[str], timeout: float
    ):
        self._engine, self._form, self._names, self._timeout = engine, form, names, timeout
        self._route = Together(ensemble.route, TOGETHER)
        patience, limits = httpx.Timeout(timeout, connect=10.0), httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(timeout=patience, limits=limits)

    async def complete(self, request: Request) -> Response:
        """The engine's answer, or an error."""
        begun, entry = time.perf_counter(), dict[str, Any](path=request.url.path)
        try:
            body = await _body(request)
            weights = await self._route(prompt_of(request.url.path, body))
            entry |= {"nearest": weights.nearest, "routed_s": round(time.perf_counter() - begun, 4)}
            sent = addressed(body, weights, self._form, self._names)
            return await self._forward(request, sent, begun, entry)
        except ClientDisconnect:
            refused = Refused(499, "the client is gone")
        except Refused as error:
            refused = error
        except ElreaError as error:
            refused = Refused(400, str(error))
        except Exception:
            logging.getLogger(__name__).exception("a request failed")
            refused = Refused(500, "the proxy failed; its log says why")
        _log(entry, begun, refused.status)
        return JSONResponse(_error(refused.status, str(refused)), refused.status)

    async def _forward(
        self, request: Request, body: Mapping[str, Any], begun: float, entry: dict[str, Any]
    ) -> Response:
        url, headers = self._engine + request.url.path, _passed_on(request.headers)
        sent = self.client.build_request("POST", url, headers=headers, json=body)
        try:
            answer = await self.client.send(sent, stream=True)
        except httpx.TimeoutException as error:
            raise Refused(504, f"the engine was silent for {self._timeout:g} s") from error
        except httpx.HTTPError as error:
            raise Refused(502, f"the engine does not answer ({type(error).__name__})") from error

        async def parts() -> AsyncIterator[bytes]:
            status: int | str = answer.status_code
            try:
                async for part in answer.aiter_raw():
                    yield part
            except httpx.HTTPError as error:
                status = f"broken off ({type(error).__name__})"
                raise  # the client sees an incomplete answer, not a complete one that is too short
            finally:
                await answer.aclose()
                _log(entry, begun, status)

        return StreamingResponse(parts(), answer.status_code, _passed_on(answer.headers))


def app(proxy: Proxy) -> Starlette:
    """The application around a proxy."""

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "elrea", "object": "model"}]})

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with proxy.client:
            yield

    routes = [Route(path, proxy.complete, methods=["POST"]) for path in PATHS]
    return Starlette(routes=[*routes, Route("/v1/models", models)], lifespan=lifespan)


async def _body(request: Request) -> dict[str, Any]:
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
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the request is not JSON") from error
    if isinstance(body, dict):
        return body
    raise Refused(400, "the request must be a JSON object")


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OF_CONNECTION}


def _error(status: int, message: str) -> dict[str, Any]:
    """An error as OpenAI's API writes it."""
    kind = "invalid_request_error" if status < 500 else "api_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def _log(entry: Mapping[str, Any], begun: float, status: int | str) -> None:
    """One JSON line on stdout; it has neither prompts nor headers."""
    now, taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.perf_counter() - begun
    line = {"time": now, **entry, "status": status, "seconds": round(taken, 4)}
    print(json.dumps(line), flush=True)
