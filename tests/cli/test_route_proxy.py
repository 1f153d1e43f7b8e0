"""`elrea route-proxy`: requests reach the engine with the right adapter, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import route_proxy
from elrea.commands.proxy.addressing import Adapters, Form
from elrea.commands.proxy.together import Together
from elrea.errors import ConfigError, DataError, ElreaError, StoreError
from elrea.method.ensemble.ensemble import Ensemble, Route
from elrea.method.ensemble.routing_json import answering
from elrea.models.device import Device
from tests.cli.commands import Ended

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from elrea.commands.proxy.app import Proxy, app  # noqa: E402
from elrea.commands.proxy.http import LARGEST, passed_on  # noqa: E402

EXPERTS = ["expert-0", "expert-1"]
PROMPTS = [
    "Read, then answer. month of 6 / 9 / 2023?",
    "Who knows 3 + 4?",
    "Hi friends! 7 is what?",
]


class Engine(ThreadingHTTPServer):
    """An engine that says what it was asked, whole or in pieces; "slow", "broken" and "busy" make it fail."""

    daemon_threads = True
    request_queue_size = 200  # of connections that wait

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Engine)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(({k.lower(): v for k, v in self.headers.items()}, body))
        words = json.dumps(body)
        if "slow" in words:
            time.sleep(1.5)
        self.send_response(429 if "busy" in words else 200)
        self.send_header(
            "Content-Type", "text/event-stream" if body.get("stream") else "application/json"
        )
        for cookie in ("session=a", "second=b") if "cookie" in words else ():
            self.send_header("Set-Cookie", cookie)
        if body.get("stream"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"data: one\n\n", b"data: [DONE]\n\n"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                if "broken" in words:
                    return self.connection.shutdown(2)
                time.sleep(0.3)
            self.wfile.write(b"0\r\n\r\n")
        else:
            said = json.dumps({"said": body, "path": self.path}).encode()
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    server = Engine()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def ensemble(whole: Ended, small_model: Path) -> Ensemble:
    folder = whole.folder / "out" / "ensemble"
    return Ensemble.load(folder, backbone=str(small_model), device=Device("cpu", threads=1))


def served(ensemble: Ensemble, engine: str, form: Form, timeout: float = 30.0) -> Iterator[Any]:
    """A client of a proxy that listens on a free port."""
    files = EXPERTS if form == "experts" else ["base", *EXPERTS]
    made = app(Proxy(ensemble, engine, Adapters(form, files), timeout))
    server = uvicorn.Server(uvicorn.Config(made, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def by_name(ensemble: Ensemble, engine: Engine) -> Iterator[Any]:
    yield from served(ensemble, engine.address, "name")


def test_the_nearest_expert_is_named(by_name: Any, ensemble: Ensemble, engine: Engine) -> None:
    """As a text, whose tokens are sent, and as a chat; all else, its key included, reaches the engine as it was."""
    for prompt, route in zip(PROMPTS, ensemble.route(PROMPTS), strict=True):
        for path, asked in (
            ("/v1/completions", {"prompt": prompt}),
            ("/v1/completions", {"prompt": [prompt]}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}]}),
        ):
            body = {"model": "any", **asked, "temperature": 0.5, "stop": ["é"]}
            answer = by_name.post(path, json=body, headers={"Authorization": "Bearer k"})
            assert answer.status_code == 200
            said = answer.json()
            wanted = {**body, "model": f"expert-{route.nearest}"}
            if "prompt" in body:
                wanted["prompt"] = ensemble.backbone.tokenizer(prompt)["input_ids"]
            assert said == {"said": wanted, "path": path}
            assert engine.asked[-1][0]["authorization"] == "Bearer k"


@pytest.mark.parametrize("form", ["experts", "members"])
def test_adapters_get_scales(ensemble: Ensemble, engine: Engine, form: Form) -> None:
    """1 for the nearest expert; or the shares of MoE Routing (D.1), the base adapter's first."""
    (client,) = [next(serving := served(ensemble, engine.address, form))]
    for prompt, route in zip(PROMPTS, ensemble.route(PROMPTS), strict=True):
        said = client.post("/v1/completions", json={"prompt": prompt}).json()["said"]["lora"]
        scales = [one["scale"] for one in said]
        assert [one["id"] for one in said] == list(range(len(scales)))
        if form == "experts":
            assert scales == [float(n == route.nearest) for n in range(2)]
        else:
            weights = list(route.weights.values())
            expected = [weight / sum(weights) for weight in weights]
            assert scales == pytest.approx(expected, abs=1e-6), "of one prompt and of a batch"
    next(serving, None)


