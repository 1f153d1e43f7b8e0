"""Calls with a time limit in a subprocess, which is killed when the limit is over; JSON lines go in and out.

A thread with a time limit (`elrea.reporting.wandb.limits`) cannot replace it: sympy keeps computing in a thread that is
given up, and takes processor time from the run until it ends.
"""

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
    """Sends requests to `python -m <module>`, which is started by the first request and then kept.

    Args:
        module: A module that calls `serve` when it is run as `__main__`.
        limit: Seconds for one request. After that the process is killed, and the next request starts a new one.
    """

    def __init__(self, module: str, limit: float) -> None:
        self.module, self.limit = module, limit
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.kill)

    def __call__(self, request: Any) -> Any:
        """The reply to a request (both JSON), or None if the time limit was exceeded.

        Raises:
            DataError: The process ended by itself.
        """
        with self._lock:
            timed_out = threading.Event()
            process = self._started()
            assert process.stdin and process.stdout
            timer = threading.Timer(self.limit, self._time_out, (process, timed_out))
            timer.start()
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            finally:
                timer.cancel()
            if line:
                return json.loads(line)
            self.kill()
            if timed_out.is_set():
                return None
            raise DataError(f"{self.module} ended with exit code {process.returncode}")

    def kill(self) -> None:
        """Kills the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    @staticmethod
    def _time_out(process: subprocess.Popen[str], timed_out: threading.Event) -> None:
        timed_out.set()
        process.kill()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.kill()
            roots = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, roots))},
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C goes to the parent process only
            )
        return self._process


def serve(reply: Callable[[Any], Any]) -> None:
    """Replies to the requests on standard input until it ends; prints of other code go to standard error."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        out.write(json.dumps(reply(json.loads(line))) + "\n")
        out.flush()
