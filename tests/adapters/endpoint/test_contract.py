"""The suite that every adapter passes."""

from __future__ import annotations

import hashlib

import pytest

from tagging.adapters.base import AdapterConfig
from tagging.adapters.endpoint.adapter import Endpoint
from tests.adapters.contract import AdapterContract, Case
from tests.fakes.lying_server import LyingServer, Say


class TestContract(AdapterContract):
    key = "openai"

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls):
        with LyingServer() as server:
            server.always(lambda asked: Say("tag " + hashlib.sha256(asked.pictures[0][1]).hexdigest()))
            config = AdapterConfig(source=server.address, options={"model": "m"})
            yield Case(lambda: Endpoint(config), prompt="What is it?")
