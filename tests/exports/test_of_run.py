"""What one run proposed, shown or not, in every format; and images that a judge accepted as a class of their own."""

from __future__ import annotations

import io
import json
import zipfile

import pyarrow.parquet
import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.urls import reverse

from exports import actions, in_place
from exports.actions import create_export, get_exporter
from exports.exporters import registry
from exports.exporters.base import ExportError
from tagging import queue
from tagging.actions.labels import move_label
from tagging.models import ImageAsset, Proposal, Tag, TagAlias
from tests.tagging.pages import person, signed_in
from tests.tagging.world import keyed

from .folders import SAMPLES, folder, undone, words, written
from .formats import NASTY
from .truth import State, collection, exported, image, run_of, table, tag

pytestmark = pytest.mark.django_db
WORDS = [
    ["cat", "general", 0.9, "kept", "", "fake", "cat"],
    ["unheard of", "general", 0.6, "added", "", "fake", "unheard of"],
    ["hound", "general", 0.4, "changed", "alias", "fake", "hound"],
    ["forest", "general", 0.3, "dropped", "banned", "fake", "forest"],
]


@pytest.fixture(autouse=True)
def _silent_queue(monkeypatch):
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: None)


def proposal(run, picture, tags=WORDS, **more):
    state = more.pop("state", "ok" if tags or more.get("caption") else "empty")
    return Proposal.objects.create(run=run, image=picture, tags=tags, state=state, **more)


@pytest.fixture(name="holiday")
def holiday_fixture():
    """a.jpg is reviewed under one run; another, never shown, had its say on it and on b.jpg, and failed on c.jpg."""
    c = collection()
    shown, other = run_of(c), run_of(c, "other")
    TagAlias.objects.create(tag=tag("dog"), name="hound")
    a = image(c, "a.jpg", [("sea", State.ACCEPTED, 0.8)], run=shown, caption="By hand", caption_state="edited")
    b, bad = (image(c, name, run=shown, reviewed=False) for name in ("b.jpg", "c.jpg"))
    proposal(other, a, caption="A cat", rating="general", rating_score=0.9)
    proposal(other, b, tags=[])
    proposal(other, bad, tags=[], state="error", error="unreadable")
    c.other = other
    return c


# -- what is written --------------------------------------------------------------------------------------------------
def test_a_run_that_was_never_shown_is_written_and_nothing_else(holiday):
    before = Tag.objects.count()
    a, b = table(exported(holiday, proposed_by=f"run {holiday.other.pk}"))
    assert json.loads(a["tags"]) == ["cat", "unheard of", "dog"]  # the alias leads to its tag; what was dropped is not
    assert json.loads(a["scores"]) == [0.9, 0.6, 0.4]
    assert (a["caption"], a["rating"], a["review_state"]) == ("A cat", "general", "unreviewed")
    assert (b["path"], b["tags"]) == ("b.jpg", "[]")
    assert Tag.objects.count() == before  # a look does not make words
    assert ImageAsset.objects.get(path="a.jpg").caption == "By hand"


def test_the_score_floor_counts_here_too(holiday):
    a, _ = table(exported(holiday, proposed_by=str(holiday.other.pk), min_score=0.5))
    assert json.loads(a["tags"]) == ["cat", "unheard of"]


def test_the_filter_chooses_among_its_images(holiday):
    (row,) = table(exported(holiday, {"review": "reviewed"}, proposed_by=str(holiday.other.pk)))
    assert row["path"] == "a.jpg"


def test_the_long_table_names_the_run_and_no_reviewer(holiday):
    rows = table(exported(holiday, proposed_by=str(holiday.other.pk), layout="long"))
    assert {(r["state"], r["run"], r["adapter"], r["reviewer"]) for r in rows} == {
        ("proposed", str(holiday.other), "other", "")
    }
    assert [r["tag"] for r in rows] == ["cat", "unheard of", "dog"]


def test_the_plan_counts_what_it_has_an_answer_for(holiday):
    found = get_exporter(holiday, "csv", {"proposed_by": str(holiday.other.pk), "layout": "long"}).plan()
    assert (found.images, found.rows, found.skipped) == (2, 3, 1)
    assert "has no answer for it" in found.warnings[0]


