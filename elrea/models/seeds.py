"""Seeds derived from their purpose, so that nothing depends on what ran before."""

from __future__ import annotations

from elrea.store.files import sha256_of


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that depends on `parts` alone.

    It is the same on every machine and in every process (Python's `hash` is salted per process and would break a
    resumed run), and similar inputs give unrelated seeds (SHA-256).

    Args:
        parts: The purpose of the randomness, e.g. (seed, stage, step).
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(sha256_of(text).digest()[:8], "big") >> 1
