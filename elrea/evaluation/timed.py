"""Work in a process of its own, which can be ended whatever it is at: JSON goes in and comes back, line by line."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elrea.errors import DataError


class TimedSubprocess:
    """Asks `python -m <module>`, which stands ready from the first question on.

    Args:
        module: Whose `__main__` calls `serve`.
        limit: Seconds for an answer; then the process is ended, and the next question starts another.
    """

    def __init__(self, module: str, limit: float) -> None:
        self.module, self.limit = module, limit
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.end)

    def __call__(self, asked: Any) -> Any:
        """The answer; None where it took too long.

        Raises:
            DataError: The module cannot answer.
        """
        with self._lock:
            late = threading.Event()
            process = self._ready()
            assert process.stdin and process.stdout
            timer = threading.Timer(self.limit, self._kill, (process, late))
            timer.start()
            try:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            finally:
                timer.cancel()
            if line:
                return json.loads(line)
            self.end()
            if late.is_set():
                return None
            raise DataError(f"{self.module} ended with {process.returncode}: it cannot judge")

    def end(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    @staticmethod
    def _kill(process: subprocess.Popen[str], late: threading.Event) -> None:
        late.set()
        process.kill()

    def _ready(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            roots = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, roots))},
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the one who asks
            )
        return self._process


def serve(answer: Callable[[Any], Any]) -> None:
    """Answers questions from standard input until there are no more. Nothing else may write to standard output."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
        out.flush()
