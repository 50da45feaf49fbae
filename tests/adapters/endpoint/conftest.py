"""A lying server, an adapter over it, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from tagging.adapters.base import NO_IMAGE, AdapterConfig, AdapterError, Reply, Request
from tagging.adapters.endpoint import client, ladder, limits
from tagging.adapters.endpoint.adapter import Endpoint
from tests.adapters.helpers import encoded, image_input
from tests.fakes.lying_server import LyingServer


@pytest.fixture(autouse=True)
def _fresh(monkeypatch) -> Iterator[None]:
    """Nothing is remembered from test to test, and pauses are short."""
    monkeypatch.setattr(limits, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(client, "FIRST_LOAD", 0.5)
    limits.forget()
    ladder.forget()
    yield
    limits.forget()
    ladder.forget()


@pytest.fixture
def server() -> Iterator[LyingServer]:
    with LyingServer() as running:
        yield running


@pytest.fixture
def endpoint(server) -> Iterator[Callable[..., Endpoint]]:
    """Makes loaded adapters over the server."""
    made = []

    def make(**options: Any) -> Endpoint:
        adapter = Endpoint(AdapterConfig(source=server.address, options={"model": "m", **options}))
        adapter.load()
        made.append(adapter)
        return adapter

    yield make
    for adapter in made:
        adapter.unload()


def picture(size: tuple[int, int] = (64, 48), kind: str = "PNG") -> Any:
    return image_input(encoded(Image.new("RGB", size, (200, 30, 30)), kind), f"picture.{kind.lower()}")


def ask(
    adapter: Endpoint, n: int = 1, *, prompt: str = "What is it?", image: Any = ..., **more: Any
) -> list[Reply | AdapterError]:
    """What it says of `n` pictures."""
    request = Request(adapter.options(), prompt=prompt, **more)
    image = picture() if image is ... else image or NO_IMAGE
    return list(adapter.infer([adapter.prepare(image, request) for _ in range(n)], request))
