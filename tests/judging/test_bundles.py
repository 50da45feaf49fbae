"""An experiment as a file: what is read elsewhere has the leaderboard that was written."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command

from judging import board, bundles
from judging.actions.bundles import import_bundle
from judging.actions.experiments import start
from judging.models import Experiment
from prompts.models import Prompt, PromptVersion
from tagging.actions.recipes import default_policy_version
from tagging.actions.tags import add_alias, create_tag
from tagging.models import Channel, Collection, ImageAsset, ImageTag, ModelAdapter, Prediction, Recipe, Run, Tag
from tests.tagging.truth import violations
from tests.tagging.world import keyed, person

from . import lab
from .test_experiments import images

pytestmark = pytest.mark.django_db
AXES = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b", "c"], "kept": [3, 5]}}


@pytest.fixture
def written(fake):
    """An experiment with samples, a held-out part and an alias, as text; with its leaderboard."""
    trip = lab.collection(30)
    create_tag("the first", category="place")
    add_alias(Tag.objects.get(), "label 1")
    lab.decide(images(trip), {"variant": "a"}, wrong={"variant": "b"})
    made = lab.experiment(trip, AXES, samples=2, holdout=0.2, seed=4, question="Which?")
    start(made)
    lab.finish(made)
    return list(bundles.lines(made)), comparable(made)


def comparable(experiment):
    """A leaderboard without the numbers that rows have in a database."""
    found = board.compute(experiment)
    return json.loads(json.dumps({**found, "rows": [
        {k: v for k, v in row.items() if k not in ("row", "recipe")} for row in found["rows"]
    ]}))  # fmt: skip


def elsewhere():
    """Everything gone but the images: another installation."""
    Experiment.objects.all().delete()
    Run.objects.all().delete()
    Prediction.objects.all().delete()
    Channel.objects.all().delete()
    Recipe.objects.all().delete()
    ModelAdapter.objects.all().delete()
    from tagging.models import TagEdit

    TagEdit.objects.all().delete()
    ImageTag.objects.all().delete()
    Tag.objects.all().delete()
    from tagging.models import TagCount

    TagCount.objects.all().delete()
    # other numbers, another order
    old = list(ImageAsset.objects.order_by("-pk").values("path", "sha256"))
    Collection.objects.all().delete()
    made = Collection.objects.create(name="Copy", slug="copy", kind="upload")
    ImageAsset.objects.bulk_create(ImageAsset(collection=made, **row) for row in old)
    return made


def test_leaderboards_are_equal_after_export_and_import(written):
    text, wanted = written
    copy = elsewhere()
    made = import_bundle(text, copy)
    assert (made.images, made.missing) == (30, 0)
    assert comparable(made.experiment) == wanted
    assert violations() == []
    # what cannot run here is switched off, and no answer of a model here was invented
    assert not ModelAdapter.objects.get().enabled
    assert Run.objects.listed().count() == 0


def test_recipes_that_are_here_are_used_and_the_same_file_twice_is_no_harm(written):
    text, wanted = written
    trip = Collection.objects.get()
    recipes, tags = Recipe.objects.count(), ImageTag.objects.count()
    made = import_bundle(text, trip)
    assert comparable(made.experiment) == wanted
    assert (Recipe.objects.count(), ImageTag.objects.count(), made.decisions) == (recipes, tags, 0)
    assert ModelAdapter.objects.get().enabled


def test_a_prompt_and_a_policy_come_along(written, fake):
    trip = Collection.objects.get()
    recipe = lab.recipe(fake, variant="p")
    prompt = PromptVersion.objects.create(
        prompt=Prompt.objects.create(slug="p", name="P"), template="Tags!", message="1"
    )
    channel = recipe.channels.get()
    Channel.objects.filter(pk=channel.pk).update(prompt_version=prompt)
    content = bundles.recipe_content(recipe)
    Channel.objects.filter(pk=channel.pk).delete()
    recipe.delete()
    prompt.delete()

    from judging.actions.bundle_recipes import recipe_of

    again = recipe_of(content, None)
    assert bundles.recipe_content(again) == content
    assert again.policy_version == default_policy_version()
    assert trip.pk


def test_decisions_that_were_made_here_stay(written):
    text, _ = written
    copy = elsewhere()
    image = images(copy)[0]
    line = next(one for one in map(json.loads, text[1:]) if one["sha256"] == image.sha256)
    wrong = next(name for name, _, right in line["truth"] if right)
    lab.reject(image, [wrong])
    made = import_bundle(text, copy)
    assert made.kept_decisions == 1
    assert ImageTag.objects.get(image=image, tag__name=wrong).state == ImageTag.State.REJECTED


def test_images_that_are_not_here(written):
    text, _ = written
    copy = elsewhere()
    images(copy).first().delete()
    with pytest.raises(ValidationError, match="1 of 30 images are not in Copy"):
        import_bundle(text, copy)
    assert not Experiment.objects.exists()
    assert not Recipe.objects.exists()
    made = import_bundle(text, copy, partial=True)
    assert (made.images, made.missing) == (29, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (["{}"], "no experiment"),
        ([], "no experiment"),
        (["not json"], "Line 1 is no JSON"),
        (['{"format": "iwtag experiment", "version": 9}'], "Version 9"),
        (['{"format": "iwtag experiment", "version": 1}'], "damaged"),
    ],
)
def test_what_is_no_bundle_is_refused(fake, text, why):
    with pytest.raises(ValidationError, match=why):
        import_bundle(text, lab.collection(1))


def test_half_a_file_leaves_nothing(written):
    text, _ = written
    copy = elsewhere()
    with pytest.raises(ValidationError):
        import_bundle([text[0], text[1], text[2][: len(text[2]) // 2]], copy)
    assert not Experiment.objects.exists()
    assert not ImageTag.objects.exists()


def test_by_api_and_by_command(written, tmp_path, capsys):
    _, wanted = written
    made = Experiment.objects.get()
    curator = keyed(person("c", "curator"))
    text = b"".join(curator.get(f"/api/experiments/{made.pk}/bundle").streaming_content)
    answer = curator.post(
        "/api/experiments/import", {"file": SimpleUploadedFile("e.jsonl", text), "collection": "trip"}
    )
    assert answer.status_code == 201, answer.content
    assert comparable(Experiment.objects.get(pk=answer.json()["experiment"]["id"])) == wanted
    out = tmp_path / "e.jsonl"
    call_command("experiment", "--export", str(made.pk), "--out", str(out))
    assert out.read_bytes() == text
    call_command("experiment", "--import", str(out), "--collection", "Trip")
    assert "6 recipes, 30 images" in capsys.readouterr().out
    bad = curator.post("/api/experiments/import", {"file": SimpleUploadedFile("x", b"\xff\xfe"), "collection": "trip"})
    assert bad.status_code == 422
