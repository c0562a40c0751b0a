"""The models that a server has, by the ids that its clients know them by; each is loaded once and stays."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from healthgpt.loading import LoadOptions
from healthgpt.pipeline import HealthGPT
from healthgpt.sources import named_sources

logger = logging.getLogger(__name__)


class Residents:
    """Models by id: a named model's name, a folder's own name, or the last part of a hub id.

    Args:
        models: names, folders or hub ids; the first is the default.

    Raises:
        ValueError: none, or two of one id.
    """

    def __init__(self, models: Sequence[str | Path], options: LoadOptions = LoadOptions()):
        if not models:
            raise ValueError("no model is named; expected at least one")
        self._places: dict[str, str] = {}
        for model in models:
            name = id_of(model)
            if name in self._places:
                raise ValueError(f"models {self._places[name]} and {model} would both be called {name!r}; rename one")
            self._places[name] = str(model)
        self._options = options
        self._loaded: dict[str, HealthGPT] = {}
        self._locks = {name: threading.Lock() for name in self._places}

    @property
    def names(self) -> tuple[str, ...]:
        """The ids, the default first."""
        return tuple(self._places)

    def known(self, name: str | None = None) -> str:
        """The id that a client means; without one, the default.

        Raises:
            ValueError: there is no such model.
        """
        if name is None:
            return self.names[0]
        if name not in self._places:
            raise ValueError(f"model {name[:80]!r} is not here; there is {', '.join(self.names)}")
        return name

    def check(self) -> None:
        """Looks for every model without loading it.

        Raises:
            ValueError, FileNotFoundError: one is not there, or a file of the shipped one is damaged.
        """
        for place in self._places.values():
            named_sources(place)

    def get(self, name: str | None = None) -> HealthGPT:
        """A model, loaded by the first caller; others wait for it.

        Raises:
            ValueError, FileNotFoundError: there is no such model, or its files are missing or damaged.
        """
        name = self.known(name)
        with self._locks[name]:
            if name not in self._loaded:
                self._loaded[name] = HealthGPT.from_sources(named_sources(self._places[name]), self._options)
                _warm_up(self._loaded[name])
            return self._loaded[name]


def _warm_up(model: HealthGPT) -> None:
    """Has what is compiled at the first token, loops or kernels, compiled before anybody waits for it."""
    try:
        model.answer("Hello", max_new_tokens=2)
    except Exception as error:  # it is loaded; those who ask it are told what is wrong with it
        logger.warning("a first answer, to warm up, failed: %s", error)


def id_of(model: str | Path) -> str:
    """How clients name a model."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else str(model).rpartition("/")[2]
