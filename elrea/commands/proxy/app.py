"""The application of `elrea route-proxy`: an OpenAI-compatible proxy that names the adapter in each request."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from elrea.commands.proxy.http import Refused, body_of, error, log_request, passed_on
from elrea.commands.proxy.prompts import Prompts, prompt_of
from elrea.commands.proxy.together import Together
from elrea.errors import ElreaError

if TYPE_CHECKING:
    from elrea.commands.proxy.addressing import Adapters
    from elrea.method.ensemble.ensemble import Ensemble

PATHS = ("/v1/chat/completions", "/v1/completions")
TOGETHER = 16
"""Requests that are routed in one pass at most."""


class Proxy:
    """Routes requests and passes them on.

    Args:
        ensemble: Whose router is used.
        engine: Address of the engine, without a slash at its end.
        adapters: How a request names its adapters.
        timeout: Longest silence of the engine, in seconds.
    """

    def __init__(self, ensemble: Ensemble, engine: str, adapters: Adapters, timeout: float) -> None:
        self._engine, self._adapters, self._timeout = engine, adapters, timeout
        self._prompts = Prompts(ensemble)
        self._route = Together(self._prompts.routed, TOGETHER)
        patience, limits = httpx.Timeout(timeout, connect=10.0), httpx.Limits(max_connections=None)
        # Neither cookies nor this machine's settings of proxies and passwords come between client and engine.
        jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.client = httpx.AsyncClient(
            timeout=patience, limits=limits, trust_env=False, cookies=jar
        )

    async def complete(self, request: Request) -> Response:
        """The engine's answer, or an error."""
        begun, entry = time.perf_counter(), dict[str, Any](path=request.url.path)
        try:
            body = await body_of(request)
            weights, ids = await self._route(prompt_of(request.url.path, body))
            entry |= {"nearest": weights.nearest, "routed_s": round(time.perf_counter() - begun, 4)}
            sent = self._adapters.addressed(
                self._prompts.worded(request.url.path, body, ids), weights
            )
            return await self._forward(request, sent, begun, entry)
        except ClientDisconnect:
            refused = Refused(499, "the client is gone")
        except Refused as found:
            refused = found
        except ElreaError as found:
            refused = Refused(400, str(found))
        except Exception:
            logging.getLogger(__name__).exception("a request failed")
            refused = Refused(500, "the proxy failed; its log says why")
        log_request(entry, begun, refused.status)
        return JSONResponse(error(refused.status, str(refused)), refused.status)

    async def _forward(
        self, request: Request, body: Mapping[str, Any], begun: float, entry: dict[str, Any]
    ) -> Response:
        headers = passed_on(request.headers.raw)
        if "accept-encoding" not in request.headers:
            # Else httpx asks for what the client cannot read.
            headers.append((b"accept-encoding", b"identity"))
        url = self._engine + request.url.path
        try:
            sent = self.client.build_request("POST", url, headers=headers, json=body)
        except ValueError as found:
            raise Refused(400, "the request is not UTF-8 text") from found
        try:
            answer = await self.client.send(sent, stream=True)
        except httpx.TimeoutException as found:
            raise Refused(504, f"the engine was silent for {self._timeout:g} s") from found
        except httpx.HTTPError as found:
            raise Refused(502, f"the engine does not answer ({type(found).__name__})") from found

        async def parts() -> AsyncIterator[bytes]:
            status: int | str = answer.status_code
            try:
                async for part in answer.aiter_raw():
                    yield part
            except httpx.HTTPError as found:
                status = f"broken off ({type(found).__name__})"
                raise  # the client sees an incomplete answer, not a complete one that is too short
            finally:
                await answer.aclose()
                log_request(entry, begun, status)

        response = StreamingResponse(parts(), answer.status_code)
        response.raw_headers = passed_on(answer.headers.raw)
        return response


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
