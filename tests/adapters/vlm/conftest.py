"""Tiny checkpoints, built once for all tests here, and adapters on them. The network is blocked throughout."""

from __future__ import annotations

import hashlib
import io
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig, ImageInput, Request
from tagging.adapters.vlm import runtime
from tests.fakes import tiny_vlm


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("a test of local models asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """name → folder of the tiny checkpoint, built at its first use."""
    folder, built = tmp_path_factory.mktemp("tiny"), {}
    torch, _ = runtime.libraries()  # a broken torchvision is put aside before anything imports transformers
    torch.set_num_threads(1)  # numbers this small are only slowed down by more

    def get(name: str) -> Path:
        if name not in built:
            built[name] = tiny_vlm.build(name, folder)
        return built[name]

    return get


@pytest.fixture(scope="session")
def loaded(checkpoint):
    """(key, checkpoint, **options) → a loaded adapter, kept for the session."""
    kept = {}

    def get(key: str, name: str, **options: object):
        known = (key, name, repr(sorted(options.items())))
        if known not in kept:
            kept[known] = registry.build(key, AdapterConfig(source=str(checkpoint(name)), options=options))
            kept[known].load()
        return kept[known]

    yield get
    for adapter in kept.values():
        adapter.unload()


def picture(seed: int, width: int = 90, height: int = 60, kind: str = "PNG") -> ImageInput:
    """Coloured noise over a gradient: two seeds look unlike each other to any model."""
    noise = np.random.RandomState(seed).randint(0, 255, (height, width, 3))
    data = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(data, kind)
    return ImageInput(
        f"{seed}.{kind.lower()}", hashlib.sha256(data.getvalue()).hexdigest(), lambda: io.BytesIO(data.getvalue())
    )


def ask(adapter, *images: ImageInput, prompt: str = "", system: str = "", sample: int = 0, terms=(), **options: object):
    """The replies of one batch."""
    request = Request(adapter.options(options), system, prompt, sample=sample, terms=tuple(terms))
    return list(adapter.infer([adapter.prepare(image, request) for image in images], request))
