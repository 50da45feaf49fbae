"""Judges by API and command: made, chosen, asked, compared, gated; with the roles that each takes."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command

from judging.actions.judge_jobs import run_job
from judging.models import JudgeJob, JudgeProfile, JudgeVerdict
from tagging.models import ImageAsset
from tests.tagging.world import collection, keyed, person

from .world import adapter, decide, judge, run

pytestmark = pytest.mark.django_db
GOOD = ["dog", "grass", "tree"]
SAID = {f"{i}.jpg": [*GOOD, "cat"] for i in range(70)}
TRUTH = dict.fromkeys(SAID, GOOD)


def post(client, path, data=None, status=200):
    response = client.post(f"/api{path}", json.dumps(data or {}), content_type="application/json")
    assert response.status_code == status, response.content
    return response.json()


def test_the_whole_story_by_api(scripted):
    curator = keyed(person("cara", "curator"))
    ann = person("ann", "reviewer")
    trip = collection()
    made = run(trip, SAID)
    decide(trip, TRUTH, ann)
    assert {j["slug"] for j in post(curator, "/judges/setup")} >= {"rules", "tag-verifier", "pairwise-judge"}
    assert post(curator, "/judges/setup") == []
    adapter("vision", truth={**TRUTH, "new.jpg": ["dog"]}, model="qwen-vl")
    refused = post(curator, "/judges/tag-verifier/enabled", {"enabled": True}, 422)
    assert "model" in refused["detail"]
    version = post(curator, "/judges/tag-verifier/versions", {"adapter": "vision"}, 201)
    assert (version["number"], version["families"]) == (2, ["qwen"])
    post(curator, "/judges/tag-verifier/enabled", {"enabled": True})
    job = post(curator, "/verdicts/jobs", {"judge": "tag-verifier", "runs": [made.pk]}, 201)
    assert (job["state"], job["total"]) == ("queued", 70)
    run_job(job["id"])
    assert curator.get(f"/api/verdicts/jobs/{job['id']}").json()["verdicts"] == 70
    post(curator, "/judges/tag-verifier/calibrate", status=202)
    from judging.tasks import calibrate

    calibrate(JudgeProfile.objects.get(slug="tag-verifier").current_id)
    shown = curator.get("/api/judges/tag-verifier").json()
    assert (shown["badge"], shown["calibration"][0]["decisions"]) == ("trusted", 280)
    assert [c["category"] for c in shown["calibration"]] == ["", "general"]
    page = curator.get(f"/api/verdicts?judge=tag-verifier&run={made.pk}&limit=2").json()
    assert len(page["items"]) == 2
    assert page["next_cursor"]
    assert {t["role"] for t in page["items"][0]["tags"]} >= {"candidate", "absent decoy"}
    lines = b"".join(curator.get(f"/api/verdicts/lines?run={made.pk}").streaming_content).splitlines()
    assert len(lines) == 70
    assert json.loads(lines[0])["judge"] == "tag-verifier v2"
    gate = {"judge": "tag-verifier", "accept_at": 0.9, "reject_at": None, "audit_share": 0.01}
    response = curator.put("/api/collections/trip/gate", json.dumps(gate), content_type="application/json")
    assert response.status_code == 200, response.content
    assert response.json()["closed"] == ""
    from .world import recipe

    more = run(trip, {"new.jpg": ["dog"]}, of=recipe("next"))
    job = post(curator, "/collections/trip/gate/runs", {"run": more.pk}, 201)
    run_job(job["id"])
    assert ImageAsset.objects.get(path="new.jpg").review_state == "auto"
    assert post(curator, f"/verdicts/jobs/{job['id']}/undo") == {"images": 1, "left": 0}
    post(curator, f"/verdicts/jobs/{job['id']}/undo", status=409)
    assert ImageAsset.objects.get(path="new.jpg").review_state == "unreviewed"


def test_disagreements_by_api(scripted):
    ann = person("ann", "reviewer")
    trip = collection()
    made = run(trip, {"0.jpg": ["dog"]})
    decide(trip, {"0.jpg": ["dog"]}, ann)
    profile = judge(manner="no")
    from judging.actions.judge_jobs import start_job

    run_job(start_job(profile.current, runs=[made]).pk)
    client = keyed(ann, ("read", "write"))
    found = client.get("/api/judges/tag-verifier/disagreements").json()["items"]
    assert [(f["tag"], f["judge"], f["people"]) for f in found] == [("dog", "wrong", "accepted")]
    post(client, f"/judges/disagreements/{found[0]['id']}", {"answer": "perhaps"}, 422)
    post(client, f"/judges/disagreements/{found[0]['id']}", {"answer": "person"}, 201)
    assert client.get("/api/judges/tag-verifier/disagreements").json()["items"] == []
    post(client, "/judges/disagreements/999999", {"answer": "person"}, 404)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/judges/setup", {}),
        ("/judges", {"slug": "x", "kind": "verifier"}),
        ("/judges/tag-verifier/versions", {"rubric": "x"}),
        ("/judges/tag-verifier/enabled", {"enabled": False}),
        ("/judges/tag-verifier/learn", {}),
        ("/verdicts/jobs", {"judge": "tag-verifier"}),
        ("/collections/trip/gate/runs", {"run": 1}),
    ],
)
def test_what_takes_a_curator_is_refused_to_others(scripted, path, data):
    judge()
    collection()
    post(keyed(person("ann", "reviewer"), ("read", "write")), path, data, 403)


def test_problems_name_their_field(scripted):
    curator = keyed(person("cara", "curator"))
    judge()
    assert post(curator, "/judges/none/versions", {}, 404)["detail"] == "There is no judge 'none'."
    for data, field in (
        ({"adapter": "none"}, "adapter"),
        ({"rules": {"tags_per_call": 99}}, "rules"),
        ({"prompt_version": 99999}, "prompt_version"),
        ({"options": {"colour": 1}}, "options"),
        ({"members": ["tag-verifier"]}, "members"),
    ):
        assert post(curator, "/judges/tag-verifier/versions", data, 422)["field"] == field
    assert post(curator, "/verdicts/jobs", {"judge": "tag-verifier", "runs": [99]}, 422)["field"] == "runs"
    assert post(curator, "/verdicts/jobs", {"judge": "tag-verifier"}, 422)["field"] == "runs"


def test_jobs_are_paused_resumed_and_cancelled_by_api(scripted):
    curator = keyed(person("cara", "curator"))
    made = run(collection(), {"0.jpg": ["dog"]})
    judge()
    job = post(curator, "/verdicts/jobs", {"judge": "tag-verifier", "runs": [made.pk]}, 201)
    assert post(curator, f"/verdicts/jobs/{job['id']}/pause")["state"] == "paused"
    post(curator, f"/verdicts/jobs/{job['id']}/pause", status=409)
    assert post(curator, f"/verdicts/jobs/{job['id']}/budget", {"max_calls": 5})["state"] == "paused"
    assert post(curator, f"/verdicts/jobs/{job['id']}/resume")["state"] == "queued"
    assert post(curator, f"/verdicts/jobs/{job['id']}/cancel")["state"] == "cancelled"


def test_the_list_of_judges_costs_the_same_for_many(scripted, django_assert_max_num_queries):
    client = keyed(person("vic", "viewer"), ("read",))
    profile = judge()
    from judging.actions.judges import create_profile, save_version

    for i in range(20):
        save_version(create_profile(slug=f"v{i}", kind="verifier"), adapter=profile.current.adapter)
    with django_assert_max_num_queries(12):
        assert len(client.get("/api/judges").json()) == 24


# -- commands ---------------------------------------------------------------------------------------------------------
def command(*args: str) -> str:
    out = io.StringIO()
    call_command("judge", *args, stdout=out)
    return out.getvalue()


def test_the_command_does_it_all(scripted):
    trip = collection()
    made = run(trip, SAID)
    decide(trip, TRUTH, person("ann", "reviewer"))
    adapter("vision", truth=TRUTH)
    assert "tag-verifier" in command("setup")
    assert "Choose the model" in command("list")
    assert "asks vision" in command("model", "tag-verifier", "vision", "--option", "model=gemma-3")
    said = command("run", "tag-verifier", "--run", str(made.pk), "--wait")
    assert "70 of 70, 70 verdicts" in said
    assert JudgeVerdict.objects.count() == 70
    assert "trusted" in command("calibrate", "tag-verifier")
    job = JudgeJob.objects.get()
    assert f"job {job.pk}, done" in command("job", str(job.pk))
    with pytest.raises(CommandError, match="over already"):
        command("job", str(job.pk), "cancel")
    with pytest.raises(CommandError, match="There is no judge"):
        command("run", "nobody", "--run", str(made.pk))
    with pytest.raises(CommandError, match="no open gate"):
        command("run", "tag-verifier", "--run", str(made.pk), "--gate")
