"""The families' part in the suite that every adapter passes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig

from ..contract import AdapterContract, Case, no_room_in_torch
from .stand_in import write_moondream

SHORT = {"max_new_tokens": 5}


class VlmContract(AdapterContract):
    """A family on a tiny checkpoint."""

    checkpoint_name = ""
    options: dict[str, Any] = SHORT
    configured: dict[str, Any] = {}
    prompt = ""
    system = ""

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, request, tmp_path_factory):
        folder = cls.folder(request, tmp_path_factory)

        def build(path: Path) -> Any:
            return registry.build(cls.key, AdapterConfig(source=str(path), options=cls.configured))

        return Case(
            lambda: build(folder),
            cls.fill,
            folder=folder,
            elsewhere=lambda copy: build(Path(shutil.copytree(folder, copy))),
            options=cls.options,
            prompt=cls.prompt,
            system=cls.system,
        )

    @classmethod
    def folder(cls, request: Any, tmp_path_factory: Any) -> Path:
        return request.getfixturevalue("checkpoint")(cls.checkpoint_name)

    fill = staticmethod(no_room_in_torch)


class TestChat(VlmContract):
    key, checkpoint_name, prompt, system = "vlm", "qwen2_5_vl", "describe this image", "a cat"


class TestBlip(VlmContract):
    key, checkpoint_name, prompt = "blip", "blip", "a photo of"


class TestFlorence(VlmContract):
    key, checkpoint_name = "florence2", "florence2"


class TestPromptGen(VlmContract):
    key, checkpoint_name = "promptgen", "florence2"


class TestKosmos(VlmContract):
    key, checkpoint_name = "kosmos2", "kosmos2"


class TestGit(VlmContract):
    key, checkpoint_name = "git", "git"


class TestJoyCaption(VlmContract):
    key, checkpoint_name = "joycaption", "joycaption"


def no_room_in_its_code(monkeypatch: pytest.MonkeyPatch, adapter: Any) -> None:
    import torch

    def full(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(adapter._model, "caption", full)


class TestMoondream(VlmContract):
    key, configured, fill = "moondream", {"trust_remote_code": True}, staticmethod(no_room_in_its_code)

    @classmethod
    def folder(cls, request, tmp_path_factory):
        request.getfixturevalue("checkpoint")  # torch is imported as it must be
        return write_moondream(tmp_path_factory.mktemp("models") / "moon-of-the-test")
