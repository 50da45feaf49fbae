"""The report of an experiment: one file that says everything and fetches nothing."""

from __future__ import annotations

import json
import re

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from judging.actions.experiments import start
from judging.report import report
from tagging.models import ImageAsset
from tests.tagging.pages import signed_in

from . import lab

pytestmark = pytest.mark.django_db
AXES = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"], "kept": [3, 4, 5]}}


@pytest.fixture
def made(fake):
    trip = lab.collection(30)
    lab.decide(ImageAsset.objects.filter(collection=trip), {"variant": "a"}, wrong={"variant": "b"})
    found = lab.experiment(trip, AXES, name="<Which> variant?", question="Is b & c better?", holdout=0.2)
    start(found)
    return lab.finish(found)


def test_it_tells_the_setup_and_the_evidence(made):
    text = "".join(report(made))
    assert "Is b &amp; c better?" in text
    assert "&lt;Which&gt; variant?" in text
    for row in made.rows.all():
        assert row.recipe.key in text
        assert f'id="recipe-{row.pk}"' in text
    assert "better" in text
    assert "worse" in text
    assert "What kept does" in text
    assert text.count("<polyline") >= 4
    assert "Where they disagree most" in text
    assert "last check" in text
    assert "Policy" in text
    assert text.rstrip().endswith("</html>")


def test_nothing_in_it_reaches_out(made):
    text = "".join(report(made))
    links = re.findall(r'(?:src|href|action|srcset|data-src)="([^"]*)"', text)
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(" not in text
    assert "<script" not in text
    assert "@import" not in text


def test_its_plan_can_be_read_again(made, tmp_path):
    text = "".join(report(made))
    from html import unescape

    plan = json.loads(unescape(re.findall(r"<pre>(\{.*?\})</pre>", text, re.S)[-1]))
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    call_command("experiment", str(file), "--plan")


def test_it_comes_by_page_api_and_command(made, tmp_path):
    client = signed_in("viewer")
    page = client.get(reverse("judging:experiment_report", args=[made.pk]))
    assert page.status_code == 200
    assert "default-src 'none'" in page["Content-Security-Policy"]
    assert b"Leaderboard by F1" in b"".join(page.streaming_content)
    by_api = client.get(f"/api/experiments/{made.pk}/report")
    assert by_api["Content-Disposition"].startswith("attachment")
    assert b"Leaderboard by F1" in b"".join(by_api.streaming_content)
    out = tmp_path / "report.html"
    call_command("experiment", report=made.pk, out=out)
    assert "Leaderboard by F1" in out.read_text()
    with pytest.raises(CommandError, match="--out"):
        call_command("experiment", report=made.pk)


def test_a_draft_has_a_report_too(fake):
    trip = lab.collection(3)
    draft = lab.experiment(trip, AXES, name="Later")
    text = "".join(report(draft))
    assert "not started" in text
