"""Calls a function with all that arrives while it is busy, so that many requests share one pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")


class Together(Generic[Given, Found]):
    """Awaits results one by one, and computes them in batches, in one thread at a time.

    Args:
        compute: The results of a batch, in its order. If it raises, each is computed alone.
        most: In a batch.
    """

    def __init__(self, compute: Callable[[Sequence[Given]], Sequence[Found]], most: int) -> None:
        self._compute, self._most = compute, most
        self._waiting: list[tuple[Given, asyncio.Future[Found]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = asyncio.Lock()

    async def __call__(self, given: Given) -> Found:
        """The result of one.

        Raises:
            Exception: From `compute`.
        """
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append((given, future))
        # A task of its own, so that the others' results come even if this call is cancelled.
        task = asyncio.create_task(self._until(future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await future

    async def _until(self, future: asyncio.Future[Found]) -> None:
        """Computes batches until one had this future; the others' tasks then find theirs done."""
        async with self._busy:
            while not future.done():
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                given = [each for each, _ in batch]
                results = await asyncio.to_thread(self._results, given)
                for (_, each), result in zip(batch, results, strict=True):
                    if each.done():
                        continue  # cancelled
                    if isinstance(result, Exception):
                        each.set_exception(result)
                    else:
                        each.set_result(result)

    def _results(self, batch: Sequence[Given]) -> Sequence[Found | Exception]:
        try:
            return self._compute(batch)
        except Exception as error:  # perhaps of one alone
            return [error] if len(batch) == 1 else [self._results([one])[0] for one in batch]
