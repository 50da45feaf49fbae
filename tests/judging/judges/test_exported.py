"""What a judge accepted leaves the house only when asked for."""

from __future__ import annotations

import json

import pytest
from django.core.management import call_command

from tagging.models import ImageAsset
from tests.tagging.world import collection, person

from .world import decide, run

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("given", "names"), [([], ["0.jpg"]), (["--option", "judged=true"], ["0.jpg", "1.jpg"])])
def test_images_accepted_by_a_judge_are_exported_on_request(tmp_path, given, names):
    trip = collection()
    run(trip, {"0.jpg": ["dog"], "1.jpg": ["dog"], "2.jpg": ["dog"]})
    decide(trip, {"0.jpg": ["dog"]}, person("ann", "reviewer"))
    ImageAsset.objects.filter(path="1.jpg").update(review_state="auto")
    out = tmp_path / "out.jsonl"
    call_command("export", "jsonl", "--collection", "Trip", "--out", str(out), *given)
    assert [json.loads(line)["path"] for line in out.read_text().splitlines()] == names
