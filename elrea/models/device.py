"""The device to compute on, and the precision."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from elrea.errors import ConfigError

MOST_THREADS = 1024
_WIDTH, _PRODUCTS, _SECONDS = 1024, 60, 0.2
"""Of the products that `faster_threads` times: their width, how many there are at most, and the time for all."""
PRECISIONS = ("32-true", "32", "bf16-mixed")  # "32" is Lightning's other name of "32-true"


def idle_threads_sleep() -> None:
    """Lets torch's threads sleep instead of spinning while they wait for each other, unless the user has chosen.

    For a command's entry, before torch is imported. Beside other work, a spinning thread takes the core from the one
    that it waits for. Child processes do the same.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


SPIN = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"
"""Variables by which a user chooses how long a thread spins."""


def busy_threads_sleep() -> None:
    """Lets torch's threads sleep, as `idle_threads_sleep`, where other work runs on the cores that they would use.

    For the entry of a run, before torch is imported. On cores of its own a training is faster with threads that spin.
    Only the time depends on it: what is computed depends on the number of threads. It is decided once, by the machine's
    runnable tasks at ten times within 20 ms; where the system does not tell them (it does on Linux), nothing is set.
    """
    if any(name in os.environ for name in SPIN):
        return
    others = []
    for _ in range(10):
        if (running := runnable_tasks()) is None:
            return
        others.append(running - 1)  # one is this process
        time.sleep(0.002)
    free = (os.cpu_count() or 1) - statistics.median(others)
    if free < (threads_of_environment() or len(os.sched_getaffinity(0))):
        idle_threads_sleep()


def runnable_tasks() -> int | None:
    """Tasks of all processes that run or wait for a core, the caller's too; None where the system does not say."""
    try:
        with open("/proc/loadavg", encoding="ascii") as file:
            return int(file.read().split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return None


def threads_of_environment() -> int | None:
    """OMP_NUM_THREADS, of a list its first number; None where it is not set, or not a number of 1 or more."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and 1 <= int(first) <= MOST_THREADS else None


@cache
def faster_threads(cores: int) -> int:
    """1 or `cores`, whichever decodes faster now: measured once per process, in at most about 0.2 s.

    All threads of a product wait for the last one. Where other work takes one of the cores, that costs far more than
    the threads gain, and a count of the cores cannot show it. The products are as small as those of one token, and
    the two counts take turns, since the other work changes.
    """
    import torch

    if cores == 1:
        return 1
    before = torch.get_num_threads()
    weight, rows = torch.ones(_WIDTH, _WIDTH), torch.ones(4, _WIDTH)
    seconds: dict[int, list[float]] = {1: [], cores: []}
    end = time.perf_counter() + _SECONDS
    try:
        while len(seconds[cores]) < _PRODUCTS and time.perf_counter() < end:
            for threads, each in seconds.items():
                torch.set_num_threads(threads)
                for _ in range(3):
                    start = time.perf_counter()
                    torch.nn.functional.linear(rows, weight)
                    each.append(time.perf_counter() - start)
                    if start > end:
                        break
    finally:
        torch.set_num_threads(before)
    # The first products start the threads; where they took all the time, they are the answer.
    means = {n: statistics.fmean(each[3:] or each) for n, each in seconds.items()}
    return min(means, key=means.__getitem__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # On a CPU torch raises a bare RuntimeError, which only its text tells apart.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@dataclass(frozen=True)
class Device:
    """One device of this machine, or several of the same kind."""

    accelerator: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `gpu` or `mps`."""
    precision: str = "32-true"
    """Of the training, by Lightning's names: 32-true or bf16-mixed. Adapters are float32 in both."""
    threads: int | None = None
    """CPU threads per process; null: OMP_NUM_THREADS if it is set, else every core that this process may use, divided
    among `devices`."""
    devices: int = 1
    """Number of GPUs, or of processes on a CPU. They share the extraction of features and, with `strategy`, the
    training; scoring uses the first."""
    strategy: Literal["one", "ddp", "sharded"] = "one"
    """`one`: each adapter trains on one device. `ddp`: on all `devices`, each with the whole backbone. `sharded`: on
    all, each with a part of the backbone's weights, for one that does not fit on a device; features and scores are
    then not possible."""

    def __post_init__(self) -> None:
        if self.accelerator not in ("auto", "cpu", "gpu", "mps"):
            raise ValueError(f"accelerator={self.accelerator} must be auto, cpu, gpu or mps")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision={self.precision} must be 32-true or bf16-mixed "
                "(a bfloat16 backbone with its float32 adapter is 32-true)"
            )
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads={self.threads} must be 1 to {MOST_THREADS}, or null")
        if not 1 <= self.devices <= MOST_THREADS:
            raise ValueError(f"devices={self.devices} must be 1 to {MOST_THREADS}")
        if self.strategy not in ("one", "ddp", "sharded"):
            raise ValueError(f"strategy={self.strategy} must be one, ddp or sharded")

    @property
    def together(self) -> int:
        """Number of processes that train one adapter."""
        return 1 if self.strategy == "one" else self.devices

    def resolve(self) -> str:
        """The name of the torch device; of several, this process's current one.

        Raises:
            ConfigError: There is no such device here, or fewer than `devices`.
        """
        import torch

        if self.accelerator == "cpu":
            return "cpu"
        if self.accelerator in ("auto", "gpu") and torch.cuda.is_available():
            self._need(torch.cuda.device_count())
            return "cuda"
        if self.accelerator in ("auto", "mps") and torch.backends.mps.is_available():
            self._need(1)
            return "mps"
        if self.accelerator != "auto":
            raise ConfigError(
                f"trainer.accelerator={self.accelerator}: torch finds none here; say cpu or auto"
            )
        return "cpu"

    def _need(self, there: int) -> None:
        if self.devices > there:
            raise ConfigError(
                f"trainer.devices={self.devices}: torch finds {there} here; say {there}"
            )

    def apply(self, processes: int = 1, *, measure: bool = False) -> None:
        """Sets the number of threads of this process: `threads`, else OMP_NUM_THREADS, else by its cores.

        Args:
            processes: Processes that run at the same time and share the cores.
            measure: Take one thread instead of all cores where that is faster just now (`faster_threads`). Not for
                training, whose last digits depend on the number of threads: it must not change from run to run.
        """
        import torch

        cores = max(1, len(os.sched_getaffinity(0)) // processes)
        threads = self.threads or threads_of_environment()
        if threads is None:
            threads = faster_threads(cores) if measure and self.resolve() == "cpu" else cores
        torch.set_num_threads(threads)

    def take(self, job: int) -> None:
        """Chooses a GPU by the job's number, so that jobs of a sweep that run at the same time use different ones.

        A job to which a scheduler has given its own GPUs sees only those.
        """
        if self.devices == 1 and self.resolve() == "cuda":
            import torch

            torch.cuda.set_device(job % torch.cuda.device_count())

    def lightning(self) -> dict[str, Any]:
        """How to train by Lightning on this device: accelerator and precision."""
        name = {"cuda": "gpu"}.get(self.resolve(), self.resolve())
        return {"accelerator": name, "precision": self.precision}
