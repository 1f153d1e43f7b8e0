"""Puts conf/ into the wheel, as elrea/conf; pyproject.toml has everything else."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONF = Path("conf")


class BuildWithConf(build_py):
    """Copies the config files into the package; an editable install reads those of the clone."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        shutil.rmtree(
            self._folder, ignore_errors=True
        )  # an earlier build may have left other files
        for source, copy in self._copies():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        copies = [] if self.editable_mode else [str(copy) for _, copy in self._copies()]
        return [*super().get_outputs(include_bytecode), *copies]

    @property
    def _folder(self) -> Path:
        return Path(self.build_lib) / "elrea" / CONF

    def _copies(self) -> list[tuple[Path, Path]]:
        return [(p, self._folder / p.relative_to(CONF)) for p in sorted(CONF.rglob("*.yaml"))]


setup(cmdclass={"build_py": BuildWithConf})
