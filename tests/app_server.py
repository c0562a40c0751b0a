"""The web app with the shipped model, once for all tests that need it: the fixture `app`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from healthgpt.serving.residents import Residents


@pytest.fixture(scope="session")
def residents() -> Residents:
    return Residents(["nano"])


@pytest.fixture(scope="session")
def app(residents: Residents) -> Iterator[Any]:
    """A running app on this machine; see `server.RunningApp`."""
    pytest.importorskip("gradio", reason="no gradio here: bash scripts/setup.sh dev")
    from healthgpt.serving.api.settings import Place
    from healthgpt.serving.app.server import running_app
    from healthgpt.serving.app.settings import AppSettings

    residents.get("nano")
    with running_app(AppSettings(models=("nano",), place=Place(port=0)), residents) as running:
        yield running
