"""How a W&B run is opened: quickly, silently, and without telling whose machine this is."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elrea.reporting.wandb.privacy import public


def prepare() -> bool:
    """Imports and silences wandb (about 2 s); True, so that a caller sees that it came back."""
    # wandb reports its own crashes to its makers, also offline: only if the user asks for it.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    return True


def open_run(
    online: bool, folder: str | Path, config: Mapping[str, Any], patience: float, **names: Any
) -> Any:
    """Opens a run of its own, whatever other runs this process has.

    Args:
        online: send at once, else write to the folder only.
        folder: where the `wandb` folder goes.
        config: the run's configuration, in which secrets and machine paths are then hidden.
        patience: seconds that wandb itself may take to start and to finish.
        names: project, entity, group, name, tags of `wandb.init`.

    Returns:
        The `wandb.Run`.

    Raises:
        RuntimeError: online without credentials; nobody is asked for them.
        Exception: whatever wandb raises.
    """
    import wandb

    if online and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("no API key, run `wandb login`")
    return wandb.init(
        mode="online" if online else "offline",
        # A random id, not wandb's choice: jobs of one process and of one seed must differ, and an
        # id from the environment would write over another run.
        id=secrets.token_hex(4),
        dir=str(Path(folder).resolve()),
        config=public(config),
        # A job never touches another's run in the same process (Hydra's basic launcher).
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            host="",  # else it sends the machine's name
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
