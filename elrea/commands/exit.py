"""How commands end: errors as one line on stderr instead of a traceback, signals, and exit codes."""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import NoReturn

from elrea.commands.config_files import install, known_keys
from elrea.errors import ElreaError, Terminated, did_you_mean

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
TERMINATED = 143
"""Exit code after SIGTERM."""
CLOSED = 141
"""Exit code if nobody reads the output any more, as after `| head`; shells have it for SIGPIPE."""
REQUIRED = ("hydra", "omegaconf", "pydantic", "torch", "transformers", "peft", "numpy")
"""Libraries that are missing where the wrong Python runs a command."""
SWEEP_PLUGINS = ("optuna", "joblib", "submitit_local", "submitit_slurm")
"""Sweepers and launchers that the extra `sweep` installs."""


@contextmanager
def one_line_errors(*, resumable: bool = True) -> Iterator[None]:
    """Ends the process with one line on stderr and exit code 1 on an error that the user can fix.

    Other errors keep their traceback; with `debug=true` on the command line, all of them do. Ctrl-C ends with exit
    code 130, SIGTERM with 143. If the reader of the output has gone, as after `| head`, it ends in silence.

    Args:
        resumable: Whether the same command resumes after Ctrl-C or SIGTERM; the line then says so.
    """
    # Otherwise Hydra prints errors in its own way and exits before they can be shortened.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with _silent_if_closed():
        if any(word.lstrip("+") in ("debug=true", "debug=True") for word in sys.argv[1:]):
            yield
            return
        logging.raiseExceptions = False  # on a full disk, writing the log fails too
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)
            sys.unraisablehook = _again
        hint = "; the same command resumes from the last checkpoint" if resumable else ""
        try:
            yield
        except Terminated:
            _end(f"terminated{hint}", TERMINATED)
        except KeyboardInterrupt:
            _end(f"stopped{hint}", INTERRUPTED)
        except Exception as error:
            if output_closed(error):
                raise
            line = line_of(error)
            if line is None:
                raise
            _end(line, 1)


@contextmanager
def _silent_if_closed() -> Iterator[None]:
    """Ends the process without a word if standard output was closed by its reader."""
    try:
        yield
    except BaseException as error:
        if not output_closed(error):
            raise
    else:
        if (
            not output_closed()
        ):  # what was printed last is written now, not when the interpreter ends
            return
    null = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(null, sys.stdout.fileno())  # the interpreter's end writes the rest
    sys.exit(CLOSED)


def output_closed(error: BaseException | None = None) -> bool:
    """Whether printing to standard output fails because nobody reads it any more.

    Args:
        error: What ended the work, if anything did.
    """
    # Rich turns a closed pipe into SystemExit itself, and sends the rest of the output nowhere.
    by_rich = isinstance(error, SystemExit) and not isinstance(error, Said)
    if by_rich and error is not None and isinstance(error.__context__, BrokenPipeError):
        return True
    try:
        sys.stdout.flush()
        number = sys.stdout.fileno()
    except BrokenPipeError:
        return True
    except (OSError, ValueError, AttributeError):  # a full disk, a closed file, no file
        return False
    if not isinstance(error, BrokenPipeError):
        return False
    waiting = (
        select.poll()
    )  # the error may be another pipe's, and a failed print leaves nothing to be flushed
    waiting.register(number, 0)
    return any(event & select.POLLERR for _, event in waiting.poll(0))


def line_of(error: Exception) -> str | None:
    """The message for an error that the user can fix; None for a fault of the program."""
    if isinstance(error, ElreaError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in REQUIRED:
        return f"{error.name} is not installed here: {install()}"
    # Imported here: most errors are our own, and Hydra takes a while to import.
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from elrea.store.files import is_disk_full

    if is_disk_full(error):
        return (
            "no space left for the run's folder: free some, and the same command resumes from there"
        )
    if isinstance(error, HydraException | OmegaConfBaseException):
        return line_of_hydra(error)
    if isinstance(error, ValueError) and "Config group override" in str(error):
        return "a config group needs the name of a choice, as data=exam, not null or a number"
    if isinstance(error, OSError):  # e.g. no permission; the system's message and the file
        return f"{error.filename or 'system'}: {error.strerror or error}"
    return None


def announce(line: str) -> None:
    """Says on a terminal what is about to take longer than two seconds; pipes and logs do not get it."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def _terminate(_number: int, _frame: object) -> None:
    """Raises `Terminated`, unless the clean-up after one is under way: a second signal must not interrupt it."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, Terminated):
            return
        error = error.__context__
    raise Terminated


def _again(lost: sys.UnraisableHookArgs) -> None:
    """Sends a signal again whose exception Python has dropped, since it came while an object was being deleted."""
    if lost.exc_type is Terminated:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(lost)


class Said(SystemExit):
    """The end of the process after its error was printed."""


def _end(line: str, code: int) -> NoReturn:
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    raise Said(code)


def line_of_hydra(error: BaseException) -> str:
    """Hydra's message in one line; for an unknown name it adds the most similar one that exists."""
    text = str(error)
    if option := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text):
        group, name = option.groups()
        names = re.findall(r"^\t(\w+)$", text, re.MULTILINE)
        there = f"there is: {', '.join(names) or 'none'}"
        if group in ("hydra/sweeper", "hydra/launcher") and name in SWEEP_PLUGINS:
            return f"{group}={name} is not installed: pip install 'elrea[sweep]'"
        return f"{group}={name}: no such choice{did_you_mean(name, names)} ({there})"
    if key := re.match(r"Could not override '([^']+)'\.?\s+To append", text):
        choices = known_keys()
        if key[1] in choices:
            return f"{key[1]}: unknown key here; it belongs to {' or '.join(choices[key[1]])}"
        parent, _, name = key[1].rpartition(".")
        split = [known.rpartition(".") for known in choices if not known.endswith("._target_")]
        beside = [last for above, _, last in split if above == parent]
        if parent and beside and not get_close_matches(name, beside):
            return f"{key[1]}: unknown key; {parent} has {', '.join(beside)}"
        return f"{key[1]}: unknown key{did_you_mean(key[1], choices)}"
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    if text.startswith("Ambiguous value") and "=" in lines[0]:
        word = lines[0].partition("'")[2].rpartition("'")[0]
        return f"{word}: several values need -m (a sweep: a job for each), or key=[a,b] where a list is meant"
    line = "; ".join(lines[:2]) or type(error).__name__
    if any(
        part in text
        for part in (
            "mismatched input",
            "LexerNoViable",
            "no viable alternative",
            "Unknown function",
        )
    ):
        return f"{line}; a value with spaces, quotes, commas or brackets needs quotes of its own: \"key='a (value)'\""
    return line
