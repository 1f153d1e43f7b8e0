"""Runs one experiment: `python run.py +experiment=elrea_mmlu`; `python run.py --help` lists the choices."""

import hydra
from omegaconf import DictConfig

from elrea.cli import guarded


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    from elrea.job import run

    run(config)


if __name__ == "__main__":
    guarded(main)
