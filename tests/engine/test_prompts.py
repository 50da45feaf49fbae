"""Prompts on their way to the model: what is written for each image, and when a cached answer counts."""

from __future__ import annotations

import io

import pytest
from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.test.utils import CaptureQueriesContext
from PIL import Image

from prompts.actions import create_prompt, create_version, create_wordlist, save_wordlist
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.adapters import registry
from tagging.engine import contexts, residency, worker
from tagging.engine import work as work_module
from tagging.engine.progress import progress
from tagging.engine.stage import stage_of
from tagging.models import Collection, ImageAsset, ImageTag, ModelAdapter, Prediction, Run, Tag

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.setattr(work_module, "FLUSH", 0.0)
    contexts.words_of.cache_clear()
    yield
    residency.MODELS.evict()


@pytest.fixture
def talker(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "fake-talker", ("Fake talker", "tests.fakes.adapter:Talker"))
    registry.registered.cache_clear()
    yield ModelAdapter.objects.create(slug="talker", label="Talker", kind="fake-talker", options={"says": "{prompt}"})
    registry.registered.cache_clear()


def photo(**exif) -> bytes:
    written = Image.Exif()
    for tag, value in exif.items():
        written[{"Make": 0x010F, "Model": 0x0110}[tag]] = value
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", exif=written)
    return out.getvalue()


@pytest.fixture
def collection():
    made = Collection.objects.create(name="Trip", slug="trip", kind="upload")
    for i in range(6):
        path = f"sea/{i}.jpg"
        ImageAsset.objects.create(collection=made, path=path, sha256=f"{i:064x}")
        default_storage.save(f"{made.upload_prefix}/{path}", ContentFile(photo(Model=f"X{i}")))
    return made


def version(template, *, system="", schema=None, slug="p"):
    prompt = create_prompt(slug=slug)
    return create_version(prompt, system=system, template=template, response_schema=schema, message="x")


def start(talker, collection, prompt, *, variables=None, options=None, **more) -> Run:
    recipe = get_recipe([ChannelSpec(talker, prompt, options or {}, variables=variables or {})])
    return start_run(recipe, collection=collection, **more)


def work(times=20):
    for _ in range(times):
        if not worker.drain("gpu"):
            return


def said(run) -> dict[str, str]:
    """Path → the model's reply, which is the prompt it was asked with."""
    return dict(run.proposals.values_list("image__path", "prediction__text"))


def cached(run) -> int:
    return progress([run])[run.pk].cached


def test_every_variable_reaches_the_model(talker, collection):
    create_wordlist(slug="styles", kind="vocabulary", entries=["noir", {"text": "/x+/", "match": "regex"}, "macro"])
    other = Run.objects.create(
        recipe=get_recipe([ChannelSpec(talker, version("x", slug="other"))]), name="old", collection=collection
    )
    first = collection.images.get(path="sea/0.jpg")
    other.proposals.create(
        image=first,
        state="ok",
        tags=[["boat", "general", 0.5, "kept", "", "x", ""], ["rope", "general", 0.4, "dropped", "banned", "x", ""]],
        caption="A boat.",
    )
    tag = Tag.objects.create(name="shore")
    ImageTag.objects.create(image=first, tag=tag, state=ImageTag.State.ACCEPTED, score=0.8)
    rejected = Tag.objects.create(name="city")
    ImageTag.objects.create(image=first, tag=rejected, state=ImageTag.State.REJECTED)
    ImageAsset.objects.filter(pk=first.pk).update(caption="Waves.", caption_state="accepted")
    prompt = version(
        "{{ image.name }}|{{ image.stem }}|{{ image.folder }}|{{ image.collection }}|{{ exif.Model }}|{{ tags }}|"
        "{{ tags('old') }}|{{ tags('" + str(other.pk) + "') | length }}|{{ caption }}|{{ caption('old') }}|"
        "{{ wordlist('styles') }}|{{ max_tags }}|{{ subject | default('photograph') }}"
    )
    run = start(talker, collection, prompt, variables={"subject": "drawing"})
    work()
    assert said(run)["sea/0.jpg"] == ("0.jpg|0|sea|Trip|X0|shore|boat|1|Waves.|A boat.|noir, macro||drawing")
    assert said(run)["sea/1.jpg"] == "1.jpg|1|sea|Trip|X1|||0|||noir, macro||drawing"


def test_system_schema_and_sample_are_part_of_the_question(talker, collection):
    schema = {"type": "object"}
    prompt = version("hello", system="Be brief about {{ image.stem }}.", schema=schema)
    options = {"says": "{system}/{prompt}/{schema}/{sample}"}
    run = start(talker, collection, prompt, options=options)
    work()
    assert said(run)["sea/2.jpg"] == 'Be brief about 2./hello/{"type": "object"}/0'
    again = start(talker, collection, prompt, options=options, sample=1)
    work()
    assert said(again)["sea/2.jpg"].endswith("/1")
    assert (cached(again), Prediction.objects.count()) == (0, 12)
    third = start(talker, collection, prompt, options=options, sample=1)
    work()
    assert cached(third) == 6


