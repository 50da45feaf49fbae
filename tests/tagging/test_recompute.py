"""A policy applied to what was predicted: history kept, truth untouched, resumable, no inference."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from prompts import actions as prompts
from tagging.actions import counts, policies, previews, recompute
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import NotNow
from tagging.actions.setup import ensure_default_adapter
from tagging.adapters.base import PackedScores
from tagging.adapters.registry import adapter_class
from tagging.engine import reproposing, store, vocabulary
from tagging.engine.propose import compiled_policy
from tagging.models import (
    Collection,
    ImageAsset,
    ImageTag,
    Policy,
    Prediction,
    Proposal,
    ProposalRevision,
    RecomputeJob,
    Run,
    Tag,
    TagAlias,
    TagCount,
)
from tagging.policy.text import tag_key


@pytest.fixture(autouse=True)
def _fresh():
    """Database ids come again in the next test."""
    vocabulary.forget()
    compiled_policy.cache_clear()
    yield
    vocabulary.forget()
    compiled_policy.cache_clear()


@pytest.fixture
def labels():
    return adapter_class("photo-lite")().label_set


def make_run(labels, n: int = 6, *, shown: bool = True) -> Run:
    """A finished run with n predictions of photo-lite; image i is sure of label i and less of label i + 1."""
    name = f"c{Collection.objects.count()}"
    collection = Collection.objects.create(name=name, slug=name, kind="upload")
    recipe = get_recipe([ChannelSpec(adapter=ensure_default_adapter())])
    run = Run.objects.create(
        recipe=recipe, collection=collection, state=Run.State.DONE, finished_at=timezone.now(), shown=shown, n_total=n
    )
    digest = store.store_labels(labels)
    for i in range(n):
        image = ImageAsset.objects.create(
            collection=collection, path=f"{i}.jpg", sha256=f"{i:064d}", proposed_by=run if shown else None
        )
        row = np.zeros(len(labels.names), dtype=np.float32)
        row[i], row[i + 1] = 0.9, 0.5
        prediction = Prediction.objects.create(
            key=f"{collection.pk}-{i}",
            image_sha256=image.sha256,
            labels_id=digest,
            scores=PackedScores.pack(row).to_bytes(),
        )
        Proposal.objects.create(run=run, image=image, state="empty", prediction=prediction, tags=[])
    return run


@pytest.fixture
def run(db, labels) -> Run:
    return make_run(labels)


def version(spec, lists=(), slug="p"):
    policy, _ = Policy.objects.get_or_create(slug=slug, defaults={"name": slug})
    return policies.create_policy_version(policy, spec, lists)


def apply(run, spec, lists=()) -> RecomputeJob:
    return recompute.run_recompute(recompute.start_recompute(run, version(spec, lists)).pk)


def names(run) -> list[list[str]]:
    rows = Proposal.objects.filter(run=run).order_by("pk").values_list("tags", flat=True)
    return [[t[0] for t in tags if t[3] != "dropped"] for tags in rows]


def shown(run) -> list[set[str]]:
    images = ImageAsset.objects.filter(collection=run.collection).order_by("pk")
    return [set(i.image_tags.filter(state=ImageTag.State.PROPOSED).values_list("tag__name", flat=True)) for i in images]


def test_thresholds_are_applied_to_stored_scores_and_shown(run, labels):
    job = apply(run, {"thresholds": {"general": 0.6}})
    assert job.state == "done"
    assert (job.n_total, job.n_done, job.n_changed, job.n_skipped) == (6, 6, 6, 0)
    assert names(run) == [[labels.names[i]] for i in range(6)]
    assert shown(run) == [{labels.names[i]} for i in range(6)]
    assert (job.tags_before, job.tags_after) == (0, 6)
    assert job.gained == dict.fromkeys(sorted(labels.names[:6]), 1)
    job = apply(run, {"thresholds": {"general": 0.4}})
    assert names(run) == [[labels.names[i], labels.names[i + 1]] for i in range(6)]
    assert (job.tags_before, job.tags_after, job.lost) == (6, 12, {})
    counts = TagCount.objects.filter(collection=run.collection, proposed__gt=0)
    assert sum(c.proposed for c in counts) == 12
    assert Proposal.objects.filter(run=run, policy_version=job.policy_version).count() == 6
    assert ImageAsset.objects.filter(proposal_state="ok", top_score__gt=0.89).count() == 6


def test_what_was_proposed_before_stays_as_history_and_nothing_is_kept_twice(run, labels):
    apply(run, {"thresholds": {"general": 0.6}})
    first = Proposal.objects.filter(run=run).first()
    old = (first.tags, first.policy_version)
    assert ProposalRevision.objects.count() == 6
    job = apply(run, {"thresholds": {"general": 0.6}, "banned": [labels.names[0]]})
    assert job.n_changed == 1
    assert job.lost == {labels.names[0]: 1}
    kept = ProposalRevision.objects.get(job=job)
    assert (kept.proposal_id, kept.tags, kept.policy_version) == (first.pk, *old)
    first.refresh_from_db()
    assert first.state == "empty"
    assert first.tags[0][3:5] == ["dropped", "banned by 'policy'"]
    again = apply(run, {"thresholds": {"general": 0.6}, "banned": [labels.names[0]]})
    assert again.n_changed == 0
    assert ProposalRevision.objects.count() == 7


def test_truth_is_never_touched(run, labels):
    apply(run, {"thresholds": {"general": 0.4}})
    image = ImageAsset.objects.filter(collection=run.collection).first()
    tags = {t.tag.name: t for t in image.image_tags.all()}
    ImageTag.objects.filter(image=image, tag=tags[labels.names[0]].tag).update(state=ImageTag.State.ACCEPTED)
    ImageTag.objects.filter(image=image, tag=tags[labels.names[1]].tag).update(state=ImageTag.State.REJECTED)
    ImageAsset.objects.filter(pk=image.pk).update(caption="Mine", caption_state="edited", review_state="reviewed")
    apply(run, {"banned": list(labels.names[:3])})
    assert set(image.image_tags.values_list("tag__name", "state")) == {
        (labels.names[0], ImageTag.State.ACCEPTED),
        (labels.names[1], ImageTag.State.REJECTED),
    }
    image.refresh_from_db()
    assert (image.caption, image.caption_state, image.review_state) == ("Mine", "edited", "reviewed")


def test_images_that_show_another_run_keep_what_they_show(run, labels):
    other = make_run(labels, shown=False)
    apply(run, {"thresholds": {"general": 0.6}})
    apply(other, {"thresholds": {"general": 0.4}})
    assert shown(run) == [{labels.names[i]} for i in range(6)]
    assert shown(other) == [set()] * 6
    assert len(names(other)[0]) == 2


def test_rules_about_tags_together_and_captions_take_the_ordinary_way(run, labels):
    prediction = Proposal.objects.filter(run=run).first().prediction
    Prediction.objects.filter(pk=prediction.pk).update(caption="A beautiful day.")
    job = apply(run, {"forced": ["photo"], "max_tags": 2, "caption": {"banned_phrases": ["beautiful"]}})
    assert job.n_changed == 6
    assert all("photo" in found and len(found) == 2 for found in names(run))
    assert Proposal.objects.filter(run=run).first().caption == "A day."
    assert ImageAsset.objects.filter(caption="A day.", caption_state="proposed").count() == 1
    job = apply(run, {"banned": ["day"]})
    assert Proposal.objects.filter(run=run).first().caption == "A beautiful."
    assert not any("photo" in found for found in names(run))


def test_errors_and_proposals_without_a_prediction_are_left_as_they_are(run):
    ids = list(Proposal.objects.filter(run=run).values_list("pk", flat=True))
    Proposal.objects.filter(pk=ids[0]).update(state="error", error="broken")
    Proposal.objects.filter(pk=ids[1]).update(prediction=None)
    job = apply(run, {"thresholds": {"general": 0.6}})
    assert (job.n_done, job.n_skipped, job.n_changed) == (6, 2, 4)
    assert Proposal.objects.get(pk=ids[0]).error == "broken"


def test_a_job_goes_on_where_it_was_and_a_lost_claim_writes_nothing(run, monkeypatch):
    monkeypatch.setattr(reproposing, "SLICE", 2)
    job = recompute.start_recompute(run, version({"thresholds": {"general": 0.6}}))
    part = recompute.run_recompute(job.pk, seconds=0)
    assert (part.state, part.n_done, part.owner) == ("running", 2, "")
    RecomputeJob.objects.filter(pk=job.pk).update(owner="elsewhere|1|2", lease_until=timezone.now() + recompute.LEASE)
    assert recompute.run_recompute(job.pk).n_done == 2
    RecomputeJob.objects.filter(pk=job.pk).update(lease_until=timezone.now())

    def stolen(job):
        RecomputeJob.objects.filter(pk=job.pk).update(token=99)

    lost = recompute.run_recompute(job.pk, report=stolen)
    assert (lost.n_done, ProposalRevision.objects.count()) == (4, 4)
    RecomputeJob.objects.filter(pk=job.pk).update(owner="")
    done = recompute.run_recompute(job.pk)
    assert (done.state, done.n_done, done.n_changed, ProposalRevision.objects.count()) == ("done", 6, 6, 6)


def test_one_open_job_a_run_and_none_while_it_works(run):
    first = version({"max_tags": 3})
    job = recompute.start_recompute(run, first)
    assert recompute.start_recompute(run, first) == job
    with pytest.raises(NotNow, match="is being applied"):
        recompute.start_recompute(run, version({"max_tags": 4}))
    recompute.cancel_recompute(job)
    assert recompute.run_recompute(job.pk).n_done == 0
    with pytest.raises(NotNow, match="over already"):
        recompute.cancel_recompute(job)
    Run.objects.filter(pk=run.pk).update(state=Run.State.RUNNING, finished_at=None)
    with pytest.raises(NotNow, match="still running"):
        recompute.start_recompute(run, first)


def test_a_changed_banned_word_changes_what_the_same_rules_do(run, labels):
    bans = prompts.create_wordlist(slug="no-go", kind="banned", entries=["nothing"])
    first = version({}, [bans.current])
    recompute.run_recompute(recompute.start_recompute(run, first).pk)
    prompts.add_entry(bans, {"text": labels.names[0], "match": "exact"})
    second = policies.with_current_lists(first)
    assert (second.number, second.spec) == (2, first.spec)
    assert second.digest != first.digest
    assert policies.with_current_lists(second) == second
    job = recompute.run_recompute(recompute.start_recompute(run, second).pk)
    assert job.lost == {labels.names[0]: 1}


def test_a_preview_says_what_would_change_and_writes_nothing(run, labels):
    apply(run, {"thresholds": {"general": 0.6}})
    before = names(run)
    found = previews.preview(run, {"thresholds": {"general": 0.6}, "banned": [labels.names[2]]})
    assert (found.n_images, found.n_changed, found.lost) == (6, 1, {labels.names[2]: 1})
    assert found.examples[0].lost == [labels.names[2]]
    assert names(run) == before
    with pytest.raises(ValidationError) as caught:
        previews.preview(run, {"max_tag": 3})
    assert caught.value.message_dict == {"spec": ["max_tag: Extra inputs are not permitted"]}


def test_a_pattern_that_runs_for_ever_is_stopped_and_said(run):
    Prediction.objects.update(labels=None, scores=None, tags=[["a" * 60 + "!", "general", 0.9]])
    bans = prompts.create_wordlist(slug="slow", kind="banned", entries=[{"text": "(a|aa)+$", "match": "regex"}])
    job = apply(run, {}, [bans.current])
    assert (job.state, job.n_changed) == ("done", 6)
    assert "the pattern '(a|aa)+$' of 'slow' took longer than 20 ms and counts as no match" in job.error


def test_policy_versions_are_checked_numbered_and_frozen(db):
    first = version({"max_tags": 5, "vocabulary": "free"})
    assert first.spec == {"max_tags": 5}
    assert version({"max_tags": 5}) == first
    policy = first.policy
    with pytest.raises(ValidationError) as caught:
        policies.create_policy_version(policy, {"max_tags": 6}, base=0)
    assert "base" in caught.value.message_dict
    bans = prompts.create_wordlist(slug="no-go", kind="banned", entries=["cat"]).current
    with pytest.raises(ValidationError) as caught:
        policies.create_policy_version(policy, {"forced": ["cat"]}, [bans])
    assert caught.value.message_dict["spec"][0].startswith("'cat' is to stand on every image but is banned")
    with pytest.raises(ValidationError, match="There is no wordlist 'x'; there are: no-go"):
        policies.current_versions(["x"])
    rows = type(first).objects.filter(pk=first.pk)
    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic():
        rows.update(spec={})
    assert rows.update(message="said better") == 1


def command(*args) -> str:
    out = StringIO()
    call_command("recompute", *args, stdout=out)
    return out.getvalue()


def test_the_command_recomputes_and_says_what_changed(run, labels):
    version({"thresholds": {"general": 0.6}}, slug="strict")
    text = command("--run", str(run.pk), "--policy", "strict")
    assert f"run {run.pk}, strict v1: 6 of 6 images changed, 0 tags became 6" in text
    assert f"gained: {sorted(labels.names[:6])[0]} (1)" in text
    assert "0 of 6 images changed" in command("--collection", run.collection.name, "--policy", "strict")
    assert "queued as job" in command("--collection", run.collection.slug, "--policy", "strict", "--queue")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--run", "99999999999999999999"), "There is no run 99999999999999999999"),
        ((), "Say which runs"),
        (("--run", "1", "--collection", "x"), "Say which runs"),
        (("--run", "999999"), "There is no run 999999"),
        (("--collection", "nope"), "There is no collection 'nope'"),
        (("--run", "1", "--policy", "nope"), "There is no policy 'nope'; there are: default"),
        (("--run", "1", "--policy-version", "7"), "The policy 'default' has no version 7"),
    ],
)
def test_the_command_answers_wrong_input_in_a_line(run, args, message):
    with pytest.raises(CommandError, match=message):
        command(*args)


def test_thresholds_that_look_at_the_scores_are_asked_for_every_image(run, labels, monkeypatch):
    kind = adapter_class("photo-lite")
    seen = []

    def best_only(labels, probabilities, options):
        seen.append(float(probabilities.max()))
        return {"general": float(probabilities.max()) - 0.01}

    monkeypatch.setattr(kind, "thresholds", staticmethod(best_only))
    monkeypatch.setattr(kind, "thresholds_vary", staticmethod(lambda options: True))
    row = np.zeros(len(labels.names), dtype=np.float32)
    row[7], row[8] = 0.4, 0.1
    prediction = Proposal.objects.filter(run=run).last().prediction_id
    Prediction.objects.filter(pk=prediction).update(scores=PackedScores.pack(row).to_bytes())
    apply(run, {})
    assert names(run) == [[labels.names[i]] for i in (0, 1, 2, 3, 4, 7)]
    assert [round(score, 2) for score in seen] == [0.9] * 5 + [0.4]
    monkeypatch.setattr(kind, "thresholds_vary", staticmethod(lambda options: False))
    seen.clear()
    apply(run, {"banned": ["nothing"]})
    assert len(seen) == 1


def test_a_tag_that_a_person_merged_into_another_is_shown_once_and_counted_right(run, labels):
    apply(run, {"thresholds": {"general": 0.4}})
    ids = dict(Tag.objects.values_list("name", "pk"))
    first, second = ids[labels.names[0]], ids[labels.names[1]]
    ImageTag.objects.filter(tag=first).delete()
    Tag.objects.filter(pk=first).delete()
    TagAlias.objects.create(name=labels.names[0], key=tag_key(labels.names[0]), tag_id=second)
    vocabulary.forget()
    counts.rebuild(run.collection)
    job = apply(run, {"thresholds": {"general": 0.4}, "banned": [labels.names[2]]})
    assert job.lost == {labels.names[2]: 2}
    image = ImageAsset.objects.order_by("pk").first()
    assert list(image.image_tags.values_list("tag_id", "state")) == [(second, ImageTag.State.PROPOSED)]
    before = sorted(TagCount.objects.exclude(proposed=0).values_list("tag_id", "proposed"))
    counts.rebuild(run.collection)
    assert sorted(TagCount.objects.exclude(proposed=0).values_list("tag_id", "proposed")) == before
