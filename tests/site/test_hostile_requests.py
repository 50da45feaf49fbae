"""Wrong requests at every operation of the API, drawn from its schema, and at every page: the answer is never "500".

Bodies begin as what the operation takes, about things that are there, and get one to three wrong values, so that they
come far. The draw is the same each time; IWTAG_TEST_HOSTILE sets how many requests, IWTAG_TEST_SEED another draw.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from django.urls import get_resolver

from iwtag_site.api import api
from judging.actions.arena import Bout, vote
from judging.actions.gates import save_gate
from judging.actions.judge_jobs import run_job, start_job
from judging.models import JudgedTag, JudgeProfile
from prompts import actions as prompt_actions
from prompts.models import PromptVersion
from tagging.actions import labels, presets
from tagging.actions.policies import create_policy, create_policy_version
from tagging.models import ImageAsset, Run, Tag
from tests.judging import lab
from tests.judging.conftest import fake  # noqa: F401  (a fixture)
from tests.judging.judges.conftest import scripted  # noqa: F401  (a fixture)
from tests.judging.judges.world import judge
from tests.tagging.world import keyed, person

REQUESTS = int(os.environ.get("IWTAG_TEST_HOSTILE", "700"))
SEED = int(os.environ.get("IWTAG_TEST_SEED", "11"))
DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]
WRONG: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        2**15,
        2**31,
        2**32 + 1,
        2**63,
        2**64 + 1,
        10**40,
        -(2**63) - 1,
        0.5,
        1e308,
        -0.0,
    ),
    *("", " ", "x", "\x00", "a\x00b", "\ud800", "\U0001f98a" * 3, "x" * 6000, "é" * 300, "0", "-1", "9" * 30, "1e5"),
    *(
        "../../etc/passwd",
        "' OR 1=1 --",
        "%",
        "*",
        "(",
        "[a-z",
        "{{ x }}",
        "{% for",
        "{{ 1/0 }}",
        "{{ wordlist('x') }}",
    ),
    *("a,b", "a@b", "/", "@", "NaN", "inf", "trip", "fake", "1", "champion", "\n", "\u202e", "ſ", "ß"),
    *([], {}, [[]], [None], [{}], [1, "x", None], {"": None}, {"a": {"b": []}}, {"a\x00": "b"}, ["a\x00"], ["\ud800"]),
    *([2**70], ["x"] * 500, list(range(600)), {"x" * 300: 1}, {"rule": "weighted"}, {"rule": 5}, {"mode": "x"}, DEEP),
]
RAW = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b"[" * 3000,
    b"1e999",
    b"\x00",
]


class World:
    """What is there, by the names under which requests speak of it."""

    def __init__(self, model: Any) -> None:
        trip = lab.collection(6)
        images = list(ImageAsset.objects.order_by("pk"))
        lab.decide(images[:4], {"variant": "a", "kept": 4}, {"variant": "b"})
        axes = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"]}}
        experiment = lab.finish(_started(lab.experiment(trip, axes, name="E")))
        rows = list(experiment.rows.order_by("position"))
        draft = lab.experiment(trip, axes, name="F")
        runs = list(Run.objects.order_by("pk"))
        shown = lab.run(rows[0].recipe, trip)
        ann = person("ann", "administrator")
        vote(experiment, Bout(images[0].pk, rows[0].pk, rows[1].pk), "left", by=ann)
        profile = judge(truth={image.path: lab.said(image) for image in images})
        pair = JudgeProfile.objects.get(kind="pairwise")
        job = start_job(profile.current, runs=[shown])
        run_job(job.pk)
        save_gate(trip, profile, enabled=True)
        prompt = prompt_actions.create_prompt(slug="p", name="p")
        prompt_actions.create_version(prompt, template="Name {{ x | default('it') }}", message="begin")
        prompt_actions.create_wordlist(slug="no-go", kind="banned", entries=["cat"], message="begin")
        create_policy_version(create_policy(slug="strict"), {}, message="begin")
        preset = presets.save_preset("warm", kind="fake", values={"variant": "b"}, adapter=model, owner=ann)
        event = labels.move_label("champion", rows[0].recipe, why="x")
        self.client: Client = keyed(ann)
        self.client.raise_request_exception = False
        self.values: dict[str, list[Any]] = {
            "collection": ["trip"], "reviewed": ["trip"], "image": [i.pk for i in images],
            "images": [[i.pk for i in images[:2]]], "image_id": [images[0].pk], "adapter": ["fake"],
            "run": [shown.pk, runs[0].pk], "runs": [[runs[0].pk], [r.pk for r in runs]], "others": [[], [runs[-1].pk]],
            "run_id": [shown.pk, runs[0].pk], "recipe": [rows[0].recipe_id, "champion"],
            "recipe_id": [rows[0].recipe_id], "base": ["", rows[0].recipe_id], "baseline": [None, rows[0].recipe_id],
            "experiment": [experiment.pk], "experiment_id": [experiment.pk, draft.pk], "row_id": [r.pk for r in rows],
            "rows": [[r.pk for r in rows]], "left": [rows[0].pk], "right": [rows[1].pk, True],
            "judge": [profile.slug, pair.slug], "job_id": [job.pk], "label_id": [event.label_id],
            "event_id": [event.pk], "preset_id": [preset.pk], "preset": [None, preset.pk], "tag": ["dog"],
            "prompt_version": [None, PromptVersion.objects.order_by("-pk").first().pk], "version": [1, None],
            "policy": ["strict", None], "wordlist": ["no-go", None], "kind": ["fake", "verifier", "banned"],
            "axes": [axes, {"mode": "oat", "adapters": ["fake"], "options": {"kept": [1, 2]}}],
            "options": [{"variant": "b"}, {}], "values": [{"variant": "b"}], "rule": [{"rule": "union"}],
            "rules": [[{"rule": "union"}], {"votes": 1}], "combine": [None, {"rule": "union"}], "number": [1],
            "channels": [[], [{"adapter": "fake", "name": "a"}, {"adapter": "fake", "name": "b"}]],
            "merge": [None], "response_schema": [None, {"type": "object"}], "spec": [{}, {"banned": ["cat"]}],
            "judged_id": list(JudgedTag.objects.values_list("pk", flat=True)[:3]),
            "tag_id": [Tag.objects.order_by("pk").first().pk], "filter": ["", "tag=dog"], "source": ["x/y", "/nowhere"],
            "slug": ["trip"], "cursor": ["", "abc", "MQ"], "stage": ["smoke", "full"], "winner": ["left", "tie"],
        }  # fmt: skip
        self.slugs = {
            "collections": "trip", "adapters": "fake", "judges": profile.slug, "prompts": "p", "policies": "strict",
            "wordlists": "no-go",
        }  # fmt: skip


def _started(experiment: Any) -> Any:
    from judging.actions.experiments import start

    start(experiment)
    return experiment


class Drawn:
    """Requests drawn from the schema."""

    def __init__(self, world: World, rng: random.Random) -> None:
        schema = api.get_openapi_schema()
        self.world, self.rng, self.named = world, rng, schema["components"]["schemas"]
        self.operations = [(m.upper(), path, op) for path, ms in schema["paths"].items() for m, op in ms.items()]

    def fits(self, name: str, schema: dict[str, Any]) -> Any:
        """A value that the operation takes, about something that is there where the name says what."""
        rng = self.rng
        if "$ref" in schema:
            schema = self.named[schema["$ref"].rpartition("/")[2]]
        if name in self.world.values and rng.random() < 0.9:
            return rng.choice(self.world.values[name])
        if "enum" in schema:
            return rng.choice(schema["enum"])
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return self.fits(name, rng.choice(schema[several]))
        kind = schema.get("type", "object")
        if kind == "object":
            needed, known = set(schema.get("required", ())), schema.get("properties", {})
            return {k: self.fits(k, s) for k, s in known.items() if k in needed or rng.random() < 0.5}
        if kind == "array":
            return [self.fits(name, schema.get("items", {})) for _ in range(rng.randrange(3))]
        simple = {"string": ["x", "dog", "two words"], "boolean": [True, False], "null": [None], "number": [0.3, 1]}
        return rng.choice(simple.get(kind, [1, 2, 5]))

    def spoil(self, value: Any) -> Any:
        """The same with something wrong in it, at any depth."""
        rng = self.rng
        if isinstance(value, dict) and value and rng.random() < 0.85:
            key = rng.choice(list(value))
            return {**value, key: self.spoil(value[key])}
        if isinstance(value, list) and value and rng.random() < 0.6:
            at = rng.randrange(len(value))
            return [*value[:at], self.spoil(value[at]), *value[at + 1 :]]
        return rng.choice(WRONG)

    def address(self, path: str, operation: dict[str, Any]) -> str:
        rng, query = self.rng, []
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            value = self.fits(name, parameter["schema"])
            if name == "slug":
                value = self.world.slugs.get(path.split("/")[2], "trip")
            if rng.random() < (0.12 if parameter["in"] == "path" else 0.5):
                value = rng.choice(WRONG)
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", _quoted(value))
            elif rng.random() < 0.6:
                query.append(f"{name}={_quoted(value)}")
        return f"{path}?{'&'.join(query)}" if query else path

    def body(self, operation: dict[str, Any]) -> tuple[Any, str]:
        rng = self.rng
        content = operation.get("requestBody", {}).get("content", {})
        kind, given = next(iter(content.items()), ("application/json", {"schema": {}}))
        if rng.random() < 0.05:
            return rng.choice(RAW), "application/json"
        value = self.fits("", given["schema"])
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            value = self.spoil(value)
        if kind == "multipart/form-data":
            return self.form(value, given["schema"]), kind
        return json.dumps(value).encode(), "application/json"

    def form(self, value: Any, schema: dict[str, Any]) -> dict[str, Any]:
        fields = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else {}
        fields = {str(k): v if isinstance(v, str | bytes) else json.dumps(v) for k, v in fields.items()}
        fields = {k.replace("\x00", "0"): v.encode("utf-8", "replace") for k, v in fields.items()}
        for name in ("file", "files", "variants"):
            text = self.rng.choice([*RAW, b"cat\n", b"{}", b"---\nname: x\n---\nHello", b"name,count\ncat,1\n"])
            if name in str(schema) or self.rng.random() < 0.3:
                fields[name] = SimpleUploadedFile(self.rng.choice(["a.txt", "a.json", "a.md", "a.zip"]), text)
        return fields


def _quoted(value: Any) -> str:
    return quote(_as_text(value)[:1500].encode("utf-8", "surrogatepass"), safe="")


#: What pages are asked with, and what their forms send.
NAMES = """
collection before after cursor q metric axis a b
of length from n accept reject judge run image
tag verb name why scope bout answer note sort
slug batch policy adapter sample stage kind rule rules
rows review enabled max_calls template system response_schema word wordlist
message text recipe do prompt_version share target audit_share accept_at
runs others experiment format seed filter base
""".split()


def pages(resolver: Any = None, before: str = "") -> Iterator[str]:
    """Routes of the pages, with their arguments in angle brackets."""
    for pattern in (resolver or get_resolver()).url_patterns:
        route = before + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            if route not in ("admin/", "api/"):
                yield from pages(pattern, route)
        elif "logout" not in route:
            yield f"/{route}"


@pytest.mark.django_db
def test_no_page_is_answered_with_500(fake, scripted, caplog):  # noqa: F811
    world = World(fake)
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get(username="ann"))
    rng, routes, failed = random.Random(SEED), sorted(set(pages())), {}
    ids = [value for values in world.values.values() for value in values if isinstance(value, int)]
    answers: Counter[int] = Counter()

    def argument(found: re.Match[str]) -> str:
        kind, _, name = found[1].rpartition(":")
        if kind == "int":
            return str(rng.choice([*world.values.get(name, ids), 10**20 if rng.random() < 0.1 else 1]))
        return _quoted(rng.choice(["trip", "fake", "p", "no-go", "strict", world.values["judge"][0], "pause", "start"]))

    for _ in range(REQUESTS):
        route = rng.choice(routes)
        address = re.sub(r"<([^>]+)>", argument, route)
        sent = {name: rng.choice(WRONG) for name in rng.sample(NAMES, rng.choice((0, 2, 5, 20)))}
        sent |= {n: rng.choice(world.values[n]) for n in rng.sample(NAMES, 8) if n in world.values}
        text = {n: _as_text(value) for n, value in sent.items()}
        caplog.clear()
        with transaction.atomic():
            if rng.random() < 0.5:
                answer = client.get(f"{address}?{'&'.join(f'{n}={_quoted(v)}' for n, v in text.items())}")
            else:
                form = "&".join(f"{n}={_quoted(v)}" for n, v in text.items())
                answer = client.post(address, form, content_type="application/x-www-form-urlencoded")
            if answer.streaming:
                b"".join(answer.streaming_content)
            transaction.set_rollback(True)
        answers[answer.status_code] += 1
        if answer.status_code >= 500:
            raised = [r.exc_info[1] for r in caplog.records if r.exc_info]
            failed.setdefault(f"{answer.request['REQUEST_METHOD']} {route}: {raised[:1]!r}"[:400], repr(sent)[:900])
    print(sorted(answers.items()))
    assert failed == {}
    assert answers[200] > REQUESTS // 20, "they get nowhere"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.django_db
def test_no_request_is_answered_with_500(fake, scripted, caplog):  # noqa: F811
    world = World(fake)
    rng = random.Random(SEED)
    drawn = Drawn(world, rng)
    answers: Counter[int] = Counter()
    failed: dict[str, str] = {}
    for _ in range(REQUESTS):
        method, path, operation = rng.choice(drawn.operations)
        address = drawn.address(path, operation)
        body, kind = drawn.body(operation) if method != "GET" else (b"", "application/json")
        caplog.clear()
        with transaction.atomic():  # what it changes is taken back: every request meets the same world
            if isinstance(body, dict):
                answer = world.client.post(address, body)
            else:
                answer = world.client.generic(method, address, body, content_type=kind)
            if answer.streaming:
                b"".join(answer.streaming_content)
            transaction.set_rollback(True)
        answers[answer.status_code] += 1
        if answer.status_code >= 500:
            raised = [r.exc_info[1] for r in caplog.records if r.exc_info]
            failed.setdefault(f"{method} {path}: {raised[:1]!r}"[:400], f"{address[:300]} {repr(body)[:600]}")
    print(sorted(answers.items()))
    assert failed == {}
    assert answers[200] > REQUESTS // 20, "they get nowhere"
    assert answers[422] > REQUESTS // 10
