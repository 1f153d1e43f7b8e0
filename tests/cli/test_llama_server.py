"""`elrea route-proxy` before llama.cpp's own server: the engine's greedy texts are the ensemble's.

The package xllamacpp has the server in it (`pip install xllamacpp`, 34 MB) and starts it in this process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import elrea.models.tiny
from elrea.commands import export
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble, Route
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from elrea.models.device import Device
from tests.cli.commands import QUIET, TINY, Ended, run

xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp (the package xllamacpp) is not installed")  # fmt: skip
httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("gguf")

from tests.cli.test_proxy_prompts import CHATS, plain_template, plain_text  # noqa: E402
from tests.cli.test_route_proxy import EXPERTS, served  # noqa: E402
from tests.models.gguf_backbone import write_backbone  # noqa: E402

TEMPLATE = """{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"""
LENGTH = 20
CHAT = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Yes?"), ("user", "Count from 4.")]
PROMPTS: list[Any] = [
    "Count to five from 9.", "Letters after c, please, in order: ", "What is 3 + 4?", "Grüß Gott <b>",
    {"messages": [{"role": role, "content": content} for role, content in CHAT]},
]  # fmt: skip


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, with a chat template."""
    folder = tmp_path_factory.mktemp("models") / "chatting"
    shutil.copytree(Path(elrea.models.tiny.__file__).parent / "weights", folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def trained(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run whose two experts write different things."""
    folder, letters = tmp_path_factory.mktemp("trained"), "abcdefghijklmnop"
    rows = [
        row
        for n in range(7)
        for row in (
            (f"Count to five from {n}.", " ".join(str(n + i) for i in range(1, 6))),
            (f"Letters after {letters[n]}, please, in order:", " ".join(letters[n + 1 : n + 6])),
        )
    ]
    for name, part in (("train", rows[:12]), ("test", rows[12:])):
        lines = [json.dumps({"prompt": prompt, "response": answer}) for prompt, answer in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    ended = run(
        folder, *TINY, QUIET, f"backbone.name={backbone}", "data=jsonl", f"data.train={folder}/train.jsonl",
        f"data.test={folder}/test.jsonl", "clustering.min_size=2", "training.batch_size=4", "training.epochs=1",
        "training.learning_rate=0.01", "training.expert_learning_rate=0.01", "evaluation.strategies=[elrea]",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    return ended


@pytest.fixture(scope="module")
def load(trained: Ended, backbone: Path) -> Callable[..., Ensemble]:
    folder, device = trained.folder / "out" / "ensemble", Device("cpu", threads=1)
    return lambda **how: Ensemble.load(folder, backbone=str(backbone), device=device, **how)


@pytest.fixture(scope="module")
def ensemble(load: Callable[..., Ensemble]) -> Ensemble:
    return load()


@pytest.fixture(scope="module")
def alone(load: Callable[..., Ensemble]) -> Ensemble:
    """Answers by the nearest expert alone."""
    return load(top_k=1, base_share=False)


@pytest.fixture(scope="module")
def routes(ensemble: Ensemble) -> list[Route]:
    return ensemble.route(PROMPTS)


@pytest.fixture(scope="module")
def model(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone for llama.cpp."""
    return write_backbone(backbone, tmp_path_factory.mktemp("model") / "backbone.gguf")


@pytest.fixture(scope="module")
def loras(trained: Ended, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All members for llama.cpp."""
    folder = tmp_path_factory.mktemp("files") / "lora"
    export.main([str(trained.folder / "out"), "--to", str(folder), "--as", "gguf"])
    return folder


def started(model: Path, *loras: Path, template: str | None = None) -> Any:
    """llama-server with these adapters, on a free port; it ends when it is deleted."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(model)
    settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 1.0) for path in loras]
    settings.lora_init_without_apply = True
    settings.n_parallel, settings.n_ctx, settings.port, settings.verbosity = 4, 4 * 256, 0, 0
    settings.warmup = False
    if template:
        settings.chat_template = template
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(settings)


@pytest.fixture(scope="module")
def experts(model: Path, loras: Path, ensemble: Ensemble) -> Iterator[Any]:
    """A client of the proxy before a server that has loaded the experts."""
    engine = started(model, *(loras / f"{name}.gguf" for name in EXPERTS))
    yield from served(ensemble, engine.listening_address, "experts")


def asked(prompt: Any) -> list[tuple[str, dict[str, Any]]]:
    """The requests that ask this, by each path that can."""
    chat = prompt if isinstance(prompt, Mapping) else {"messages": [{"role": "user", "content": prompt}]}  # fmt: skip
    both = [("/v1/chat/completions", dict(chat)), ("/v1/completions", {"prompt": prompt})]
    return both[:1] if isinstance(prompt, Mapping) else both


def text_of(choice: Mapping[str, Any]) -> str:
    message = choice.get("message") or choice.get("delta")
    return str(choice["text"] if message is None else message.get("content") or "")


def answered(client: Any, path: str, body: Mapping[str, Any], stream: bool = False) -> str:
    """The text of a greedy answer, whole or put together from its pieces."""
    settings = {"max_tokens": LENGTH, "temperature": 0, "stream": stream}
    answer = client.post(path, json={**body, **settings})
    assert answer.status_code == 200, answer.text
    if not stream:
        return text_of(answer.json()["choices"][0])
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]" and lines
    return "".join(text_of(json.loads(line)["choices"][0]) for line in lines)


def texts(ensemble: Ensemble, routes: list[Route]) -> list[str]:
    return ensemble.generate(PROMPTS, Decoding(max_new_tokens=LENGTH), routes=routes)


def test_the_nearest_expert_writes_what_the_ensemble_does(
    experts: Any, alone: Ensemble, routes: list[Route]
) -> None:
    """As a prompt and as a chat, whole and in pieces."""
    assert {route.nearest for route in routes} == {0, 1}
    wanted = texts(alone, alone.route(PROMPTS))
    other = [
        replace(r, weights={"base": 0.0, **{e: float(e != EXPERTS[r.nearest]) for e in EXPERTS}})
        for r in routes
    ]
    differs = [one != two for one, two in zip(wanted, texts(alone, other), strict=True)]
    assert sum(differs) >= 4, "otherwise a wrong expert would not be seen"
    for prompt, text in zip(PROMPTS, wanted, strict=True):
        for path, body in asked(prompt):
            for stream in (False, True):
                assert answered(experts, path, body, stream) == text, (path, body)


def test_twenty_at_once(experts: Any, alone: Ensemble) -> None:
    """Each gets its own expert's text, although the engine computes them together and keeps what they begin with."""
    each = zip(PROMPTS, texts(alone, alone.route(PROMPTS)), strict=True)
    all_ = [(path, body, text) for prompt, text in each for path, body in asked(prompt)]
    requests = [(*all_[n % len(all_)], n % 3 == 0) for n in range(20)]
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda r: answered(experts, r[0], r[1], r[3]), requests))
    assert found == [text for _, _, text, _ in requests]


