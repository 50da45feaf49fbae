"""The log of the web process: refusals in a line, faults with their traceback."""

from __future__ import annotations

import io
import logging

import pytest
from django.test import Client

from tests.tagging.world import person


@pytest.fixture
def log():
    """What the console handler of the settings writes."""
    (handler,) = [h for h in logging.getLogger().handlers if h.name == "console"]
    stream = handler.setStream(io.StringIO())
    written = handler.stream
    yield written
    handler.setStream(stream)


@pytest.mark.django_db
def test_a_refusal_is_one_line(log):
    client = Client()
    client.force_login(person("vi", "viewer"))
    assert client.get("/collections/new/").status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    refused, host = log.getvalue().splitlines()
    assert "Forbidden (Permission denied): /collections/new/" in refused
    assert "evil.example" in host


@pytest.mark.django_db
def test_a_fault_keeps_its_traceback(log, monkeypatch):
    def broken(*args: object) -> None:
        raise RuntimeError("the fault")

    monkeypatch.setattr("tagging.views.home.render", broken)
    client = Client(raise_request_exception=False)
    client.force_login(person("vi", "viewer"))
    assert client.get("/").status_code == 500
    assert "Traceback" in log.getvalue()
    assert "RuntimeError: the fault" in log.getvalue()
