"""What several channels said, combined anew: no inference, whatever changes above the predictions."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command

from tagging.actions import policies, recompute
from tagging.actions.runs import NotNow, start_run
from tagging.engine.progress import progress
from tagging.models import ImageTag, Policy, Prediction
from tests.fakes import adapter as fakes

from .test_channels import (  # noqa: F401
    N,
    _clean,
    answer,
    called,
    collection,
    drain,
    kept,
    log,
    merge_recipe,
    tagger,
    tags,
    talker,
    two,
)

pytestmark = pytest.mark.django_db


def policy(spec, slug="p"):
    row, _ = Policy.objects.get_or_create(slug=slug, defaults={"name": slug})
    return policies.create_policy_version(row, spec)


def again(run, version=None, combine=None):
    version = version or run.recipe.policy_version
    return recompute.run_recompute(recompute.start_recompute(run, version, combine=combine).pk)


def test_a_policy_is_applied_to_what_all_channels_said(tagger, talker, collection, log):  # noqa: F811
    run = start_run(two(tagger, talker), collection=collection)
    drain()
    asked = len(called(log))
    job = again(run, policy({"banned": ["red"], "thresholds": {"general": 0.6}}))
    assert (job.state, job.n_done, job.n_skipped, job.n_changed) == ("done", N, 0, N)
    proposal = run.proposals.get(image__path="003.jpg")
    assert "red" not in kept(proposal)
    assert "label 1" in kept(proposal)
    assert len(kept(proposal)) < 7
    shown = ImageTag.objects.filter(image__path="003.jpg").values_list("tag__name", flat=True)
    assert set(shown) == set(kept(proposal))
    back = again(run, policy({}))
    assert back.n_changed == N
    proposal.refresh_from_db()
    assert set(kept(proposal)) == {*fakes.expected("003.jpg"), "label 1", "red", "003.jpg"}
    assert len(called(log)) == asked
    assert proposal.revisions.count() == 2
    assert again(run, policy({})).n_changed == 0


def test_another_rule_needs_no_inference_and_says_so(tagger, talker, collection, log):  # noqa: F811
    both = fakes.expected("003.jpg")[0]
    run = start_run(two(tagger, talker, other={"says": f"{both}, red"}), collection=collection)
    drain()
    asked, stored = len(called(log)), Prediction.objects.count()
    assert again(run, combine={"rule": "votes", "votes": 2}).n_changed == N
    proposal = run.proposals.get(image__path="003.jpg")
    assert kept(proposal) == [both]
    assert proposal.flags == ["combine:votes"]
    assert again(run).n_changed == N
    proposal.refresh_from_db()
    assert {*fakes.expected("003.jpg"), "red"} == set(kept(proposal))
    assert proposal.flags == []
    assert (len(called(log)), Prediction.objects.count()) == (asked, stored)


def test_rules_that_cannot_be_are_refused(tagger, talker, collection):  # noqa: F811
    run = start_run(two(tagger, talker), collection=collection)
    version = run.recipe.policy_version
    with pytest.raises(NotNow):
        recompute.start_recompute(run, version, combine={"rule": "union"})
    drain()
    for rule, text in (
        ({"rule": "votes", "votes": 3}, "cannot be had"),
        ({"rule": "llm_merge"}, "a new run has to"),
        ({"rule": "single"}, "does not go with 2"),
    ):
        with pytest.raises(ValidationError, match=text):
            recompute.start_recompute(run, version, combine=rule)
    with pytest.raises(CommandError, match="no JSON"):
        call_command("recompute", run=[run.pk], combine="{")
    call_command("recompute", run=[run.pk], combine=json.dumps({"rule": "intersection"}))
    assert kept(run.proposals.get(image__path="003.jpg")) == []


def test_what_was_merged_is_read_again(tagger, talker, collection, log):  # noqa: F811
    says = answer(("crimson sky", ["qwen: red sky"], ""), ("boat", [], "at the left"), caption="A sky.")
    run = start_run(merge_recipe(tagger, talker, says, stubborn=["004.jpg"]), collection=collection)
    drain()
    asked = len(called(log))
    assert again(run, policy({"banned": ["boat"], "thresholds": {"general": 0.9}})).n_skipped == 0
    proposal = run.proposals.get(image__path="003.jpg")
    assert kept(proposal) == ["crimson sky"]
    assert tags(proposal)["boat"][0] == "dropped"
    fallen = run.proposals.get(image__path="004.jpg")
    assert fallen.flags == ["merge_fallback", "merge: it is not JSON"]
    again(run, combine={"rule": "union"})
    fallen.refresh_from_db()
    assert fallen.flags == ["combine:union"]
    assert len(called(log)) == asked
    assert progress([run])[run.pk].fallback == 1


def test_errors_stay_errors(tagger, talker, collection):  # noqa: F811
    recipe = two(tagger, talker, one={"bad": ["001.jpg"]}, other={"says": "red", "refused": ["001.jpg", "002.jpg"]})
    run = start_run(recipe, collection=collection)
    drain()
    job = again(run, policy({"banned": ["red"]}))
    assert (job.n_skipped, job.n_done) == (1, N)
    assert run.proposals.get(image__path="001.jpg").state == "error"
    assert run.proposals.get(image__path="002.jpg").flags == ["failed:qwen"]
