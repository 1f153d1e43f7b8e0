"""Opens a W&B run without console output, and without information about the user or the machine."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elrea.reporting.wandb.privacy import public


def prepare() -> bool:
    """Imports and silences wandb (about 2 s). Returns True, which callers with a time limit wait for."""
    # By default wandb sends its own crash reports, even offline; users can still switch them on.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    return True


def open_run(
    online: bool, folder: str | Path, config: Mapping[str, Any], patience: float, **names: Any
) -> Any:
    """Opens a new run, independent of other runs in this process.

    Args:
        online: Send data at once; otherwise only write it to the folder.
        folder: Parent of the `wandb` folder.
        config: Configuration of the run; secrets and absolute paths are hidden before it is logged.
        patience: Seconds that wandb may take to start and to finish.
        names: `project`, `entity`, `group`, `name`, `tags` of `wandb.init`.

    Returns:
        The `wandb.Run`.

    Raises:
        RuntimeError: Online without credentials. The user is not prompted.
        Exception: Anything that wandb raises.
    """
    import wandb

    if online and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("no API key, run `wandb login`")
    return wandb.init(
        mode="online" if online else "offline",
        # Not wandb's own id: it would be equal in jobs with one seed in one process, and WANDB_RUN_ID in the
        # environment would overwrite another run.
        id=secrets.token_hex(4),
        dir=str(Path(folder).resolve()),
        config=public(config),
        # Hydra's basic launcher runs several jobs in one process; each keeps its own run.
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            host="",  # the default is the name of the machine
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=patience,
            x_service_wait=patience,
            finish_timeout=patience,
            finish_timeout_raises=True,
        ),
        **names,
    )
