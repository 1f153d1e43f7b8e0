"""What a run imports sooner or later, so that the processes of `commands` need not."""

import multiprocessing
import os
import pkgutil
from importlib import import_module

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import elrea
from elrea.models import processes

OTHERS = (
    "faiss", "hydra.main", "hydra_plugins.hydra_joblib_launcher.joblib_launcher",
    "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper", "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
    "matplotlib.backends.backend_agg", "matplotlib.pyplot", "peft", "pytorch_lightning", "scipy.stats",
    "sklearn.decomposition", "sklearn.metrics", "transformers.models.llama.modeling_llama",
)  # fmt: skip
NOT_INSTALLED = ("elrea.commands.lm_eval_model",)
"""Modules that need a package which the tests do without."""

os.fsync = lambda fd: None  # as in tests/conftest.py
# The processes that a run starts itself are forked too, from one of its own that imports the same.
processes.START = "forkserver"
multiprocessing.set_forkserver_preload([__name__])
for name in OTHERS:
    import_module(name)
for module in pkgutil.walk_packages(elrea.__path__, "elrea."):
    if not module.name.endswith("__main__") and module.name not in NOT_INSTALLED:
        import_module(module.name)
get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns, once a process