def test_the_rendered_text_counts_and_not_the_version(talker, collection):
    run = start(talker, collection, version("Name the {{ what | default('things') }}."))
    work()
    same = start(talker, collection, version("Name the things.", slug="q"))
    work()
    assert (cached(run), cached(same)) == (0, 6)
    other = start(
        talker, collection, version("Name the {{ what | default('things') }}.", slug="r"), variables={"what": "birds"}
    )
    work()
    assert (cached(other), set(said(other).values())) == (0, {"Name the birds."})


def test_a_list_invalidates_only_where_it_is_written_out(talker, collection):
    words = create_wordlist(slug="styles", kind="vocabulary", entries=["noir"])
    create_wordlist(slug="other", kind="banned", entries=["x"])
    listed, plain = version("One of {{ wordlist('styles') }}"), version("Say it", slug="q")
    runs = [start(talker, collection, p) for p in (listed, plain)]
    work()
    save_wordlist(words, ["noir", "macro"])
    runs += [start(talker, collection, p) for p in (listed, plain)]
    work()
    assert [cached(run) for run in runs] == [0, 0, 0, 6]
    assert set(said(runs[0]).values()) == {"One of noir"}
    assert set(said(runs[2]).values()) == {"One of noir, macro"}
    assert runs[2].wordlists == {"styles": words.current.pk}


def test_a_list_changed_during_a_run_counts_for_the_next_one(talker, collection):
    words = create_wordlist(slug="styles", kind="vocabulary", entries=["noir"])
    run = start(talker, collection, version("One of {{ wordlist('styles') }}"))
    save_wordlist(words, ["macro"])
    work()
    assert set(said(run).values()) == {"One of noir"}


def test_a_list_that_is_empty_is_said_before_anything_runs(talker, collection):
    words = create_wordlist(slug="styles", kind="vocabulary")
    prompt = version("One of {{ wordlist('styles') }}")
    with pytest.raises(ValidationError, match="styles"):
        start(talker, collection, prompt)
    words.delete()
    with pytest.raises(ValidationError, match="styles"):
        start(talker, collection, prompt)
    assert not Run.objects.exists()


def test_a_prompt_that_fails_on_one_image_is_that_images_error(talker, collection):
    prompt = version("{{ 10 // (image.stem | int - 3) }}")
    run = start(talker, collection, prompt)
    work()
    run.refresh_from_db()
    assert run.state == "done"
    (error,) = run.proposals.filter(state="error")
    assert error.image.path == "sea/3.jpg"
    assert "template, line 1" in error.error
    assert run.proposals.filter(state="ok").count() == 5


def test_a_prompt_that_fails_on_all_images_fails_the_run_with_its_line(talker, collection):
    run = start(talker, collection, version("a\n{{ max_tags // 0 }}"))
    work()
    run.refresh_from_db()
    assert run.state == "failed"
    assert "template, line 2" in run.error


def test_a_source_that_does_not_exist_is_named(talker, collection):
    run = start(talker, collection, version("{{ tags('nobody') }}"))
    work()
    assert {p.error for p in run.proposals.all()} == {
        "The prompt cannot be written for this image: template, line 1: there is no run or channel 'nobody'"
    }


def test_more_images_cost_no_more_queries(talker, collection):
    create_wordlist(slug="styles", kind="vocabulary", entries=["noir"])
    prompt = version("{{ image.name }} {{ tags }} {{ caption }} {{ image.collection }} {{ wordlist('styles') }}")
    run = start(talker, collection, prompt)
    run.refresh_from_db()
    stage = stage_of(run, 0)
    counted = []
    for n in (2, 6):
        images = list(collection.images.select_related("collection")[:n])
        contexts.words_of.cache_clear()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert len(stage.requests(run, images)) == n
        counted.append(len(queries))
    assert counted[0] == counted[1] <= 3


def test_unknown_variables_and_bad_names_are_refused(talker):
    prompt = version("{{ what | default('x') }}")
    with pytest.raises(ValidationError, match="no free variable 'wat'; it has what"):
        get_recipe([ChannelSpec(talker, prompt, variables={"wat": "x"})])
    with pytest.raises(ValidationError, match="a text, a number"):
        get_recipe([ChannelSpec(talker, prompt, variables={"what": ["x"]})])
    with pytest.raises(ValidationError, match="no name for a channel"):
        get_recipe([ChannelSpec(talker, prompt, name="a b")])
    one, two = (get_recipe([ChannelSpec(talker, prompt, variables=v)]) for v in ({}, {"what": "y"}))
    assert one != two


def test_trials_and_experiments_are_not_shown(talker, collection):
    prompt = version("x")
    run = start(talker, collection, prompt, purpose="trial")
    assert not run.shown
    assert start(talker, collection, prompt).shown
    assert list(Run.objects.listed()) == [Run.objects.latest("pk")]
    for bad in ({"purpose": "fun"}, {"sample": -1}, {"sample": 1000}):
        with pytest.raises(ValidationError):
            start(talker, collection, prompt, **bad)


def test_a_cut_answer_is_flagged(talker, collection):
    run = start(talker, collection, version("x"), options={"truncated": ["1.jpg"]})
    work()
    assert run.proposals.get(image__path="sea/1.jpg").flags == ["truncated"]
    assert run.proposals.get(image__path="sea/2.jpg").flags == []
