"""Every reader of files that a user, another machine or another program may have written, with a file it accepts."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

from elrea.commands.predict import read_prompts
from elrea.commands.store import listed_below
from elrea.config import build
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.mmlu import read_csv
from elrea.errors import ElreaError
from elrea.method.ensemble.ensemble_folder import read_ensemble, save_ensemble
from elrea.method.features.to_disk import create, open_features
from elrea.method.routing import student
from elrea.method.routing.distilled import Distilled
from elrea.models import lora
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import Pretrained
from elrea.models.training.checkpoint import Checkpoint
from elrea.models.training.moments import Moments
from elrea.reporting.sweep_report import seed_means
from elrea.reporting.sweeps import as_csv, read_jobs, setting_keys, varied_values
from elrea.store.files import read_json, sha256, with_checksum
from elrea.store.lock import read_lease
from elrea.store.stage import Store
from elrea.store.uses import RECORDS, recorded_uses
from tests.fuzz.mutations import broken
from tests.small_models import small_llama


@dataclass(frozen=True)
class Reader:
    """What reads, and what it is given.

    Attributes:
        name: For the report.
        file: Which file is changed, in a folder that `make` fills.
        make: Fills the folder.
        read: Reads it.
        mend: Called after the change: brings checksums up to date, so that what is behind them is reached.
    """

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    mend: Callable[[Path], object] = lambda _folder: None


def prepare(reader: Reader, home: Path) -> tuple[Path, Path]:
    """A folder as it should be, and one to be changed; the reader accepts it."""
    name = "ensemble" if "ensemble" in reader.name else "it"
    whole, folder = home / "whole" / name, home / "tried" / name
    for place in (whole, folder):
        place.mkdir(parents=True)
        reader.make(place)
    reader.mend(folder)
    reader.read(folder)
    return whole, folder


def attempt(reader: Reader, whole: Path, folder: Path, data: st.DataObject) -> bool:
    """Changes the file and reads it; whether it was taken. Anything but an ElreaError of one line is a fault."""
    path = folder / reader.file
    content = (whole / reader.file).read_bytes()
    path.write_bytes(data.draw(broken(content, path.suffix in (".json", ".jsonl"))))
    try:
        reader.mend(folder)
        reader.read(folder)
    except ElreaError as error:
        assert str(error) and "\n" not in str(error), repr(error)[:3000]
        return False
    finally:
        for name in (reader.file, "ensemble.json"):
            if (whole / name).exists():
                shutil.copyfile(whole / name, folder / name)
    return True


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


ROWS = "\n".join(
    json.dumps(row)
    for row in (
        {"instruction": "Add 1 and 2.", "input": "", "output": "3", "source": "sums"},
        {"prompt": "Say é.", "completion": "é"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        {"instruction": "Which?", "choices": ["a", "b"], "answer": 1, "category": "x"},
    )
)
FORMS = json.dumps([
    {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]},
    {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}], "system": "Be kind."},
    {"instruction": "Hi 0", "output": "Hello", "history": [["a", "b"]]},
    {"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
    {"ctx": "A man", "endings": ["x", "y"], "label": "1"},
    {"instruction": "Add.", "instances": [{"input": "1", "output": "2"}, {"input": "2", "output": "3"}]},
], indent=1)  # fmt: skip
TABLE = 'instruction,input,output\n"Add, please.",1 and 2,3\n"Two ""lines""\nhere",,so\nWhy?,,é\n'
PROMPTS = '{"prompt": "Say one.", "id": "a"}\n{"instruction": "Which?", "input": "x", "choices": ["a", "b"]}'
CSV = 'What is 1+1?,1,2,3,4,B\n"Two lines\nhere, and a ""quote""",a,b,c,d,A\n'
HOLDER = {"host": ["elsewhere", "", 0], "pid": 7, "started": "1", "token": "f" * 16}


