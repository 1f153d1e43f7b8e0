"""What a run imports sooner or later, so that the processes of `commands` need not."""

import faiss  # noqa: F401
import hydra  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import pytorch_lightning  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.metrics  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import elrea.commands.job  # noqa: F401
