"""A worker in this process, with an adapter that misbehaves on demand."""

from __future__ import annotations

import time

import pytest
from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from tagging.actions import counts
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import NotNow, cancel, pause, resume, retry_failed, start_run
from tagging.adapters import registry
from tagging.engine import inferring, leases, residency, stage, worker
from tagging.engine import work as work_module
from tagging.engine.owners import owner_id
from tagging.engine.progress import progress
from tagging.models import (
    Chunk,
    Collection,
    ImageAsset,
    ImageTag,
    ModelAdapter,
    Prediction,
    Proposal,
    Run,
    Tag,
    TagCount,
)
from tests.fakes import adapter as fakes

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """Every batch is written at once."""
    monkeypatch.setattr(work_module, "FLUSH", 0.0)
    yield
    residency.MODELS.evict()


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "fake", ("Fake", "tests.fakes.adapter:Fake"))
    registry.registered.cache_clear()
    yield ModelAdapter.objects.create(slug="fake", label="Fake", kind="fake")
    registry.registered.cache_clear()


@pytest.fixture
def collection():
    made = Collection.objects.create(name="Trip", slug="trip", kind="upload")
    ImageAsset.objects.bulk_create(
        [ImageAsset(collection=made, path=f"{i:03}.jpg", sha256=f"{i:064x}") for i in range(40)]
    )
    for i in range(40):
        default_storage.save(f"{made.upload_prefix}/{i:03}.jpg", ContentFile(b""))
    return made


def start(fake, collection, **options):
    return start_run(get_recipe([ChannelSpec(fake, options=options)]), collection=collection)


def work(queue="gpu", times=20):
    for _ in range(times):
        if not worker.drain(queue):
            return


def outcome(run):
    run.refresh_from_db()
    p = progress([run])[run.pk]
    rows = Proposal.objects.filter(run=run)
    assert rows.values("image").distinct().count() == rows.count()
    for state in ("ok", "empty", "error"):
        assert rows.filter(state=state).count() == getattr(p, state)
    return run.state, p.ok, p.empty, p.error


def numbers(collection):
    counted = {c.tag_id: (c.proposed, c.accepted, c.rejected, c.added) for c in TagCount.objects.all()}
    counts.rebuild(collection)
    again = {c.tag_id: (c.proposed, c.accepted, c.rejected, c.added) for c in TagCount.objects.all()}
    return {k: v for k, v in counted.items() if any(v)}, again


def test_every_image_gets_one_result_and_review_sees_it(fake, collection):
    run = start(fake, collection)
    work()
    assert outcome(run) == ("done", 40, 0, 0)
    run.refresh_from_db()
    assert (run.provider, run.phase) == ("FakeProvider", "")
    assert run.finished_at >= run.started_at
    image = collection.images.get(path="003.jpg")
    tags = image.image_tags.select_related("tag").order_by("-score")
    assert [t.tag.name for t in tags] == fakes.expected("003.jpg")
    assert {t.state for t in tags} == {ImageTag.State.PROPOSED}
    assert image.proposed_by == run
    assert image.top_score == pytest.approx(0.99, abs=1e-3)
    assert all(t.tag.parent_id for t in tags if int(t.tag.name.split()[1]) < 270)
    before, after = numbers(collection)
    assert before == after


def test_the_same_again_asks_no_model(fake, collection, tmp_path):
    log = tmp_path / "log"
    start(fake, collection, log=str(log))
    work()
    asked = log.read_text()
    residency.MODELS.evict()
    again = start(fake, collection, log=str(log))
    work()
    assert outcome(again) == ("done", 40, 0, 0)
    assert progress([again])[again.pk].cached == 40
    assert log.read_text().replace("unload", "load").count("load") == asked.count("load") + 1  # the eviction
    assert Prediction.objects.count() == 40
    collection.images.filter(path="001.jpg").update(path="moved/001.jpg")  # a renamed file is the same content
    collection.images.filter(path="002.jpg").update(sha256="f" * 64)  # changed bytes are not
    third = start(fake, collection, log=str(log))
    work()
    assert progress([third])[third.pk].cached == 39


def test_a_threshold_needs_no_inference_and_another_model_does(fake, collection):
    start(fake, collection)
    work()
    lower = start(fake, collection, threshold=0.2)
    work()
    assert progress([lower])[lower.pk].cached == 40
    assert len(lower.proposals.first().tags) > 5
    other = start(fake, collection, variant="b")
    work()
    assert progress([other])[other.pk].cached == 0