def test_all_members_write_what_moe_routing_does(
    model: Path, loras: Path, ensemble: Ensemble, load: Callable[..., Ensemble], routes: list[Route], alone: Ensemble
) -> None:  # fmt: skip
    """Mixed inside the layers (D.1); then the engine is gone."""
    mixed = Ensemble(ensemble.saved, load().backbone, MoeRouting())
    wanted = texts(mixed, mixed.route(PROMPTS))
    assert wanted != texts(alone, alone.route(PROMPTS)), "otherwise one adapter would not be seen"
    engine = started(model, *(loras / f"{name}.gguf" for name in ("base", *EXPERTS)))
    (client,) = [next(serving := served(ensemble, engine.listening_address, "members"))]
    for prompt, text in zip(PROMPTS, wanted, strict=True):
        for path, body in asked(prompt):
            assert answered(client, path, body) == text, (path, body)
    del engine
    gone = client.post("/v1/completions", json={"prompt": "a"})
    assert gone.status_code == 502 and "does not answer" in gone.json()["error"]["message"]
    next(serving, None)


def test_llama_server_applies_the_docs_template(model: Path) -> None:
    """For a run without a chat template."""
    engine = started(model, template=plain_template())
    for chat in CHATS:
        answer = httpx.post(f"{engine.listening_address}/apply-template", json={"messages": chat})
        assert answer.json()["prompt"] == plain_text(chat)
