"""Runs one experiment: `python run.py +experiment=elrea_mmlu`; `python run.py --help` lists the choices."""

import hydra
from omegaconf import DictConfig

import elrea.commands.sweep  # noqa: F401  # ${sweep_folder:} of conf/config.yaml
from elrea.commands.messages import told


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    with told():  # in here as well: Hydra adds a line of its own to what a job raises
        from elrea.commands.job import run

        return run(config)


if __name__ == "__main__":
    with told():
        main()