def test_bad_images_are_rows_with_reasons_and_the_rest_goes_on(fake, collection):
    collection.images.filter(path="009.jpg").update(state="error", error="cut off in the middle")
    run = start_run(
        get_recipe(
            [
                ChannelSpec(
                    fake,
                    options={
                        "bad": ["001.jpg"],
                        "failing": ["002.jpg"],
                        "refused": ["003.jpg"],
                        "empty": ["004.jpg"],
                        "short": ["005.jpg"],
                    },
                )
            ]
        ),
        collection=collection,
        images=collection.images.all(),
    )
    work()
    assert outcome(run) == ("done", 34, 1, 5)
    errors = dict(run.proposals.filter(state="error").values_list("image__path", "error"))
    assert errors["001.jpg"] == "001.jpg cannot be decoded"
    assert errors["002.jpg"] == "RuntimeError: shape mismatch"
    assert errors["003.jpg"] == "003.jpg is refused"
    assert "0 answers for 1" in errors["005.jpg"]
    assert errors["009.jpg"] == "The file cannot be read: cut off in the middle"
    assert not ImageTag.objects.filter(image__path="002.jpg").exists()


def test_retry_takes_back_errors_only(fake, collection):
    run = start(fake, collection, refused=["003.jpg", "030.jpg"])
    work()
    assert outcome(run) == ("done", 38, 0, 2)
    run.recipe.channels.update(options={**run.recipe.channels.get().options, "refused": []})
    stage.forget()
    residency.MODELS.evict()
    assert retry_failed(run) == 2
    work()
    assert outcome(run) == ("done", 40, 0, 0)
    with pytest.raises(NotNow, match="no failed images"):
        retry_failed(run)


def test_out_of_memory_halves_the_batch_and_is_remembered(fake, collection, tmp_path):
    log = tmp_path / "log"
    run = start(fake, collection, batch=16, out_of_memory_over=5, log=str(log))
    work()
    assert outcome(run) == ("done", 40, 0, 0)
    tried = [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("batch")]
    assert [n for n in tried if n > 5] == [16, 8, 8]  # never tried again


def test_a_model_that_cannot_be_loaded_fails_the_run_with_its_mend(fake, collection):
    run = start(fake, collection, unavailable="model.onnx is missing in /models/x: put it there.")
    work()
    run.refresh_from_db()
    assert (run.state, run.error) == ("failed", "model.onnx is missing in /models/x: put it there.")
    assert not run.proposals.exists()
    assert run.finished_at
    run.recipe.channels.update(options={**run.recipe.channels.get().options, "unavailable": ""})
    stage.forget()
    retry_failed(run)
    work()
    assert outcome(run) == ("done", 40, 0, 0)
    assert run.error == ""


def test_an_adapter_that_is_gone_fails_the_run(fake, collection):
    run = start(fake, collection)
    run.recipe.channels.update(adapter_config={"kind": "no-such"})
    work()
    run.refresh_from_db()
    assert run.state == "failed"
    assert "no-such" in run.error


def test_pause_resume_cancel(fake, collection):
    run = start(fake, collection)
    pause(run)
    work()
    assert outcome(run) == ("paused", 0, 0, 0)
    with pytest.raises(NotNow, match="is paused"):
        pause(run)
    resume(run)
    work()
    assert outcome(run) == ("done", 40, 0, 0)
    with pytest.raises(NotNow, match="is done and cannot be cancelled"):
        cancel(run)


def test_a_pause_is_seen_at_the_next_write(fake, collection, monkeypatch):
    run = start(fake, collection, batch=1)
    real, n = work_module.store.commit, []

    def commit(*args, **kwargs):
        n.append(1)
        if len(n) == 3:
            Run.objects.filter(pk=run.pk).update(state="paused")
        return real(*args, **kwargs)

    monkeypatch.setattr(work_module.store, "commit", commit)
    work()
    state, ok, _, _ = outcome(run)
    assert (state, ok) == ("paused", 3)
    resume(run)
    work()
    assert outcome(run) == ("done", 40, 0, 0)


def test_truth_is_never_touched(fake, collection):
    image = collection.images.get(path="003.jpg")
    wrong, missing = (Tag.objects.create(name=n) for n in (fakes.expected("003.jpg")[0], "mine"))
    ImageTag.objects.create(image=image, tag=wrong, state=ImageTag.State.REJECTED)
    ImageTag.objects.create(image=image, tag=missing, state=ImageTag.State.ADDED)
    ImageAsset.objects.filter(pk=image.pk).update(caption="A person wrote this", caption_state="edited", rating="safe")
    counts.rebuild(collection)
    for variant in ("", "b"):
        start(fake, collection, caption="A model wrote this", rating="questionable", variant=variant)
        work()
        states = dict(image.image_tags.values_list("tag__name", "state"))
        assert states[wrong.name] == ImageTag.State.REJECTED
        assert states["mine"] == ImageTag.State.ADDED
        image.refresh_from_db()
        assert (image.caption, image.rating) == ("A person wrote this", "safe")
    before, after = numbers(collection)
    assert before == after
    other = collection.images.get(path="004.jpg")
    assert (other.caption, other.caption_state, other.rating) == ("A model wrote this", "proposed", "questionable")


def test_a_run_that_is_not_shown_leaves_the_images_alone(fake, collection):
    run = start_run(get_recipe([ChannelSpec(fake)]), collection=collection, shown=False)
    work()
    assert outcome(run) == ("done", 40, 0, 0)
    assert not ImageTag.objects.exists()
    assert not collection.images.exclude(proposed_by=None).exists()


