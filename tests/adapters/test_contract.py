"""No adapter is left out of the contract suite; photo-lite's and WD's own part in it."""

from __future__ import annotations

import importlib
import pkgutil
import shutil

import pytest

import tests.adapters
from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig
from tagging.adapters.photo_lite import EMBEDDED, PhotoLite
from tagging.adapters.wd import WdTagger
from tests.fakes import wd_model

from .contract import AdapterContract, Case, no_room_in_onnx

#: Holds no model: results of other programs.
NO_MODEL = {"import"}


class TestPhotoLite(AdapterContract):
    key = "photo-lite"

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls):
        def elsewhere(folder):
            return PhotoLite(AdapterConfig(source=str(shutil.copytree(EMBEDDED, folder))))

        return Case(PhotoLite, no_room_in_onnx, elsewhere=elsewhere)


class TestWd(AdapterContract):
    key = "wd"

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory):
        folder = wd_model.tiny(tmp_path_factory.mktemp("models") / "wd-of-the-test", outputs=9)

        def elsewhere(copy):
            return WdTagger(AdapterConfig(source=str(shutil.copytree(folder, copy))))

        return Case(
            lambda: WdTagger(AdapterConfig(source=str(folder))), no_room_in_onnx, folder=folder, elsewhere=elsewhere
        )


def test_no_adapter_is_left_out():
    for module in pkgutil.walk_packages(tests.adapters.__path__, "tests.adapters."):
        if module.name.rpartition(".")[2].startswith("test_"):
            importlib.import_module(module.name)

    def below(parent: type[AdapterContract]) -> set[str]:
        return {parent.key}.union(*(below(child) for child in parent.__subclasses__()))

    built_in = set(registry.BUILT_IN) - NO_MODEL
    assert built_in - below(AdapterContract) == set()
