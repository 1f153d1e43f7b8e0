"""What Hydra 1.4 wants otherwise than 1.3; `make test-pre` runs the whole suite with it, CI a few files."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from elrea import plugins
from elrea.commands.run import mode_of_experiment
from elrea.pipeline.hydra_base import hydra_base, trusted
from tests.cli.commands import ROOT

CONF = ROOT / "conf"


def test_each_version_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_named", {"mypkg": None})
    monkeypatch.setattr(hydra, "__version__", "1.3.8")
    assert (hydra_base(), trusted()) == ({"version_base": "1.3"}, {})
    monkeypatch.setattr(hydra, "__version__", "1.4.0rc3")
    assert hydra_base() == {}
    ((name, allowed),) = trusted().items()
    config = OmegaConf.load(CONF / "config.yaml")
    built = [callback._target_ for callback in config.hydra.callbacks.values()]
    assert name == "execution_whitelist" and {*built, "mypkg.*"} <= {*allowed}


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_mode_of_an_experiment_is_found(path: Path) -> None:
    sweeps = OmegaConf.select(OmegaConf.load(path), "hydra.mode") == "MULTIRUN"
    wanted = ["hydra.mode=MULTIRUN"] if sweeps else []
    assert mode_of_experiment(["seed=1", f"+experiment={path.stem}"], CONF) == wanted


def test_what_is_typed_decides(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("hydra:\n  mode: MULTIRUN\n")
    typed = "+experiment=[elrea_mmlu,mine]"
    found = ["hydra.mode=MULTIRUN"]
    for words in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"], ["-cd", str(tmp_path)]):  # fmt: skip
        assert mode_of_experiment([*words, typed], CONF) == found
    assert mode_of_experiment([typed], CONF) == []
    for word in ("-m", "hydra.mode=RUN", "++hydra.mode=RUN"):
        assert mode_of_experiment([word, "+experiment=rank"], CONF) == []