def test_images_deleted_under_way_do_not_hang_the_run(fake, collection):
    run = start(fake, collection)
    collection.images.filter(path__in=["001.jpg", "020.jpg"]).delete()
    work()
    run.refresh_from_db()
    assert run.state == "done"
    assert run.proposals.count() == 38
    assert progress([run])[run.pk].done == 40


def test_an_image_deleted_between_asking_and_writing(fake, collection, monkeypatch):
    run = start(fake, collection)
    real = work_module.store.commit

    def commit(chunk, *args, **kwargs):
        ImageAsset.objects.filter(path="001.jpg").delete()
        return real(chunk, *args, **kwargs)

    monkeypatch.setattr(work_module.store, "commit", commit)
    work()
    run.refresh_from_db()
    assert run.state == "done"
    assert run.proposals.count() == 39


def test_a_worker_that_lost_its_lease_writes_nothing(fake, collection):
    run = start(fake, collection)
    chunk = leases.claim("gpu", "elsewhere|1|1")
    Chunk.objects.filter(pk=chunk.pk).update(lease_until="2000-01-01T00:00Z")
    taken = leases.claim("gpu", owner_id())
    assert taken.pk == chunk.pk
    with pytest.raises(leases.LeaseLost):
        worker.process(chunk, time.monotonic() + 60)
    assert not run.proposals.exists()
    assert not leases.release(chunk, done=True)
    worker.process(taken, time.monotonic() + 60)
    work()
    assert outcome(run) == ("done", 40, 0, 0)


def test_an_image_that_killed_two_workers_becomes_an_error_row(fake, collection):
    run = start(fake, collection)
    chunk = Chunk.objects.filter(run=run).first()
    guilty = chunk.images[4]
    Chunk.objects.filter(pk=chunk.pk).update(attempts=2, inflight=guilty, inflight_n=work_module.POISON)
    work()
    assert outcome(run) == ("done", 39, 0, 1)
    assert "died on this image" in run.proposals.get(image=guilty).error


def test_after_a_death_images_are_named_before_they_are_tried(fake, collection, monkeypatch):
    start(fake, collection)
    chunk = Chunk.objects.first()
    Chunk.objects.filter(pk=chunk.pk).update(attempts=1)
    named = []
    real = inferring.run_batch

    def spy(adapter, batch, *rest):
        named.append((Chunk.objects.get(pk=chunk.pk).inflight, [i for i, _ in batch]))
        return real(adapter, batch, *rest)

    monkeypatch.setattr(inferring, "run_batch", spy)
    worker.process(leases.claim("gpu", owner_id()), time.monotonic() + 60)
    assert [i for i, _ in named] == list(chunk.images)
    assert all([i] == batch for i, batch in named)


def test_deaths_without_any_progress_fail_the_run(fake, collection):
    run = start(fake, collection)
    Chunk.objects.filter(run=run).update(attempts=leases.ATTEMPTS)
    work()
    run.refresh_from_db()
    assert run.state == "failed"
    assert "memory" in run.error


def test_claims_go_by_priority_then_by_the_loaded_model(fake, collection):
    first = start(fake, collection)
    second = start(fake, collection, variant="b")
    keys = [Chunk.objects.filter(run=r).first().model_key for r in (first, second)]
    assert keys[0] == keys[1]  # the variant is no load option
    assert leases.claim("gpu", "x|1|1").run == first
    Run.objects.filter(pk=second.pk).update(priority=5)
    assert leases.claim("gpu", "x|1|1").run == second
    assert leases.claim("io", "x|1|1") is None


def test_a_chunk_is_not_done_while_an_image_is_missing(fake, collection):
    run = start(fake, collection)
    chunk = leases.claim("gpu", owner_id())
    assert leases.release(chunk, done=True)
    chunk.refresh_from_db()
    assert chunk.state == Chunk.State.PENDING
    work()
    assert outcome(run)[0] == "done"


def test_dead_owners_give_their_chunks_back_at_once(fake, collection):
    start(fake, collection)
    name = owner_id().split("|")[0]
    leases.claim("gpu", f"{name}|999999999|1")
    leases.claim("gpu", "another-host|1|1")
    assert leases.release_dead() == 1


def test_nothing_to_run_on_is_said(fake, collection):
    with pytest.raises(ValidationError, match="no image to run on"):
        start_run(get_recipe([ChannelSpec(fake)]), collection=collection, images=ImageAsset.objects.none())


def test_recipes_are_found_by_content(fake):
    a = get_recipe([ChannelSpec(fake)])
    assert get_recipe([ChannelSpec(fake, options={"threshold": fakes.THRESHOLD})]) == a
    assert get_recipe([ChannelSpec(fake, options={"threshold": 0.4})]) != a
    with pytest.raises(ValidationError) as found:
        get_recipe([ChannelSpec(fake, options={"temperatur": 1})])
    assert "temperatur" in found.value.message_dict["options"][0]
    fake.enabled = False
    with pytest.raises(ValidationError, match="switched off"):
        get_recipe([ChannelSpec(fake)])
