"""An endpoint's address leads to a server of models, never into a machine's insides."""

from __future__ import annotations

import socket

import pytest

from tagging.adapters.base import AdapterConfig, AdapterError, ModelUnavailable, Request
from tagging.adapters.endpoint import addresses, listing
from tagging.adapters.endpoint.adapter import Endpoint
from tagging.adapters.endpoint.addresses import AddressRefused, HostNotFound, check_address
from tagging.adapters.endpoint.servers import SERVERS, sees
from tests.fakes.lying_server import Say, Status

from .conftest import ask, picture

ALWAYS_REFUSED = [
    "http://169.254.169.254/v1", "http://[fe80::1]/v1", "http://[::ffff:169.254.169.254]/v1", "http://100.100.100.200",
    "http://[fd00:ec2::254]", "http://[64:ff9b::a9fe:a9fe]/", "http://0.0.0.0:80", "http://224.0.0.1", "ftp://example.org",
    "file:///etc/passwd", "http://", "http://user:secret@example.org/v1", "gopher://x", "http://[::1",
    "javascript:alert(1)",
]  # fmt: skip


@pytest.mark.parametrize("url", ALWAYS_REFUSED)
@pytest.mark.parametrize("allow", [True, None, False])
def test_never(url, allow):
    with pytest.raises(AddressRefused):
        check_address(url, allow_private=allow)


@pytest.mark.parametrize(
    ("url", "allowed_by"),
    [
        ("http://127.0.0.1:8080/v1", {True, None}),
        ("http://[::1]:8080/v1", {True, None}),
        ("http://localhost:8080/v1", {True, None}),
        ("http://2130706433/v1", {True, None}),  # 127.0.0.1, as some write it
        ("http://192.168.1.20:11434/v1", {True}),
        ("http://10.0.0.1/v1", {True}),
        ("http://100.64.0.9/v1", {True}),
        ("http://[fd12::1]/v1", {True}),
        ("http://8.8.8.8/v1", {True, None, False}),
    ],
)
@pytest.mark.parametrize("allow", [True, None, False])
def test_private_addresses_are_a_setting(url, allowed_by, allow):
    if allow in allowed_by:
        assert check_address(url, allow_private=allow)
    else:
        with pytest.raises(AddressRefused, match="IWTAG_ALLOW_PRIVATE_ENDPOINTS"):
            check_address(url, allow_private=allow)


@pytest.mark.parametrize(
    ("value", "meaning"), [("", None), ("True", True), ("1", True), ("False", False), ("no", False)]
)
def test_the_setting(monkeypatch, value, meaning):
    monkeypatch.setenv("IWTAG_ALLOW_PRIVATE_ENDPOINTS", value)
    assert addresses.private_allowed() is meaning


def names(monkeypatch, *answers):
    """What example.org is looked up as, one answer after the other; the last one stays."""
    left, real = list(answers), socket.getaddrinfo

    def look_up(host, port, *args, **more):
        if host != "example.org":
            return real(host, port, *args, **more)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", look_up)


def test_every_address_of_a_name_is_looked_at(monkeypatch):
    names(monkeypatch, ["8.8.8.8", "169.254.169.254"])
    with pytest.raises(AddressRefused, match=r"example\.org \(169\.254\.169\.254\)"):
        check_address("http://example.org/v1")


def test_a_name_that_leads_nowhere(monkeypatch):
    def look_up(*args, **more):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", look_up)
    with pytest.raises(HostNotFound, match="not found"):
        check_address("http://example.org/v1")


def test_a_name_that_changes_after_the_check_reaches_nothing(monkeypatch, server):
    """The connection goes to the address that was checked, not to what the name says a moment later."""
    names(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    config = AdapterConfig(source=f"http://example.org:{server.port}/v1", options={"model": "m"})
    with Endpoint(config) as adapter:
        assert [r.text for r in ask(adapter, 2)] == ["ok", "ok"]
    assert {a.headers["host"] for a in server.asked} == {f"example.org:{server.port}"}


def test_a_name_that_leads_to_metadata_fails_the_run(monkeypatch, server):
    names(monkeypatch, ["169.254.169.254"])
    config = AdapterConfig(source="http://example.org/v1", options={"model": "m"})
    with Endpoint(config) as adapter, pytest.raises(ModelUnavailable, match="metadata"):
        ask(adapter)
    assert server.asked == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(endpoint, server, status):
    server.next(Status(status, headers={"Location": f"http://127.0.0.1:{server.port}/elsewhere"}))
    with pytest.raises(ModelUnavailable, match="Redirects are not followed"):
        ask(endpoint())
    assert len(server.asked) == 1


def test_proxies_of_the_environment_are_not_used(endpoint, server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(endpoint())[0].text == "ok"


def test_the_check_calls_nobody_and_names_mends(monkeypatch):
    def look_up(*args, **more):
        raise AssertionError("no name is looked up")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", look_up)
    found = Endpoint(AdapterConfig()).check()
    assert [p.message for p in found] == ["The adapter has no address.", "No model is named."]
    assert all(p.fatal and p.mend for p in found)
    options = {"model": "m", "api_key_env": "NO_SUCH_API_KEY"}
    (problem,) = Endpoint(AdapterConfig(source="https://example.org/v1", options=options)).check()
    assert "NO_SUCH_API_KEY is not set" in problem.message
    (problem,) = Endpoint(AdapterConfig(source="http://169.254.169.254/v1", options={"model": "m"})).check()
    assert "metadata" in problem.message
    (problem,) = Endpoint(AdapterConfig(source="http://localhost:11434", options={"model": "m"})).check()
    assert not problem.fatal
    assert "http://localhost:11434/v1" in problem.mend


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AdapterConfig(source="http://8.8.8.8/v1"), "No model is named"),
        (AdapterConfig(source="http://169.254.169.254/v1", options={"model": "m"}), "metadata"),
        (AdapterConfig(source="", options={"model": "m"}), "http"),
        (
            AdapterConfig(source="http://8.8.8.8/v1", options={"model": "m", "api_key_env": "NO_SUCH_API_KEY"}),
            "NO_SUCH_API_KEY is not set",
        ),
    ],
)
def test_loading_says_what_is_missing(config, words):
    with pytest.raises(ModelUnavailable, match=words):
        Endpoint(config).load()


