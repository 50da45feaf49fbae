"""Decoys come from images that look different."""

from __future__ import annotations

import pytest

from judging.actions.judge_jobs import run_job, start_job
from judging.models import JudgedTag
from tagging.models import ImageAsset
from tests.tagging.world import collection

from .world import judge, run

pytestmark = pytest.mark.django_db
SERIES, OTHER = 0x0F0F_0F0F_0F0F_0F0F, -0x0F0F_0F0F_0F0F_0F10  # all 64 bits differ


def test_words_of_a_look_alike_are_no_decoys_where_others_are_left(scripted):
    """Two frames of a series: what is tagged on one may well be on the other."""
    trip = collection()
    near = [f"near{i}" for i in range(6)]
    far = [f"far{i}" for i in range(6)]
    made = run(trip, {"a.jpg": ["dog"], "b.jpg": near, "c.jpg": far})
    ImageAsset.objects.filter(path__in=["a.jpg", "b.jpg"]).update(phash=SERIES)
    ImageAsset.objects.filter(path="b.jpg").update(phash=SERIES ^ 0b111)
    ImageAsset.objects.filter(path="c.jpg").update(phash=OTHER)
    run_job(start_job(judge(truth={}).current, runs=[made]).pk)
    drawn = JudgedTag.objects.filter(role=JudgedTag.Role.ABSENT, image__path="a.jpg")
    assert drawn.count() == 2
    assert not {row.name for row in drawn} & set(near)


def test_without_hashes_the_other_rules_alone_decide(scripted):
    trip = collection()
    made = run(trip, {"a.jpg": ["dog"], "b.jpg": ["cat", "lake", "tree", "hill", "road", "boat"]})
    run_job(start_job(judge(truth={}).current, runs=[made]).pk)
    assert JudgedTag.objects.filter(role=JudgedTag.Role.ABSENT, image__path="a.jpg").count() == 2


def test_sampling_costs_the_same_in_a_large_collection(scripted, django_assert_max_num_queries):
    from judging.actions.judge_subjects import _others

    trip = collection()
    ImageAsset.objects.bulk_create(
        ImageAsset(collection=trip, path=f"{i}.jpg", sha256=f"{i:064x}", phash=i) for i in range(3000)
    )
    with django_assert_max_num_queries(7):
        found = _others(trip.pk)
    assert 0 < len(found) <= 96
    assert found == _others(trip.pk), "the same each time"
