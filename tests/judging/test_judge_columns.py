"""What judges say beside the leaderboard: never in it, corrected only where people trust the judge."""

from __future__ import annotations

import pytest
from django.urls import reverse

from judging import board
from judging.actions.experiments import start
from judging.judge_columns import columns
from judging.models import Calibration, JudgedTag, JudgeProfile, JudgeProfileVersion, JudgeVerdict, RunVerdict
from tagging.models import ImageAsset, Tag
from tests.tagging.pages import signed_in

from . import lab

pytestmark = pytest.mark.django_db


@pytest.fixture
def made(fake):
    trip = lab.collection(20)
    lab.decide(ImageAsset.objects.filter(collection=trip), {"variant": "a"}, wrong={"variant": "b"})
    axes = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"]}}
    found = lab.experiment(trip, axes, name="Two")
    start(found)
    return lab.finish(found)


def judge(made, kind, *, badge="", says=lambda row: 1.0, reference=None):
    """A judge that finds everything right, on each recipe."""
    profile = JudgeProfile.objects.create(slug=kind, name=kind, kind=kind)
    version = JudgeProfileVersion(profile=profile, number=1, digest=kind.ljust(64, "0"))
    version.save()
    if badge:
        Calibration.objects.create(version=version, badge=badge)
    tags = dict(Tag.objects.values_list("name", "pk"))
    for row in made.rows.all():
        for run in row.runs.all():
            for proposal in run.proposals.select_related("image"):
                image = proposal.image
                verdict = JudgeVerdict(
                    key=f"{kind} {run.pk} {image.pk}".ljust(64, "."), version=version, image=image,
                    image_sha256=image.sha256, kind=kind, state="ok", overall=says(row),
                    result={"reference": reference} if reference is not None else {},
                )  # fmt: skip
                verdict.save()
                RunVerdict.objects.create(run=run, image=image, version=version, verdict=verdict)
                JudgedTag.objects.bulk_create(
                    JudgedTag(
                        verdict=verdict, version=version, image=image, name=tag[0], tag_id=tags.get(tag[0]), word=1,
                        p_ok=0.9, certainty=0.8,
                    )
                    for tag in proposal.tags if tag[3] in ("kept", "changed", "added")
                )  # fmt: skip
    return version


def test_a_trusted_judge_that_says_yes_to_all_is_corrected_by_people(made):
    judge(made, "verifier", badge="trusted")
    right, wrong = columns(made)[0].lines
    assert (right.overall.value, right.overall.images) == (1.0, 20)
    assert right.corrected.value == pytest.approx(1.0)
    assert wrong.overall.value == 1.0
    assert wrong.corrected.value < 0.2


@pytest.mark.parametrize("badge", ["", "off", "advisory"])
def test_a_judge_that_is_not_trusted_corrects_nothing(made, badge):
    judge(made, "verifier", badge=badge)
    assert all(line.corrected is None for line in columns(made)[0].lines)


def test_it_changes_no_place_in_the_leaderboard(made):
    before = board.compute(made)
    judge(made, "verifier", badge="trusted", says=lambda row: float(row.position))
    assert board.compute(made) == before


def test_captions_are_held_against_the_reviewed_text(made):
    judge(made, "caption", reference=0.8)
    line = columns(made)[0].lines[0]
    assert line.same.value == pytest.approx(0.8)
    assert line.corrected is None
    page = signed_in("viewer").get(reverse("judging:judge_scores", args=[made.pk])).content.decode()
    assert "Says what the reviewed text says" in page
    assert "0.800" in page
