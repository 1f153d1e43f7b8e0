"""What a run needs of its data: dev examples, and training examples of the sources that its test has."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from elrea.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from elrea.data.corpus import Corpus
    from elrea.data.examples import Example

log = logging.getLogger(__name__)

DEV = {
    "dev": "data.dev=<file>",
    "dev_size": "data.dev_size=<number of training questions to hold out>",
    "dev_per_source": "data.dev_per_source=<number of questions>",
    "dev_per_board": "data.dev_per_board=<number of questions>",
}
"""What to say to get dev examples, by the key that a choice of data has for them."""


def dev_advice(cfg: DictConfig, *, or_test: bool = False) -> str:
    """What to do where there are no dev examples; `or_test`: to score test is another way out."""
    advice = [f"say {words}" for key, words in DEV.items() if key in cfg.data]
    if or_test and "verdict" not in cfg:  # which must not look at test
        advice.append("score test")
    return ", or ".join(advice) or "choose data that has some"


def why_no_dev(split: str) -> str:
    """Why nothing can be decided by dev examples where there are none, by `evaluation.split`."""
    return "evaluation.split=dev scores them" if split == "dev" else "this data has none"


def with_dev(
    strategies: dict[str, Any], corpus: Corpus, cfg: DictConfig, chosen: str
) -> dict[str, Any]:
    """The strategies that can be decided: without dev examples, those that only `all` names are left out.

    Raises:
        ConfigError: One that is named needs dev examples, and there are none.
    """
    from elrea.method.ensemble.strategy import DevGated

    if corpus.dev:
        return strategies
    split = cfg.evaluation.split
    why = why_no_dev(split)
    open_ = [n for n, s in strategies.items() if isinstance(s, DevGated) and s.undecided]
    for name in open_:
        if name == chosen or name in cfg.evaluation.strategies:
            mend = dev_advice(cfg)
            if split == "dev":
                mend = "leave it out" if "verdict" in cfg else "score test"
            by_hand = f"evaluation.settings={{{name}:{{serves:[0]}}}}"
            if name == chosen:
                by_hand = "ensemble.serves=[0]"
            raise ConfigError(
                f"ensemble={name}: dev examples decide which experts serve, but {why}; {mend}, or name the clusters: "
                f"'{by_hand}'"
            )
    if open_:
        log.warning("left out, since dev examples decide them and %s: %s", why, ", ".join(open_))
    return {name: strategy for name, strategy in strategies.items() if name not in open_}


def untrained_source(train: Sequence[Example], test: Sequence[Example]) -> str | None:
    """The first source of the test that has no training examples; None if all have some."""
    trained = {example.source for example in train}
    return next((example.source for example in test if example.source not in trained), None)


def with_sources(
    strategies: dict[str, Any], corpus: Corpus, cfg: DictConfig, chosen: str
) -> dict[str, Any]:
    """The strategies that can answer every test prompt by its source; those that only `all` names are left out.

    Raises:
        ConfigError: One that is named cannot, since a source of the test has no training examples.
    """
    from elrea.method.ensemble.strategies.source import unknown_source

    odd = untrained_source(corpus.train, corpus.test)
    open_ = [name for name, strategy in strategies.items() if strategy.by_source]
    if odd is None or not open_:
        return strategies
    for name in open_:
        if name == chosen or name in cfg.evaluation.strategies:
            raise unknown_source(f"ensemble={name}", odd, corpus.train_sources)
    log.warning(
        "left out: %s; %r, a source of the test, has no training examples", ", ".join(open_), odd
    )
    return {name: strategy for name, strategy in strategies.items() if name not in open_}