def test_pieces_are_passed_on_at_once(by_name: Any) -> None:
    pieces, times = [], []
    with by_name.stream(
        "POST", "/v1/completions", json={"prompt": "a b", "stream": True}
    ) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for piece in answer.iter_raw():
            pieces.append(piece)
            times.append(time.perf_counter())
    assert b"".join(pieces) == b"data: one\n\ndata: [DONE]\n\n"
    assert times[-1] - times[0] > 0.2, "the first piece did not wait for the last"


def test_a_broken_answer_is_not_a_short_one(
    by_name: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {"prompt": "a", "user": "broken", "stream": True}
    with (
        pytest.raises(httpx.HTTPError),
        by_name.stream("POST", "/v1/completions", json=asked) as it,
    ):
        list(it.iter_raw())
    assert "broken off" in capfd.readouterr().out


def test_what_cannot_be_answered_is_said(by_name: Any, ensemble: Ensemble, engine: Engine) -> None:
    before = len(engine.asked)
    for content, status, words in (
        (b"{", 400, "not JSON"), (b"[]", 400, "JSON object"), (b"{}", 400, "'prompt' must be one text"),
        (b'{"prompt": ["a", "b"]}', 400, "one text"), (b'{"prompt": " "}', 400, "empty"),
        (b"[" * 100_000, 400, "not JSON"), (b'{"prompt": "a", "temperature": NaN}', 400, "not JSON"),
        (b'{"prompt": "a", "user": "\\ud800"}', 400, "not UTF-8"),
        (b'{"prompt": "%s"}' % (b"a" * LARGEST), 413, "16 MiB"),
    ):  # fmt: skip
        answer = by_name.post("/v1/completions", content=content)
        error = answer.json()["error"]
        assert answer.status_code == error["code"] == status, error
        assert words in error["message"]
    assert len(engine.asked) == before, "none of these reached the engine"
    assert (
        by_name.post("/v1/chat/completions", json={"messages": [{"role": "who"}]}).status_code
        == 400
    )
    assert by_name.post("/v1/embeddings", json={"input": "a"}).status_code == 404
    assert by_name.get("/v1/models").json()["data"][0]["id"] == "elrea"
    busy = by_name.post("/v1/completions", json={"prompt": "a", "user": "busy"})
    assert busy.status_code == 429, "the engine's own"
    (client,) = [next(serving := served(ensemble, engine.address, "name", 1.0))]
    slow = client.post("/v1/completions", json={"prompt": "a", "user": "slow"})
    assert slow.status_code == 504 and "silent for 1 s" in slow.json()["error"]["message"]
    next(serving, None)


def test_an_engine_that_is_gone(ensemble: Ensemble) -> None:
    gone = Engine()
    gone.shutdown()
    gone.server_close()
    (client,) = [next(serving := served(ensemble, gone.address, "name"))]
    answer = client.post("/v1/completions", json={"prompt": "a b"})
    assert answer.status_code == 502 and "does not answer" in answer.json()["error"]["message"]
    next(serving, None)


def test_a_hundred_at_once(
    by_name: Any, ensemble: Ensemble, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every request gets its own answer, and a line that has neither its prompt nor its key."""
    prompts = [f"{PROMPTS[n % 3]} {n}" for n in range(100)]

    def ask(prompt: str) -> dict[str, Any]:
        said: dict[str, Any] = by_name.post(
            "/v1/completions", json={"prompt": prompt}, headers={"Authorization": "Bearer secret"}
        ).json()["said"]
        return said

    with ThreadPoolExecutor(100) as pool:
        said = list(pool.map(ask, prompts))
    assert [one["prompt"] for one in said] == ensemble.backbone.tokenizer(prompts)["input_ids"]
    assert [one["model"] for one in said] == [
        f"expert-{r.nearest}" for r in ensemble.route(prompts)
    ]
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(lines) == 100
    assert {frozenset(line) for line in lines} == {
        frozenset(("time", "path", "nearest", "routed_s", "status", "seconds"))
    }
    assert all(line["status"] == 200 and line["seconds"] >= line["routed_s"] > 0 for line in lines)


def test_clients_share_no_cookies_and_no_proxy_of_this_machine(
    by_name: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine sets for one client is not sent for the next; two cookies stay two."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    alice = by_name.post("/v1/completions", json={"prompt": "a", "user": "cookie"})
    assert alice.status_code == 200
    assert alice.headers.get_list("set-cookie") == ["session=a", "second=b"]
    by_name.cookies.clear()
    bob = by_name.post("/v1/completions", json={"prompt": "b"}, headers={"Accept-Encoding": ""})
    assert bob.status_code == 200 and "cookie" not in engine.asked[-1][0]


def test_headers_of_one_connection_stay_there() -> None:
    given = [
        (b"Connection", b"close, X-Hop"),
        (b"X-Hop", b"1"),
        (b"Expect", b"100-continue"),
        (b"X-Id", b"7"),
        (b"x-id", b"8"),
    ]
    assert passed_on(given) == [(b"x-id", b"7"), (b"x-id", b"8")]


def test_a_gate_says_who_answers() -> None:
    """Where dev keeps an expert out the trunk answers, which may be the wide adapter behind the base adapter."""
    members = ["base", "expert-0", "expert-1", "expert-2"]
    gate = {"class": "GatedExperts", "serves": [1]}
    facts = {"members": members, "router": {"class": "Router"}}
    assert answering(facts) == members[1:]
    assert answering({**facts, "strategy": gate}) == ["base", "expert-1", "base"]
    rated = ["expert-x0.5-0", "expert-x0.5-1", "expert-x0.5-2"]
    found = answering({**facts, "members": [*members, *rated], "strategy": {**gate, "rate": 0.5}})
    assert found == ["base", "expert-x0.5-1", "base"]
    wide = ["base", "parameter-matched", *members[1:]]
    found = answering({**facts, "members": wide, "strategy": {**gate, "trunk": "wide"}})
    assert [name.startswith("parameter-matched") for name in found] == [True, False, True]
    route = Route({"parameter-matched": 1.0, "expert-0": 0.0}, [0.4, 0.1], 0)
    sent = Adapters("name", wide).addressed({"a": 1}, route)
    assert sent == {"a": 1, "model": "parameter-matched"}
    sent = Adapters("members", [*members[:2], "parameter-matched"]).addressed({}, route)
    assert [one["scale"] for one in sent["lora"]] == [0.0, 0.0, 1.0], "by the files' order"
    with pytest.raises(DataError, match="parameter-matched answers this prompt, and the engine"):
        Adapters("experts", members[1:]).addressed({}, route)
    arrow = {"class": "Arrow"}
    assert answering({**facts, "strategy": arrow}) == []


def test_an_engine_with_one_adapter_for_each_cluster() -> None:
    """Experts without base adapter and trunk, or the members of an adapter that clusters steer."""
    experts = ["expert-0", "expert-1"]
    for members in (["base", *experts], ["base", *experts, "parameter-matched"]):
        assert route_proxy.experts_of(members, experts) == experts
    steered = ["steered-0", "steered-1"]  # the base adapter is none of its members
    assert route_proxy.experts_of(steered, steered) == steered
    with pytest.raises(ConfigError, match="experts: base answers where dev keeps an expert out"):
        route_proxy.experts_of(["base", *experts], ["base", "expert-1"])


@pytest.mark.parametrize(
    "strategy",
    [
        {"class": "GatedExperts"},
        {"class": "GatedExperts", "serves": [7]},
        {"class": "Elrea", "top_k": 0},
        {"class": "Elrea"},
        {"class": "Oracle"},
        {"class": "os.system"},
        {"class": "os.system@0"},
        [],
    ],
)
def test_a_strategy_that_no_ensemble_answers_by_is_one_line(strategy: object) -> None:
    facts = {"members": ["base", "expert-0"], "router": {"class": "Router"}, "strategy": strategy}
    with pytest.raises(StoreError, match=r"^ensemble\.json: "):
        answering(facts)
    with pytest.raises(StoreError, match=r"^ensemble\.json: not in the form"):
        answering({})


def test_what_arrives_together_is_computed_together() -> None:
    """Batches are bounded, each gets its own result, and an error is that of the one that has it."""
    batches: list[list[int]] = []

    def compute(batch: Sequence[int]) -> list[int]:
        batches.append(list(batch))
        time.sleep(0.05)
        if 7 in batch:
            raise ElreaError("seven")
        return [number * number for number in batch]

    async def all_at_once() -> list[int | BaseException]:
        square = Together(compute, 4)
        return await asyncio.gather(*(square(n) for n in range(10)), return_exceptions=True)

    found = asyncio.run(all_at_once())
    assert [str(one) for one in found] == [str(n * n) if n != 7 else "seven" for n in range(10)]
    whole = [batch for batch in batches if len(batch) > 1]
    assert max(map(len, whole)) <= 4 and len(whole) <= 4


def test_who_leaves_takes_nobody_along() -> None:
    """The first of a batch is cancelled while it is computed, and another fails unforeseen."""

    def compute(batch: Sequence[int]) -> list[int]:
        time.sleep(0.1)
        if 9 in batch:
            raise RuntimeError("a bug")
        return list(batch)

    async def leaves() -> list[int | BaseException]:
        same = Together(compute, 3)
        calls = [asyncio.create_task(same(n)) for n in (1, 2, 3, 9, 4)]
        await asyncio.sleep(0.03)
        calls[0].cancel()
        return await asyncio.gather(*calls[1:], same(5), same(6), return_exceptions=True)

    two, three, nine, *others = asyncio.run(leaves())
    assert (two, three, others) == (2, 3, [4, 5, 6]) and isinstance(nine, RuntimeError)


def test_a_member_keeps_its_name_unless_another_is_given() -> None:
    route = Route({"base": 0.2, "expert-1": 0.8}, [0.1, 0.9], 1)
    for words, name in (([], "expert-1"), (["--name", "my-{}"], "my-expert-1")):
        given = route_proxy._parser().parse_args(["run", "--engine", "http://a", *words])
        assert Adapters("name", name=given.name).addressed({}, route) == {"model": name}


def test_bad_arguments_are_one_line(whole: Ended, tmp_path: Path) -> None:
    out = str(whole.folder / "out")
    for words, said in (
        ([out, "--engine", "localhost:8000"], "must begin with http:// or https://"),
        ([out, "--engine", "http://a", "--name", "expert"], "needs {} once"),
        ([out, "--engine", "http://a", "--name", "{0}"], "needs {} once"),
        ([out, "--engine", "http://a", "--port", "0"], "must be 1 to 65535"),
        ([out, "--engine", "http://a", "--timeout", "nan"], "above 0 and finite"),
        ([str(tmp_path), "--engine", "http://a"], "ensemble"),
    ):
        with pytest.raises(ElreaError) as error:
            route_proxy.main(words)
        assert said in str(error.value) and "\n" not in str(error.value)
