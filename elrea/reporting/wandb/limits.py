"""Calls with a time limit in a thread, which is abandoned when the limit is over.

A subprocess that can be killed (`elrea.evaluation.timed_subprocess`) cannot replace it: the calls act on wandb's run
object, which lives in this process, and mostly wait for the network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Stall(Exception):
    """A call exceeded its time limit."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """Calls `work` in a thread, and abandons the thread if it does not return in time.

    The thread is a daemon, so that a call that never returns does not keep the process alive.

    Args:
        seconds: The time limit.
        work: The function to call.

    Returns:
        The result of `work`.

    Raises:
        Stall: The time limit was exceeded.
        Exception: Raised by `work`. SystemExit and KeyboardInterrupt become RuntimeError, because they were raised in
            that thread and must not end the program.
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
