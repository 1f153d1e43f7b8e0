"""A real headless browser, by its DevTools protocol over a pipe: no driver, no port, no network.

https://chromedevtools.github.io/devtools-protocol/; messages are JSON, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
LIMIT = 60  # seconds for one answer
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip


@dataclass
class Seen:
    """A page as it was shown.

    Attributes:
        value: What the script came to.
        errors: What the console said is wrong.
        requests: Addresses that were asked for beside the page itself and what is inside it.
    """

    value: Any = None
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """One process; a context manager.

    Args:
        folder: For its profile.
    """

    def __init__(self, folder: Path) -> None:
        assert PROGRAM
        mine, theirs = _pipe(), _pipe()
        null = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2)]
        ends = [(os.POSIX_SPAWN_DUP2, mine[0], 3), (os.POSIX_SPAWN_DUP2, theirs[1], 4)]
        words = [PROGRAM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._pid = os.posix_spawn(
            PROGRAM, words, {**os.environ, "HOME": str(folder)}, file_actions=[*null, *ends],
            setpgroup=0,
        )  # fmt: skip
        os.close(mine[0])
        os.close(theirs[1])
        self._to, self._from = mine[1], theirs[0]
        self._number, self._rest = 0, b""
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._to)
        os.close(self._from)

    def show(self, page: Path, width: int, script: str, picture: Path | None = None) -> Seen:
        """Opens a page in a window of `width` px (below 600: a phone's), and runs a script in it.

        Args:
            page: An HTML file.
            width: In CSS pixels.
            script: An expression; a promise is waited for.
            picture: PNG file of the whole page to make.
        """
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for room in ("Page", "Network", "Log", "Runtime"):
            self._ask(f"{room}.enable", session)
        self._ask(
            "Emulation.setDeviceMetricsOverride", session, width=width, height=844,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self._events.clear()
        self._ask("Page.navigate", session, url=page.as_uri())
        self._wait("Page.loadEventFired")
        answer = self._ask(
            "Runtime.evaluate", session, expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        if picture:
            shot = self._ask("Page.captureScreenshot", session, captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(shot["data"]))
        self._ask("Target.closeTarget", targetId=target)
        return self._seen(answer["result"].get("value"), page.as_uri())

    def _seen(self, value: Any, page: str) -> Seen:
        seen = Seen(value)
        for event in self._events:
            name, said = event["method"], event["params"]
            if name == "Log.entryAdded" and said["entry"]["level"] in ("warning", "error"):
                seen.errors.append(said["entry"]["text"])
            elif name == "Runtime.exceptionThrown":
                seen.errors.append(said["exceptionDetails"]["text"])
            elif name == "Runtime.consoleAPICalled" and said["type"] in ("warning", "error"):
                seen.errors.append(str(said["args"]))
            elif name == "Network.requestWillBeSent":
                url = said["request"]["url"]
                if url != page and not url.startswith("data:"):
                    seen.requests.append(url)
        return seen

    def _ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        text = json.dumps({**message, **({"sessionId": session} if session else {})})
        os.write(self._to, text.encode() + b"\0")
        until = time.monotonic() + LIMIT
        while (found := self._next(until)).get("id") != self._number:
            self._events.append(found)
        assert "error" not in found, (method, found)
        answer: dict[str, Any] = found["result"]
        return answer

    def _wait(self, method: str) -> None:
        until = time.monotonic() + LIMIT
        while not any(event["method"] == method for event in self._events):
            self._events.append(self._next(until))

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(self._from, 1 << 16) if ready else b""
            assert piece, "the browser does not answer"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


def _pipe() -> tuple[int, int]:
    """Both ends, numbered high enough not to be in the way of 3 and 4."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