def test_identity_is_the_models_name_and_revision_not_its_place():
    one = Endpoint(AdapterConfig(source="http://a.example/v1", options={"model": "m"})).identity()
    two = Endpoint(AdapterConfig(source="http://b.example/v1", options={"model": "m"})).identity()
    other = Endpoint(AdapterConfig(source="http://a.example/v1", revision="2", options={"model": "m"})).identity()
    assert one == two != other


# -- lists of models ---------------------------------------------------------------------------------------------------
def listed(server, body):
    import json

    from tests.fakes.lying_server import Raw

    server.next(Raw(json.dumps(body).encode()))
    return listing.models(AdapterConfig(source=server.address, options={"model": "x"}))


def test_a_list_with_those_that_see_first(server):
    body = {
        "object": "list",
        "data": [
            {"id": "llama3:8b", "object": "model"},
            {"id": "zeta", "architecture": {"input_modalities": ["text", "image"]}, "context_length": 32768},
            {"id": "qwen2.5vl:7b"},
            {"id": "llava-embed", "owned_by": "library"},
            {"no": "id"},
        ],
    }
    found = listed(server, body)
    assert [(m["id"], m["sees"]) for m in found] == [
        ("qwen2.5vl:7b", True), ("zeta", True), ("llama3:8b", False), ("llava-embed", False),
    ]  # fmt: skip
    assert found[1]["note"] == "context 32,768"
    assert server.asked[0].path == "/v1/models"


@pytest.mark.parametrize("body", [{"hello": 1}, [1, 2], "x", {"data": "none"}])
def test_what_is_no_list_says_so(server, body):
    if isinstance(body, list):
        assert listed(server, body) == []
        return
    with pytest.raises(AdapterError, match="no list of models"):
        listed(server, body)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Status(401, "who are you"), "answered 401"),
        (Status(404), "/v1"),
        (Status(302, headers={"Location": "/x"}), "meant"),
    ],
)
def test_a_refused_list_names_its_mend(server, answer, words):
    server.next(answer)
    with pytest.raises(AdapterError, match=words):
        listing.models(AdapterConfig(source=server.address))


def test_a_list_that_does_not_come_is_given_up(server, monkeypatch):
    monkeypatch.setattr(listing, "TIMEOUT", 0.3)
    server.always(Say(seconds=2))
    with pytest.raises(AdapterError, match="did not answer within"):
        listing.models(AdapterConfig(source=server.address))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o-mini", True), ("gpt-4.1", True), ("gpt-3.5-turbo", False), ("Qwen/Qwen2.5-VL-7B-Instruct", True),
        ("qwen3-vl:8b", True), ("llava:13b", True), ("llama3.2-vision", True), ("llama3.1:8b", False),
        ("gemma3:12b", True),
        ("gemma3:1b", False), ("text-embedding-3-large", False), ("pixtral-12b", True), ("minicpm-v:8b", True),
        ("claude-sonnet-4", True), ("mistral-7b", False), ("moondream", True), ("whisper-1", False),
        ("InternVL3-8B", True),
    ],
)  # fmt: skip
def test_names_of_models_that_see(name, expected):
    assert sees(name) is expected


def test_known_servers_have_addresses_that_may_be_called():
    assert len({s.slug for s in SERVERS}) == len(SERVERS)
    for server in SERVERS:
        check_address(server.address, resolve=False)
        assert server.note


def test_a_picture_is_not_needed_to_prepare_text(endpoint):
    adapter = endpoint()
    assert adapter.prepare(picture(), Request(adapter.options())).picture.mime == "image/jpeg"
