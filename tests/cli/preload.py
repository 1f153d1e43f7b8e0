"""What a run imports sooner or later, so that the processes of `commands` need not."""

import multiprocessing
import pkgutil
from importlib import import_module

import elrea
from elrea.models import processes

OTHERS = (
    "faiss", "hydra.main", "hydra_plugins.hydra_joblib_launcher.joblib_launcher",
    "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper", "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
    "matplotlib.backends.backend_agg", "matplotlib.pyplot", "pytorch_lightning", "scipy.stats", "sklearn.decomposition",
    "sklearn.metrics", "transformers.models.llama.modeling_llama",
)  # fmt: skip
NOT_INSTALLED = ("elrea.commands.lm_eval_model",)
"""Modules that need a package which the tests do without."""

# The processes that a run starts itself are forked too, from one of its own that imports the same.
processes.START = "forkserver"
multiprocessing.set_forkserver_preload([__name__])
for name in OTHERS:
    import_module(name)
for module in pkgutil.walk_packages(elrea.__path__, "elrea."):
    if not module.name.endswith("__main__") and module.name not in NOT_INSTALLED:
        import_module(module.name)
