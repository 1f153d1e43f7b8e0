"""Runs one experiment: `python run.py +experiment=elrea_mmlu`; `python run.py --help` lists the choices."""

import hydra
from omegaconf import DictConfig

from elrea.cli import told


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    with told():  # in here as well: Hydra adds a line of its own to what a job raises
        from elrea.job import run

        run(config)


if __name__ == "__main__":
    with told():
        main()