def _adapter(folder: Path) -> None:
    tensors = {
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight": torch.ones(shape)
        for half, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    lora.save(folder, tensors, Lora(r=2), "small")


def _moments(folder: Path) -> None:
    first, second = {"a": torch.ones(3)}, {"a": torch.ones(3)}
    Moments(first, second, step=3, learning_rate=0.1, betas=(0.9, 0.99), eps=1e-8).save(folder)


def _checkpoint(folder: Path) -> None:
    group = {"lr": 0.1, "betas": (0.9, 0.999), "param_names": ["a"], "params": [0]}
    state = {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}
    optimizer = {"state": state, "param_groups": [group]}
    progress = {"curve": [], "epochs": {}, "plan": ""}
    Checkpoint({"a": torch.ones(2)}, optimizer, progress).save(folder / "step")


def _stage(folder: Path) -> None:
    Store(folder).stage("base", 1, {}).run(lambda work: (work / "a.bin").write_bytes(b"abc"))  # type: ignore[arg-type]


STAGE = Store(Path("x")).stage("base", 1, {}).folder.relative_to(Path("x").absolute()).as_posix()


def _ensemble(folder: Path) -> None:
    made = folder.parent / f"{folder.name}-parts"
    small_llama(made / "model")
    _adapter(made / "epoch_1")
    _moments(made / "epoch_1")
    (made / "adapters").mkdir()
    for name in ("base", "expert-0"):
        _adapter(made / "adapters" / name)
    backbone = Pretrained(name=str(made / "model"))
    described = {
        "class": "GradientFeatures",
        "projection": {"class": "Rademacher", "d": 4, "seed": 0},
    }
    facts = {
        "backbone": {"name": "model", "fingerprint": backbone.identity(), "max_length": 64},
        "features": described, "router": {"class": "Router", "temperature": 1.0}, "use_chat_template": None,
    }  # fmt: skip
    adapters = {name: made / "adapters" / name for name in ("base", "expert-0")}
    card = {"backbone": "b", "clusters": 1, "data": "d", "rows": "", "note": ""}
    save_ensemble(folder, adapters, [made / "epoch_1"], torch.ones(1, 4), facts, card)


def _reseal(folder: Path) -> None:
    """Lists the files as they now are."""
    path = folder / "ensemble.json"
    facts = read_json(path)
    if isinstance(facts, dict):
        if isinstance(facts.get("files"), dict):
            there = {
                name: folder / name
                for name in facts["files"]
                if "\0" not in name and len(name) < 200
            }
            facts["files"] |= {n: sha256(p) for n, p in there.items() if p.is_file()}
        path.write_text(json.dumps(with_checksum(facts)), encoding="utf-8")


def _read_ensemble(folder: Path) -> object:
    found = read_ensemble(folder, str(folder.with_name("ensemble-parts") / "model"))
    for member in ("base", "expert-0"):
        lora.load(folder / member)
    return [Moments.load(epoch) for epoch in found.epochs]


def _record(folder: Path) -> None:
    (folder / RECORDS).mkdir()
    record = {
        "run": str(folder / "out"),
        "host": socket.gethostname(),
        "stages": {"base": "0" * 16},
    }
    (folder / RECORDS / "0.json").write_text(json.dumps(record))


def _jobs(folder: Path) -> None:
    (folder / "0").mkdir()
    summary = folder / "0" / "summary.json"
    scores = {
        "accuracy": 0.5,
        "delta_to_base": None,
        "forward_passes": 2.0,
        "ci95": [0.4, 0.6],
        "n": 10,
    }
    summary.write_text(
        json.dumps({"strategies": {"base": scores}, "stages": {"base": {"key": "0" * 16}}})
    )
    job = {"words": ["seed=1", "clustering.k=2"], "chosen": "base", "seconds": 1.5, "state": "done"}
    (folder / "0" / "status.json").write_text(json.dumps({**job, "summary.json": sha256(summary)}))


def _read_jobs(folder: Path) -> object:
    jobs = read_jobs(folder)
    return as_csv(jobs), varied_values(jobs), setting_keys(varied_values(jobs)), seed_means(jobs)


def _vouch(folder: Path) -> None:
    """status.json knows the summary as it now is."""
    path = folder / "0" / "status.json"
    path.write_text(
        json.dumps(
            {**json.loads(path.read_text()), "summary.json": sha256(path.with_name("summary.json"))}
        )
    )


def _features(folder: Path) -> None:
    create(folder / "features.safetensors", 3, 4, "F32")


def _router(folder: Path) -> None:
    student.save(folder, student.Student(6, 2, 3), Distilled(), {})


def _read_model(folder: Path) -> object:
    model = Pretrained(name=str(folder / "model"))
    return model.identity(), model.length()


def _node(folder: Path) -> object:
    told = read_json(folder / "node.json")
    if not isinstance(told, dict):
        return None
    return build(told, "features")


NODE = json.dumps({
    "_target_": "elrea.method.features.gradient.GradientFeatures", "batch_size": 4,
    "projection": {"_target_": "elrea.method.features.projection.Rademacher", "d": 16, "seed": 1},
})  # fmt: skip


def _read_features(folder: Path) -> object:
    return np.asarray(open_features(folder / "features.safetensors")).sum()


def _read_checkpoint(folder: Path) -> object:
    return Checkpoint.load(folder / "step")


def _read_stage(folder: Path) -> object:
    return Store(folder).stage("base", 1, {}).done()


def _read_rows(folder: Path) -> object:
    (file,) = (path for path in folder.iterdir() if path.name.startswith("a."))
    dropping = Jsonl(train=str(file), test_share=0.5, bad_rows="drop")
    try:
        return Jsonl(train=str(file), test_share=0.5).load()
    except ElreaError:
        dropping.load()
        raise


MANIFEST = f"{STAGE}/manifest.json"
CENTROIDS, EPOCH = "routing/centroids.safetensors", "routing/epoch_1/moments.json"
READERS = [
    Reader("jsonl data", "a.jsonl", _write("a.jsonl", ROWS), _read_rows),
    Reader("json data", "a.json", _write("a.json", FORMS), _read_rows),
    Reader("csv data", "a.csv", _write("a.csv", TABLE), _read_rows),
    Reader("mmlu data", "a.csv", _write("a.csv", CSV), lambda f: read_csv(f / "a.csv", "s", "dev")),
    Reader("prompts", "a.jsonl", _write("a.jsonl", PROMPTS), lambda f: read_prompts(f / "a.jsonl")),
    Reader(
        "json", "a.json", _write("a.json", json.dumps(HOLDER)), lambda f: read_json(f / "a.json")
    ),
    Reader(
        "lease",
        "a.lease",
        _write("a.lease", json.dumps(HOLDER)),
        lambda f: read_lease(f / "a.lease"),
    ),
    Reader("config node", "node.json", _write("node.json", NODE), _node),
    Reader("adapter config", "adapter_config.json", _adapter, lora.load),
    Reader("adapter weights", "adapter_model.safetensors", _adapter, lora.load),
    Reader("moments", "moments.json", _moments, Moments.load),
    Reader("moments' tensors", "moments.safetensors", _moments, Moments.load),
    Reader("checkpoint", "step/state.json", _checkpoint, _read_checkpoint),
    Reader("checkpoint's tensors", "step/optimizer.safetensors", _checkpoint, _read_checkpoint),
    Reader("features", "features.safetensors", _features, _read_features),
    Reader("router", "router.safetensors", _router, student.load),
    Reader("manifest", MANIFEST, _stage, _read_stage),
    Reader("ensemble.json", "ensemble.json", _ensemble, _read_ensemble, _reseal),
    Reader(
        "ensemble's adapter", "expert-0/adapter_config.json", _ensemble, _read_ensemble, _reseal
    ),
    Reader("ensemble's moments", EPOCH, _ensemble, _read_ensemble, _reseal),
    Reader("ensemble's centroids", CENTROIDS, _ensemble, _read_ensemble, _reseal),
    Reader("job", "0/status.json", _jobs, _read_jobs),
    Reader("job's summary", "0/summary.json", _jobs, _read_jobs, _vouch),
    Reader("runs' stages", "0/summary.json", _jobs, lambda f: list(listed_below([f]))),
    Reader(
        "run's record", "runs/0.json", _record, lambda f: [use.gone for use in recorded_uses(f)]
    ),
    Reader("model config", "model/config.json", lambda f: small_llama(f / "model"), _read_model),
]
"""By name."""
