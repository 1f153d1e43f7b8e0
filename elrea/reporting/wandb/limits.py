"""A time limit on calls into code that may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Stall(Exception):
    """A call that did not come back in time."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """Calls `work` in a thread, which is left behind if it is not done in time.

    The thread is a daemon: a call that never returns does not keep the process alive either.

    Args:
        seconds: how long to wait.
        work: what to do.

    Returns:
        What `work` returns.

    Raises:
        Stall: `work` was not done in time.
        Exception: whatever `work` raised. SystemExit and the like come as RuntimeError: they were
            meant for that thread and are no reason to end the program.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="elrea-limited", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise Stall(f"no answer in {seconds:g} s")
    if not errors:
        return results[0]
    if isinstance(errors[0], Exception):
        raise errors[0]
    raise RuntimeError(f"{type(errors[0]).__name__}: {errors[0]}") from errors[0]
