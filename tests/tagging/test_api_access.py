"""What holds for every operation: who gets in, how errors look, what is refused."""

from __future__ import annotations

import json
import re

import pytest
from django.test import Client

from iwtag_site.api import api
from tagging.models import TagEdit

from .world import collection, image, key_of, keyed, person, run_of

pytestmark = pytest.mark.django_db
OPEN = {("GET", "/api/health")}


def operations():
    for path, methods in api.get_openapi_schema()["paths"].items():
        for method in methods:
            if (method.upper(), path) not in OPEN:
                yield method.upper(), path


OPERATIONS = sorted(operations())
#: Questions too long for an address: they change nothing, and ask for the rights of a read.
ASKING = {("POST", "/api/experiments/preflight"), ("POST", "/api/experiments/{experiment_id}/ensembles")}
READS = [(m, p) for m, p in OPERATIONS if m == "GET"]
WRITES = [(m, p) for m, p in OPERATIONS if m != "GET" and (m, p) not in ASKING]


def concrete(path):
    return re.sub(r"{\w*slug}", "trip", re.sub(r"{\w*(id|number)}", "1", path))


def smallest(schema, definitions):
    """The smallest value that a JSON schema lets through."""
    if "$ref" in schema:
        return smallest(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "default" in schema or "const" in schema:
        return schema.get("const", schema.get("default"))
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return smallest(schema[several][0], definitions)
    kind = schema.get("type", "object")
    if kind == "object":
        needed = schema.get("required", ())
        return {name: smallest(schema["properties"][name], definitions) for name in needed}
    if kind == "array":
        return [smallest(schema["items"], definitions)] * schema.get("minItems", 0)
    simple = {"string": "x" * max(1, schema.get("minLength", 1)), "boolean": True, "null": None}
    return simple.get(kind, max(1, schema.get("minimum", 1)))


def smallest_bodies():
    schema = api.get_openapi_schema()
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                yield (
                    (method.upper(), path),
                    smallest(content["application/json"]["schema"], schema["components"]["schemas"]),
                )


#: The smallest bodies that get past the check of their shape, where the schema alone does not say them.
SMALLEST = dict(smallest_bodies())
BODIES = {
    "/api/collections": {"name": "x", "kind": "upload"},
    "/api/tags": {"name": "x"},
    "/api/tags/{tag_id}/aliases": {"name": "x"},
    "/api/adapters": {"slug": "x", "label": "x", "kind": "wd"},
    "/api/runs": {"collection": "trip", "adapter": "x"},
    "/api/labels": {"name": "x", "recipe": 1, "why": "x"},
    "/api/exports": {"collection": "trip", "format": "csv"},
    "/api/exports/{export_id}/entries": {"selected": True},
    "/api/imports/{import_id}/select": {"rows": [1], "selected": True},
    "/api/prompts": {"slug": "x"},
    "/api/prompts/check": {"template": "x"},
    "/api/prompts/fork": {"version": 1, "slug": "x"},
    "/api/prompts/{slug}/versions": {"template": "x", "message": "x"},
    "/api/wordlists": {"slug": "x", "kind": "banned"},
    "/api/wordlists/{slug}/entries": {"line": "x"},
    "/api/wordlists/{slug}/aliases": {"alias": "x", "of": "y"},
    "/api/policies": {"slug": "x"},
    "/api/policies/preview": {"run": 1},
    "/api/recipes": {"adapter": "x"},
    "/api/recompute": {"run": 1, "policy": "x"},
}


def call(client, method, path):
    if path.endswith("/uploads"):
        from django.core.files.uploadedfile import SimpleUploadedFile

        return client.post(concrete(path), {"files": [SimpleUploadedFile("a.jpg", b"x")]})
    if (method, path) == ("POST", "/api/experiments/import"):
        from django.core.files.uploadedfile import SimpleUploadedFile

        return client.post(path, {"file": SimpleUploadedFile("a.json", b"{}"), "collection": "trip"})
    if path.endswith("/import"):
        from django.core.files.uploadedfile import SimpleUploadedFile

        return client.post(concrete(path), {n: SimpleUploadedFile("a.txt", b"x") for n in ("file", "files")})
    if (method, path) == ("POST", "/api/imports"):
        return client.post(path, {"collection": "trip", "source": "sidecars", "target": "truth"})
    query = "?collection=trip" if path == "/api/images" else ""
    body = json.dumps(BODIES.get(path, SMALLEST.get((method, path), {})))
    return client.generic(method, concrete(path) + query, body, content_type="application/json")


def answers(client, operations):
    """Operation → (status, detail), for comparison in one go."""
    found = {}
    for method, path in operations:
        answer = call(client, method, path)
        found[(method, path)] = (answer.status_code, answer.json()["detail"])
    return found


def test_strangers_get_401():
    found = answers(Client(), OPERATIONS)
    assert {o: v for o, v in found.items() if v[0] != 401 or "X-API-Key" not in v[1]} == {}


def test_people_without_a_role_get_403():
    client = Client()
    client.force_login(person("ann"))
    found = answers(client, OPERATIONS)
    assert {o: v for o, v in found.items() if v[0] != 403 or "role" not in v[1]} == {}


def test_viewers_change_nothing():
    client = Client()
    client.force_login(person("ann", "viewer"))
    assert {o: v for o, v in answers(client, WRITES).items() if v[0] != 403} == {}


def test_a_key_to_read_changes_nothing():
    found = answers(keyed(person("ann", "administrator"), ["read"]), WRITES)
    assert {o: v for o, v in found.items() if v[0] != 403 or "scope" not in v[1]} == {}


def test_a_key_to_write_reads_nothing():
    found = answers(keyed(person("ann", "administrator"), ["write"]), READS)
    assert {o: v for o, v in found.items() if v[0] != 403} == {}


def test_unknown_parameters_are_refused():
    collection()
    client = keyed(person("ann", "administrator"))
    found = {}
    for method, path in READS:
        needed = "collection=trip&" if path == "/api/images" else ""
        answer = client.get(f"{concrete(path)}?{needed}colour=red")
        if (answer.status_code, answer.json().get("field")) != (422, "colour"):
            found[(method, path)] = answer.content
    assert found == {}


def test_what_is_not_there_is_a_404():
    named = [(m, p) for m, p in READS if "{" in p]
    found = answers(keyed(person("ann", "administrator")), named)
    assert len(named) > 8
    assert {o: v for o, v in found.items() if v[0] != 404 or not v[1]} == {}


@pytest.fixture
def one():
    trip = collection()
    return image(trip, "a.jpg", run=run_of(trip), tags={"dog": 0.9})


def test_a_wrong_key_does_not_fall_through_to_the_session(one):
    client = Client(headers={"X-API-Key": "iwtabcdefghi.wrong"})
    client.force_login(person("ann", "reviewer"))
    answer = client.get("/api/tags")
    assert answer.status_code == 401
    assert "wrong" in answer.json()["detail"]


def test_a_session_needs_the_csrf_token_to_change_things(one):
    ann = person("ann", "reviewer")
    client = Client(enforce_csrf_checks=True)
    client.force_login(ann)
    url = f"/api/images/{one.pk}/decisions"
    assert client.get("/api/tags").status_code == 200
    refused = client.post(url, {"verb": "accept"}, content_type="application/json")
    assert refused.status_code == 403
    assert not TagEdit.objects.exists()
    token = "t" * 32
    client.cookies["csrftoken"] = token
    accepted = client.post(url, {"verb": "accept"}, content_type="application/json", headers={"X-CSRFToken": token})
    assert accepted.status_code == 200, accepted.content


def test_a_key_needs_no_csrf_token(one):
    client = Client(enforce_csrf_checks=True, headers={"X-API-Key": key_of(person("ann", "reviewer"), ["write"])})
    answer = client.post(f"/api/images/{one.pk}/decisions", {"verb": "accept"}, content_type="application/json")
    assert answer.status_code == 200


def test_a_key_loses_what_its_owner_loses(one):
    ann = person("ann", "reviewer")
    client = keyed(ann, ["read", "write"])
    ann.groups.clear()
    answer = client.post(f"/api/images/{one.pk}/decisions", {"verb": "accept"}, content_type="application/json")
    assert answer.status_code == 403
    assert client.get("/api/tags").status_code == 403


def test_broken_bodies_are_said(one):
    client = keyed(person("ann", "reviewer"), ["write"])
    url = f"/api/images/{one.pk}/decisions"
    for body in (b"{", b"\xff", b"[]", b'{"acept": []}', b'{"caption": {}}', b"null"):
        answer = client.post(url, body, content_type="application/json")
        assert answer.status_code in (400, 422), body
        assert answer.json()["detail"]
    assert client.post(url, b'{"acept": []}', content_type="application/json").json()["field"] == "acept"
    assert client.post(url, b'{"caption": {}}', content_type="application/json").json()["field"] == "caption"
    assert not TagEdit.objects.exists()


@pytest.mark.parametrize("text", ["a\\u0000b", "a\\ud800b"])
def test_text_that_no_database_keeps_is_refused(one, text):
    client = keyed(person("cy", "administrator"))

    def field(method, url, body=None):
        answer = client.generic(method, url, body or "", content_type="application/json")
        return answer.status_code, answer.json().get("field")

    decisions = f"/api/images/{one.pk}/decisions"
    assert field("POST", decisions, f'{{"caption": "{text}"}}') == (422, "caption")
    assert field("POST", decisions, f'{{"add": ["{text}"]}}') == (422, "add")
    assert field("POST", "/api/collections", f'{{"name": "{text}", "kind": "upload"}}') == (422, "name")
    assert field("POST", "/api/runs", f'{{"collection": "trip", "options": {{"a": "{text}"}}}}') == (422, "options.a")
    assert field("POST", "/api/runs", '{"collection": "trip", "options": {"a": NaN}}') == (422, "options.a")
    assert field("GET", "/api/tags?category=a%00b") == (422, "category")
    assert field("GET", "/api/collections/a%00b") == (422, "slug")
    assert not TagEdit.objects.exists()


def test_an_unexpected_failure_is_a_plain_500(one, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("secret detail")

    monkeypatch.setattr("tagging.actions.tags.search_tags", broken)
    answer = keyed(person("ann", "viewer"), ["read"]).get("/api/tags/search")
    assert answer.status_code == 500
    assert "secret" not in answer.content.decode()
    assert "secret detail" in caplog.text


def test_the_docs_are_served_from_here(one):
    page = Client().get("/api/docs").content.decode()
    assert "swagger" in page
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert Client().get("/api/openapi.json").json()["info"]["title"] == "iwtag"


@pytest.mark.parametrize("given", ["9223372036854775808", "99999999999999999999999", "-1", "abc", "1e5"])
def test_numbers_in_the_address_that_name_nothing_are_not_found(given):
    collection()
    client = keyed(person("root", is_superuser=True))
    found = {}
    for method, path in OPERATIONS:
        address = concrete(re.sub(r"{\w*(id|number)}", given, path))
        if address != concrete(path):
            body = json.dumps(BODIES.get(path, SMALLEST.get((method, path), {})))
            answer = client.generic(method, address, body, content_type="application/json")
            found[method, path] = (answer.status_code, answer.json()["detail"])
    assert len(found) > 20
    assert {o: v for o, v in found.items() if v[0] not in (404, 422) or not v[1]} == {}


def test_an_address_that_leads_nowhere_is_json_here_and_a_page_elsewhere(client):
    answer = client.get("/api/nothing/here")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/json")
    assert "/api/docs" in answer.json()["detail"]
    assert b"<h1>" in client.get("/nothing/here").content


@pytest.mark.parametrize("body", ["", "[]", "null", "1", '"x"'])
def test_a_body_that_is_no_object_is_said_to_be_none(body):
    answer = keyed(person("cy", "curator")).post("/api/runs", body, content_type="application/json")
    assert (answer.status_code, answer.json()) == (422, {"detail": "The body must be a JSON object."})


def test_numbers_that_no_database_keeps_name_their_field():
    answer = keyed(person("vi", "viewer"), ["read"]).get(f"/api/recompute?run={10**22}")
    assert (answer.status_code, answer.json()["field"]) == (422, "run")
