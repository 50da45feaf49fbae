"""Imports as jobs: decisions, runs and word lists, taken back whole; killed in the middle, and gone on with."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from exports import import_targets, imports
from exports.import_leases import sweep
from exports.import_models import ImportJob, ImportRow
from exports.importers import difference
from prompts.models import Wordlist
from tagging.actions import review
from tagging.engine.progress import progress
from tagging.models import ImageAsset, ImageTag, Prediction, Proposal, Run, Tag, TagCount, TagEdit

from .importing import add, applied, fates, folder, planned, row, tags, undone
from .truth import State, image, run_of

pytestmark = pytest.mark.django_db
MANY = 40


@pytest.fixture
def c(tmp_path):
    return folder(tmp_path, *(f"{i}.jpg" for i in range(MANY)))


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(import_targets, "AT_ONCE", 8)
    monkeypatch.setattr(imports, "AT_ONCE", 8)


def table(n: int = MANY, words: str = "cat;dog") -> str:
    return "path,tags,caption\n" + "".join(f"{i}.jpg,{words},Picture {i}\n" for i in range(n))


def everything() -> tuple:
    return (
        sorted(ImageTag.objects.values_list("image__path", "tag__name", "state")),
        sorted(ImageAsset.objects.values_list("path", "caption", "caption_state", "rating", "review_state")),
        sorted(
            TagCount.objects.exclude(proposed=0, accepted=0, rejected=0, added=0).values_list(
                "tag__name", "accepted", "added"
            )
        ),
    )


# -- as decisions -----------------------------------------------------------------------------------------------------
def test_one_batch_that_is_taken_back_whole(c, small_pages):
    by = User.objects.create_user("anna")
    before = everything()
    job = planned(c, "csv", table())
    assert everything() == before  # a preview changes nothing
    assert not Tag.objects.exists()
    job = applied(job, by=by, reviewed=True)
    assert (job.state, job.result) == ("done", {"applied": MANY, "left": 0})
    edits = TagEdit.objects.all()
    assert set(edits.values_list("batch", "door", "by")) == {(job.batch, "import", by.pk)}
    assert TagCount.objects.get(tag__name="cat").added == MANY
    assert set(c.images.values_list("review_state", flat=True)) == {"reviewed"}
    job = undone(job)
    assert (job.state, job.result["undone"]) == ("undone", MANY)
    assert everything() == before


def test_what_truth_rejected_stays_out_unless_overruled(c):
    review.decide(c.images.get(path="0.jpg").pk, by=None, door="test", add=["cat"])
    cat = Tag.objects.get(name="cat")
    one = c.images.get(path="0.jpg")
    review.decide(one.pk, by=None, door="test", reject=[cat.pk])
    job = planned(c, "csv", table(1))
    assert fates(row(job, "0.jpg")) == {"cat": "refused", "dog": "new"}
    applied(job)
    assert tags(one) == {"dog"}
    applied(planned(c, "csv", table(1)), overrule=True)
    assert tags(one) == {"cat", "dog"}


def test_a_decision_made_since_the_preview_is_kept(c):
    one, two = c.images.get(path="0.jpg"), c.images.get(path="1.jpg")
    job = planned(c, "csv", table(2))
    review.decide(one.pk, by=None, door="test", add=["cat"], caption="mine")
    review.decide(one.pk, by=None, door="test", reject=[Tag.objects.get(name="cat").pk])
    two.delete()
    job = applied(job)
    one.refresh_from_db()
    assert (tags(one), one.caption) == ({"dog"}, "mine")
    assert row(job, "0.jpg").notes == [
        "left out, rejected since the preview: cat",
        "left as somebody wrote it since the preview: caption",
    ]


def test_a_proposal_is_confirmed_and_comes_back_as_one(tmp_path):
    c = folder(tmp_path)
    one = image(c, "0.jpg", [("cat", State.PROPOSED, 0.7)], run=run_of(c), reviewed=False)
    job = planned(c, "csv", table(1, "cat"))
    assert fates(row(job, "0.jpg")) == {"cat": "confirmed"}
    job = applied(job)
    assert ImageTag.objects.get(image=one).state == ImageTag.State.ACCEPTED
    undone(job)
    assert ImageTag.objects.get(image=one).state == ImageTag.State.PROPOSED


@pytest.mark.parametrize(("captions", "after"), [("empty", "mine"), ("replace", "Picture 0"), ("leave", "mine")])
def test_captions_by_choice(c, captions, after):
    one = c.images.get(path="0.jpg")
    review.decide(one.pk, by=None, door="test", caption="mine")
    job = planned(c, "csv", table(1), captions=captions)
    applied(job)
    one.refresh_from_db()
    assert one.caption == after


def test_unticked_rows_are_left(c):
    job = planned(c, "csv", table(3))
    assert imports.select_rows(job, [row(job, "1.jpg").pk], selected=False) == 1
    job = applied(job)
    assert [tags(f"{i}.jpg") for i in range(3)] == [{"cat", "dog"}, set(), {"cat", "dog"}]
    with pytest.raises(imports.NotNow, match="done"):
        imports.select_rows(job, [1], selected=False)


def test_verbs_in_the_wrong_state(c):
    job = planned(c, "csv", table(1))
    with pytest.raises(imports.NotNow, match="nothing to undo"):
        imports.undo_import(job, ring=False)
    applied(job)
    job.refresh_from_db()
    with pytest.raises(imports.NotNow, match="nothing to apply"):
        imports.apply_import(job, ring=False)
    undone(job)
    job.refresh_from_db()
    with pytest.raises(imports.NotNow):
        imports.undo_import(job, ring=False)
    assert imports.cancel_import(job) is False


# -- killed, cancelled, gone on with ----------------------------------------------------------------------------------
class Killed(BaseException):
    """As SIGKILL: nothing catches it, nothing is tidied."""


def kill_at(monkeypatch, module, name, call):
    real, calls = getattr(module, name), []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, dying)


def take_over(job: ImportJob) -> ImportJob:
    """What the sweeper does a minute after the owner died."""
    ImportJob.objects.filter(pk=job.pk).update(lease_until=None)
    rung = []
    sweep(ring=lambda task, pk: rung.append(pk))
    assert rung == [job.pk]
    return imports.run_import(job.pk)


@pytest.mark.parametrize("call", [1, 3, 5])
@pytest.mark.parametrize("where", ["decide_many", "_mark_all"])
def test_killed_in_the_middle_of_applying(c, small_pages, monkeypatch, where, call):
    job = planned(c, "csv", table())
    imports.apply_import(job, ring=False)
    with monkeypatch.context() as m:
        kill_at(m, import_targets, where, call)
        with pytest.raises(Killed):
            imports.run_import(job.pk)
    assert ImportRow.objects.filter(job=job, state="applied").count() == (call - 1) * 8
    job = take_over(job)
    assert (job.state, job.result) == ("done", {"applied": MANY, "left": 0})
    assert TagEdit.objects.filter(kind="tag").count() == 2 * MANY  # nothing doubled
    assert TagEdit.objects.filter(kind="caption").count() == MANY
    assert TagEdit.objects.values("batch").distinct().count() == 1
    assert undone(job).result["undone"] == MANY


def test_killed_while_reading(c, small_pages, monkeypatch):
    job = imports.create_import(c, "csv", file=_file(table()), name="a.csv", ring=False)
    with monkeypatch.context() as m:
        kill_at(m, difference.Comparison, "store", 3)
        with pytest.raises(Killed):
            imports.run_import(job.pk)
    job = take_over(job)
    assert (job.state, job.summary["rows"], job.summary["changes"]) == ("planned", MANY, MANY)
    assert ImportRow.objects.filter(job=job).count() == MANY


def test_a_run_is_not_doubled_either(c, small_pages, monkeypatch):
    job = planned(c, "csv", table(), target="run")
    imports.apply_import(job, ring=False)
    with monkeypatch.context() as m:
        kill_at(m, import_targets, "add_imported", 3)
        with pytest.raises(Killed):
            imports.run_import(job.pk)
    job = take_over(job)
    assert (job.state, job.run.n_total, Run.objects.count()) == ("done", MANY, 1)
    assert Proposal.objects.filter(run=job.run).count() == MANY


def test_cancelled_then_undone_or_gone_on_with(c, small_pages, monkeypatch):
    job = planned(c, "csv", table())
    imports.apply_import(job, ring=False)
    real, calls = import_targets.decide_many, []

    def cancelling(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            imports.cancel_import(ImportJob.objects.get(pk=job.pk))
        return real(*args, **kwargs)

    with monkeypatch.context() as m:
        m.setattr(import_targets, "decide_many", cancelling)
        job = imports.run_import(job.pk)
    assert job.state == "cancelled"
    assert len(tags("0.jpg")) == 2
    assert not tags(f"{MANY - 1}.jpg")
    assert imports.can_undo(job)
    job = applied(job)
    assert (job.state, job.result["applied"]) == ("done", MANY)


def test_a_job_of_somebody_else_is_left_alone(c):
    job = planned(c, "csv", table())
    imports.apply_import(job, ring=False)
    from exports.import_leases import claim

    assert claim(job.pk) is not None
    assert imports.run_import(job.pk).state == "running"
    assert not ImageTag.objects.exists()


# -- as a run ---------------------------------------------------------------------------------------------------------
def test_a_run_to_compare_with(c):
    before = everything()
    job = applied(planned(c, "csv", table(3, "Cat;big_dog"), target="run"))
    run = job.run
    assert (run.state, run.shown, run.n_total) == ("done", False, 3)
    found = Proposal.objects.get(run=run, image__path="1.jpg")
    assert [t[0].lower() for t in found.tags] == ["cat", "big dog"]
    assert (found.state, found.caption) == ("ok", "Picture 1")
    assert found.prediction.tags == [["Cat", "general", None], ["big_dog", "general", None]]
    assert progress([run])[run.pk].as_dict()["ok"] == 3
    assert everything() == before  # not shown for review, no decision
    again = applied(planned(c, "csv", table(3, "Cat;big_dog"), target="run"))
    assert again.run.recipe == run.recipe  # the same content
    assert Prediction.objects.count() == 3
    job = undone(job)
    assert not Run.objects.filter(pk=run.pk).exists()
    assert Run.objects.filter(pk=again.run.pk).exists()


def test_an_imported_run_can_be_recomputed_and_not_be_run(c):
    from tagging.adapters.base import ModelUnavailable
    from tagging.engine.reproposing import Reproposer
    from tagging.models import ModelAdapter
    from tagging.policy.pipeline import compile_policy

    run = applied(planned(c, "csv", table(2), target="run")).run
    reproposer = Reproposer(run, compile_policy({}, []))
    outcome = reproposer.apply(reproposer.rows(0, 10))
    assert (outcome.done, outcome.skipped) == (2, 0)
    adapter = ModelAdapter.objects.get(kind="import")
    assert adapter.enabled is False
    assert adapter.build().check()
    with pytest.raises(ModelUnavailable, match="not from a model"):
        adapter.build().load()


def test_a_run_of_nothing_is_refused(c):
    job = applied(planned(c, "csv", "path,tags\nnowhere.jpg,x\n", target="run"))
    assert (job.state, "No row has an image" in job.error) == ("failed", True)


# -- as a word list ---------------------------------------------------------------------------------------------------
def test_a_word_list_and_its_next_version(c):
    text = "path,tags\n0.jpg,animal|dog;cat\nnowhere.jpg,sea\n"
    job = applied(planned(c, "csv", text, target="vocabulary"), wordlist="My words")
    words = Wordlist.objects.get(slug="my-words")
    assert {e["text"]: e.get("parent", "") for e in words.current.entries} == {
        "animal": "",
        "dog": "animal",
        "cat": "",
        "sea": "",
    }
    assert not Tag.objects.exists()
    second = applied(planned(c, "csv", "path,tags\n0.jpg,cat;CAT;ship\n", target="vocabulary"), wordlist="my-words")
    assert [e["text"] for e in words.current.entries] == ["animal", "dog", "cat", "sea", "ship"]
    imports.undo_import(job, ring=False)
    job = imports.run_import(job.pk)
    assert (job.state, "was changed since" in job.error) == ("failed", True)
    undone(second)
    assert [e["text"] for e in words.current.entries] == ["animal", "dog", "cat", "sea"]


def test_a_word_list_needs_a_name_and_the_right_kind(c):
    Wordlist.objects.create(slug="ban", name="ban", kind="banned")
    job = planned(c, "csv", table(1), target="vocabulary")
    for name, says in (("", "Name the word list"), ("ban", "is a banned list")):
        with pytest.raises(ValidationError, match=says):
            imports.apply_import(job, wordlist=name, ring=False)


def test_a_deleted_job_takes_its_file_and_rows(c):
    from django.core.files.storage import default_storage

    job = planned(c, "csv", table(2))
    assert default_storage.exists(job.file)
    imports.delete_import(job)
    assert not default_storage.exists(job.file)
    assert not ImportRow.objects.exists()


def test_the_file_vanished(c):
    from django.core.files.storage import default_storage

    job = imports.create_import(c, "csv", file=_file(table(1)), name="a.csv", ring=False)
    default_storage.delete(job.file)
    job = imports.run_import(job.pk)
    assert (job.state, job.error) == ("failed", "The uploaded file is gone; upload it again.")


def _file(text: str):
    import io

    return io.BytesIO(text.encode())


def test_images_of_other_collections_are_not_touched(c, tmp_path):
    other = folder(tmp_path, name="Other")
    add(other, "0.jpg")
    applied(planned(c, "csv", table(1)))
    assert tags(other.images.get()) == set()