@pytest.mark.parametrize("format", [name for name, _ in registry.choices() if name != "preferences"])
def test_every_format_writes_it(holiday, format):
    Proposal.objects.filter(run=holiday.other, image__path="a.jpg").update(
        tags=[*WORDS, *([word, "general", 0.2, "kept", "", "fake", word] for word in NASTY[:3])]
    )
    more = {
        "coco": {"template": "{caption}, {tags}"},
        "imagefolder": {"files": "none"},
        "webdataset": {"files": "none"},
    }
    exporter = get_exporter(holiday, format, {"proposed_by": str(holiday.other.pk), **more.get(format, {})})
    assert exporter.plan().problems == []
    data = b"".join(exporter.stream())
    if format == "parquet":
        rows = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
        assert ("unheard of" in rows[0]["tags"], rows[0]["reviewed"]) == (True, False)
    else:
        if data.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(data)) as z:
                data = b"".join(z.read(name) for name in z.namelist() if "manifest" not in name)
        assert b"unheard of" in data.replace(b"_", b" ")
    assert b"By hand" not in data
    if format == "label_studio":
        assert all("annotations" not in task for task in json.loads(data))


def test_pairs_need_decisions(holiday):
    with pytest.raises(ValidationError, match="what a person decided"):
        get_exporter(holiday, "preferences", {"proposed_by": str(holiday.other.pk)})


def test_sidecars_of_a_run_are_undone_by_its_recipe(tmp_path):
    root = tmp_path / "trip"
    c = folder(root, ["a.jpg", "b.jpg"])
    (root / "b.jpg.xmp").write_bytes(SAMPLES[0].read_bytes())
    old = (root / "b.jpg.xmp").read_bytes()
    other = run_of(c, "other")
    for picture in c.images.all():
        proposal(other, picture)
    job = written(c, profile="darktable", details=True, proposed_by=str(other.pk))
    assert words(root / "a.jpg.xmp") == ["cat", "unheard of", "hound"]
    assert {"cat", "unheard of"} <= set(words(root / "b.jpg.xmp"))
    assert set(job.entries.values_list("recipe", flat=True)) == {other.recipe_id}
    undone(job, recipe=other.recipe_id)
    assert not (root / "a.jpg.xmp").exists()
    assert (root / "b.jpg.xmp").read_bytes() == old


def test_twins_share_words_that_no_vocabulary_has(tmp_path):
    c = folder(tmp_path / "trip", ["a.nef", "a.jpg"])
    other = run_of(c, "other")
    for picture, word in zip(c.images.order_by("path"), ("from the jpeg", "from the raw"), strict=True):
        proposal(other, picture, tags=[[word, "general", 0.9, "kept", "", "fake", word]])
    written(c, profile="lightroom", twins="shared", proposed_by=str(other.pk))
    assert set(words(tmp_path / "trip" / "a.xmp")) == {"from the jpeg", "from the raw"}


# -- which run --------------------------------------------------------------------------------------------------------
def test_a_label_means_the_newest_finished_run_of_its_recipe(holiday):
    newer = run_of(holiday, "third")
    newer.recipe = holiday.other.recipe
    newer.save()
    proposal(newer, holiday.images.get(path="b.jpg"))
    move_label("candidate", holiday.other.recipe, why="to look at")
    (row,) = table(exported(holiday, proposed_by="candidate"))
    assert row["path"] == "b.jpg"
    newer.state, newer.finished_at = "running", None
    newer.save()
    assert len(table(exported(holiday, proposed_by="candidate"))) == 2


def test_a_job_keeps_the_run_that_the_label_meant(holiday):
    move_label("candidate", holiday.other.recipe, why="to look at")
    job = create_export(holiday, "csv", {"proposed_by": "candidate"})
    assert job.options["proposed_by"] == f"run {holiday.other.pk}"
    move_label("candidate", run_of(holiday, "third").recipe, why="another")
    job = actions.run_export(job.pk)
    with default_storage.open(job.file) as f:
        assert len(table(f.read())) == 2


def test_what_is_wrong_is_named(holiday):
    elsewhere = run_of(collection("Elsewhere"))
    busy = run_of(holiday, "third")
    busy.state, busy.finished_at = "running", None
    busy.save()
    move_label("candidate", busy.recipe, why="to look at")
    for text, said in [
        ("run 99999", "There is no run 99999."),
        (str(elsewhere.pk), "is over Elsewhere, not over Holiday"),
        (f"#{busy.pk}", "is running: wait for its end"),
        ("candidate", f"no finished run over Holiday. Run {busy.pk}"),
        ("nobody", "nobody"),
        ("wrong/label", "is no task"),
    ]:
        with pytest.raises(ValidationError) as refused:
            get_exporter(holiday, "csv", {"proposed_by": text})
        assert list(refused.value.message_dict) == ["proposed_by"]
        assert said in " ".join(refused.value.messages), text


def test_a_run_that_is_deleted_meanwhile_ends_the_job_with_the_reason(holiday):
    job = create_export(holiday, "csv", {"proposed_by": str(holiday.other.pk)})
    holiday.other.delete()
    job = actions.run_export(job.pk)
    assert (job.state, job.error) == ("failed", f"There is no run {job.options['proposed_by'].split()[1]}.")


