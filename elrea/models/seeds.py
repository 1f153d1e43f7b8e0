"""Seeds that follow from what they are for, so that nothing depends on what ran before."""

from __future__ import annotations

from elrea.store.files import sha256_of


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that is a function of `parts` alone.

    Neighbouring inputs give unrelated seeds (SHA-256), on every machine and in every process:
    Python's own `hash` is salted per process and would break a resumed run.

    Args:
        parts: what the randomness is for, e.g. (seed, stage, step).
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(sha256_of(text).digest()[:8], "big") >> 1