# -- the doors --------------------------------------------------------------------------------------------------------
def test_the_api_counts_and_refuses_by_name(holiday):
    client = keyed(person("curator", "cy"))

    def ask(**options):
        given = {"collection": holiday.slug, "format": "jsonl", "options": options, "dry_run": True}
        return client.post("/api/exports", given, content_type="application/json")

    assert ask(proposed_by=str(holiday.other.pk)).json()["images"] == 2
    refused = ask(proposed_by="nobody")
    assert refused.status_code == 422
    assert "proposed_by" in refused.content.decode()


def test_the_command_writes_and_refuses(holiday, tmp_path):
    out = tmp_path / "x.csv"
    call_command("export", "csv", collection="Holiday", out=str(out), proposed_by=str(holiday.other.pk))
    assert len(table(out.read_bytes())) == 2
    with pytest.raises(CommandError, match="There is no run 4711") as refused:
        call_command("export", "csv", collection="Holiday", out=str(out), proposed_by="4711", force=True)
    assert refused.value.returncode == 2


def test_the_page_asks_and_says_what_is_wrong(holiday):
    client = signed_in("curator")
    form = client.get(reverse("exports:new"), {"collection": holiday.slug}).content.decode()
    assert 'name="options-proposed_by"' in form
    asked = {"collection": holiday.slug, "format": "csv", "options-proposed_by": "nobody", "do": "count"}
    page = client.post(reverse("exports:new"), asked).content.decode()
    assert "nobody" in page
    assert "Or name a run by its number" in page.replace("&#x27;", "'")


def test_beside_the_images_it_is_refused_by_name(tmp_path):
    c = folder(tmp_path / "trip", ["a.jpg"])
    with pytest.raises((ValidationError, ExportError)) as refused:
        in_place.create(c, "xmp", {"proposed_by": "4711"}, ring=False)
    assert list(refused.value.message_dict) == ["proposed_by"]


# -- what a judge accepted --------------------------------------------------------------------------------------------
@pytest.fixture(name="judged")
def judged_fixture():
    c = collection()
    run = run_of(c)
    robot = person("viewer", "judge:tag-verifier")
    image(c, "a.jpg", [("sea", State.ACCEPTED, 0.8)], run=run, reviewed_by=person("reviewer", "ann"))
    auto = image(c, "b.jpg", [("dog", State.ACCEPTED, 0.8)], run=run, reviewed=False, reviewed_by=robot)
    ImageAsset.objects.filter(pk=auto.pk).update(review_state="auto")
    image(c, "c.jpg", [("car", State.PROPOSED, 0.7)], run=run, reviewed=False)
    return c


def test_reviewed_judged_and_proposed_are_three_classes(judged):
    def paths(**options):
        return [row["path"] for row in table(exported(judged, **options))]

    assert paths() == ["a.jpg"]
    assert paths(judged=True) == ["a.jpg", "b.jpg"]
    assert paths(proposed=True) == ["a.jpg", "b.jpg", "c.jpg"]


def test_the_table_says_that_a_judge_decided(judged):
    rows = table(exported(judged, judged=True, layout="long"))
    assert [(r["tag"], r["reviewer"]) for r in rows] == [("sea", "ann"), ("dog", "judge:tag-verifier")]


def test_what_is_left_out_is_told_by_class(judged):
    warnings = get_exporter(judged, "jsonl", {}).plan().warnings
    assert warnings == [
        "1 image is not reviewed yet and left out; ask for what is proposed to have them too.",
        "1 image is left out: a judge accepted it, no person. Ask for what a judge accepted.",
    ]
    assert len(get_exporter(judged, "csv", {"judged": True}).plan().warnings) == 1


def test_label_studio_and_parquet_do_not_call_it_a_persons(judged):
    tasks = json.loads(b"".join(get_exporter(judged, "label_studio", {"judged": True}).stream()))
    assert ["annotations" in task for task in tasks] == [True, False]
    assert tasks[1]["predictions"][0]["result"][0]["value"]["choices"] == ["dog"]
    data = b"".join(get_exporter(judged, "parquet", {"judged": True}).stream())
    assert [row["reviewed"] for row in pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()] == [True, False]


def test_sidecars_say_which_judge_decided(tmp_path):
    c = folder(tmp_path / "trip", ["a.jpg"], tags=("dog",), reviewed_by=person("viewer", "judge:tag-verifier"))
    c.images.update(review_state="auto")
    assert written(c, profile="darktable").summary["images"] == 0
    written(c, profile="darktable", details=True, judged=True)
    assert "judge:tag-verifier" in (tmp_path / "trip" / "a.jpg.xmp").read_text()
