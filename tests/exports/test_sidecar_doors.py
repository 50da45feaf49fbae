"""Sidecars by command, API and browser: the same plan, the same words, the same undo."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command

from exports import actions
from exports.models import ExportJob
from tagging import queue

from .folders import SIDECARS, add_tag, folder, hashes, planned, rewrite, run, take_tag, words, written
from .truth import run_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "trip"
    path.mkdir()
    return path


@pytest.fixture
def trip(root):
    return folder(root, ["a.jpg", "b.jpg"])


@pytest.fixture
def curator(db) -> User:
    user = User.objects.create_user("cora", password="x")
    user.groups.add(Group.objects.get(name="curator"))
    return user


@pytest.fixture
def web(client, curator, monkeypatch):
    """A signed-in browser; what it queues is done when `web.work()` is called."""
    rung = []
    monkeypatch.setattr(queue, "defer", lambda path, *args, cluster=None: rung.append(args[0]))
    client.force_login(curator)
    client.work = lambda: [actions.run_export(pk) for pk in (rung.pop(0) for _ in list(rung))]
    return client


def shell(command: str, *args: str) -> tuple[int, str]:
    """(exit code, what was said)."""
    out = io.StringIO()
    try:
        call_command(command, *args, stdout=out, stderr=out)
    except CommandError as e:
        return e.returncode, out.getvalue() + str(e)
    except SystemExit as e:
        return int(e.code or 0), out.getvalue()
    return 0, out.getvalue()


# -- the command ------------------------------------------------------------------------------------------------------
def test_a_dry_run_says_every_word_and_its_code(trip, root):
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.xmp")
    before = hashes(root)
    code, said = shell("export", "xmp", "--collection", "trip", "--profile", "lightroom", "--prefix", "iw", "--dry-run")
    assert code == 1
    assert hashes(root) == before
    assert not ExportJob.objects.exists()
    assert "M a.xmp" in said
    assert "A b.xmp" in said
    assert "    + dog  (iw › animal › dog)" in said
    assert "    = Oslo  (Places › Norway › Oslo)  not written by iwtag" in said
    assert "Lightroom reads no sidecar beside JPG" in said
    assert "2 images: 1 new files, 1 changed, 0 unchanged" in said
    assert "words: 4 added, 0 removed, 2 kept, 0 withheld" in said


def test_it_writes_and_then_there_is_nothing_to_do(trip, root):
    args = ("export", "xmp", "--collection", "trip", "--profile", "immich")
    code, said = shell(*args)
    assert (code, words(root / "a.jpg.xmp")) == (0, ["dog", "beach"])
    assert "2 files written" in said
    assert shell(*args, "--dry-run")[0] == 0
    take_tag(trip, "beach")
    add_tag(trip, "boat")
    rewrite(root / "a.jpg.xmp", drop=["dog"])
    code, said = shell(*args, "--dry-run")
    assert code == 1
    assert "- beach  written by iwtag, no longer wanted" in said
    assert "~ dog" in said
    assert "taken out by someone since" in said


def test_problems_are_code_2(trip, root):
    (root / "a.jpg.xmp").write_bytes(b"<broken")
    args = ("export", "xmp", "--collection", "trip", "--profile", "immich")
    code, said = shell(*args, "--dry-run")
    assert code == 2
    assert "! a.jpg.xmp: " in said
    code, said = shell(*args)
    assert code == 2
    assert "a.jpg.xmp: " in said
    assert words(root / "b.jpg.xmp") == ["dog", "beach"]
    assert (root / "a.jpg.xmp").read_bytes() == b"<broken"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--out", "x.xmp"), "leave --out away"),
        (("--profile", "paint"), "profile"),
        (("--option", "nothing=1"), "nothing"),
        (("--filter", "shape=round"), "no filter"),
    ],
)
def test_wrong_words_are_one_line(trip, more, why):
    code, said = shell("export", "xmp", "--collection", "trip", *more)
    assert code == 2
    assert why in said


def test_only_some_images_and_what_is_proposed(trip, root):
    trip.images.filter(path="a.jpg").update(review_state="unreviewed")
    shell("export", "xmp", "--collection", "trip", "--profile", "immich")
    assert [p.name for p in root.glob("*.xmp")] == ["b.jpg.xmp"]
    shell("export", "xmp", "--collection", "trip", "--profile", "immich", "--proposed")
    assert (root / "a.jpg.xmp").exists()


def test_undo_by_command(trip, root):
    before = hashes(root)
    shell("export", "xmp", "--collection", "trip")
    job = ExportJob.objects.get()
    code, said = shell("export_undo", str(job.pk))
    assert code == 0
    assert "4 undone" in said
    assert hashes(root) == before
    assert shell("export_undo", str(job.pk)) == (2, "Nothing of this export is in force.")
    assert shell("export_undo", "999")[0] == 2
    assert shell("export_undo")[0] == 2
    assert shell("export_undo", "--recipe", "7") == (2, "Nothing by recipe 7 is in force.")


def test_a_name_cannot_steer_the_terminal(root):
    folder(root, ["a\x1b[31m.jpg"])
    said = shell("export", "xmp", "--collection", "trip", "--dry-run")[1]
    assert "\x1b" not in said
    assert "\\x1b[31m.xmp" in said


# -- the API ----------------------------------------------------------------------------------------------------------
def post(web, path, body=None, method="post"):
    return getattr(web, method)(f"/api/exports{path}", json.dumps(body or {}), content_type="application/json")


def test_plan_look_untick_apply_undo_by_api(trip, root, web):
    before = hashes(root)
    body = {"collection": "trip", "format": "xmp", "options": {"profile": "immich"}, "dry_run": True}
    answer = post(web, "", body)
    assert answer.status_code == 202
    pk = answer.json()["id"]
    web.work()
    found = web.get(f"/api/exports/{pk}").json()
    assert (found["state"], found["step"], found["summary"]["create"]) == ("planned", "plan", 2)
    page = web.get(f"/api/exports/{pk}/entries?limit=1").json()
    entry = page["items"][0]
    assert entry["target"] == str(root / "a.jpg.xmp")
    assert {(w["name"], w["kind"], w["why"]) for w in entry["words"]} == {
        ("dog", "added", "wanted"),
        ("beach", "added", "wanted"),
    }
    assert next(w for w in entry["words"] if w["name"] == "dog")["paths"] == ["animal › dog"]
    second = web.get(f"/api/exports/{pk}/entries?limit=1&cursor={page['next_cursor']}").json()
    assert second["next_cursor"] == ""
    answer = post(web, f"/{pk}/entries", {"selected": False, "ids": [entry["id"]]}, "patch")
    assert answer.json()["changed"] == 1
    assert len(web.get(f"/api/exports/{pk}/entries?kind=unticked").json()["items"]) == 1
    assert hashes(root) == before
    assert post(web, f"/{pk}/apply").status_code == 202
    assert post(web, f"/{pk}/apply").status_code == 409
    web.work()
    assert [p.name for p in root.glob("*.xmp")] == ["b.jpg.xmp"]
    done = web.get(f"/api/exports/{pk}/entries?kind=done").json()["items"]
    assert done[0]["sha_after"] == hashes(root)["b.jpg.xmp"]
    assert post(web, f"/{pk}/entries", {"selected": False}, "patch").status_code == 409
    assert post(web, f"/{pk}/undo", {"recipe": 1}).status_code == 409
    assert post(web, f"/{pk}/undo", {"recipe": 1, "entries": [1]}).status_code == 422
    assert post(web, f"/{pk}/undo", {"entries": [done[0]["id"]]}).json() == {"undone": 1, "problems": []}
    assert hashes(root) == before


def test_without_dry_run_it_is_written_at_once(trip, root, web):
    pk = post(web, "", {"collection": "trip", "format": "xmp"}).json()["id"]
    web.work()
    assert web.get(f"/api/exports/{pk}").json()["state"] == "done"
    assert len(list(root.glob("*.xmp"))) == 4
    assert post(web, f"/{pk}/undo").status_code == 202
    web.work()
    assert web.get(f"/api/exports/{pk}").json()["state"] == "undone"
    assert not list(root.glob("*.xmp"))


def test_what_the_api_refuses(trip, web):
    answer = post(web, "", {"collection": "trip", "format": "xmp", "options": {"mode": "burn"}})
    assert answer.status_code == 422
    assert "mode" in json.dumps(answer.json())
    pk = planned(trip).pk
    assert web.get(f"/api/exports/{pk}/entries?kind=odd").status_code == 422
    assert web.get(f"/api/exports/{pk}/entries?cursor=odd").status_code == 422
    assert post(web, f"/{pk}/undo").status_code == 409
    assert web.get(f"/api/exports/{pk}/files").status_code == 409
    formats = {f["format"]: f for f in web.get("/api/exports/formats").json()}
    assert formats["xmp"]["in_place"] is True
    assert formats["csv"]["in_place"] is False


# -- the browser ------------------------------------------------------------------------------------------------------
def test_plan_look_untick_write_undo_in_the_browser(trip, root, web):
    shutil.copy(SIDECARS / "lightroom.xmp", root / "a.xmp")
    before = hashes(root)
    assert "Write beside the images" in web.get("/exports/").content.decode()
    form = web.get("/exports/beside/?collection=trip").content.decode()
    assert 'name="options-prefix"' in form
    answer = web.post("/exports/beside/", {"collection": "trip", "format": "xmp", "options-profile": "lightroom"})
    job = ExportJob.objects.get()
    assert answer.url == f"/exports/{job.pk}/"
    assert "Waiting for a worker" in web.get(answer.url).content.decode()
    web.work()
    page = web.get(answer.url).content.decode()
    for said in ("Write 2 files", "words added", "not written by iwtag", "animal › dog", "Oslo", "changed file"):
        assert said in page
    assert (
        "changed file" not in web.get(f"{answer.url}?kind=create").content.decode().partition('<ul class="files">')[2]
    )
    entry = job.entries.get(action="create")
    bar = web.post(f"{answer.url}tick/", {"entry": entry.pk}, headers={"HX-Request": "true"}).content.decode()
    assert "Write 1 file" in bar
    assert "1 not" in bar
    assert hashes(root) == before
    assert web.get(f"{answer.url}apply/").status_code == 405
    web.post(f"{answer.url}apply/")
    web.work()
    assert "dog" in words(root / "a.xmp")
    assert not (root / "b.xmp").exists()
    page = web.get(answer.url).content.decode()
    assert "Undo 1 file" in page
    assert "undo it first" in web.post(f"/exports/{job.pk}/delete/", follow=True).content.decode()
    web.post(f"{answer.url}undo/")
    web.work()
    assert hashes(root) == before
    assert "undone" in web.get("/exports/").content.decode()


def test_one_file_taken_back_in_the_browser(trip, root, web):
    job = written(trip, profile="immich")
    entry = job.entries.order_by("id")[0]
    page = web.post(f"/exports/{job.pk}/undo/", {"entry": entry.pk}, follow=True).content.decode()
    assert "The file is as it was before." in page
    assert [p.name for p in root.glob("*.xmp")] == ["b.jpg.xmp"]


def test_ticking_all_of_a_kind(trip, root, web):
    (root / "a.jpg.xmp").write_bytes((SIDECARS / "darktable.xmp").read_bytes())
    job = planned(trip, profile="immich")
    web.post(f"/exports/{job.pk}/tick/", {"kind": "create", "selected": "off"})
    job.refresh_from_db()
    assert (job.summary["ticked"], job.summary["unticked"]) == (1, 1)
    assert job.entries.get(selected=False).action == "create"
    assert web.get(f"/exports/{job.pk}/?kind=odd").status_code == 400
    assert web.get(f"/exports/{job.pk}/?after=odd").status_code == 400


def test_an_empty_plan_and_a_wrong_form_say_what_to_do(trip, root, web):
    trip.images.update(review_state="unreviewed")
    job = planned(trip)
    assert "No image of this selection is reviewed" in web.get(f"/exports/{job.pk}/").content.decode()
    answer = web.post("/exports/beside/", {"collection": "trip", "format": "xmp", "options-prefix": "x" * 99})
    assert answer.status_code == 422
    assert "At most 60" in answer.content.decode()
    assert web.post("/exports/beside/", {"collection": "odd", "format": "xmp"}).status_code == 422


def test_pages_of_files_and_how_many_queries(root, web, django_assert_max_num_queries):
    c = folder(root, [f"{i:03}.jpg" for i in range(90)])
    job = planned(c, profile="immich")
    with django_assert_max_num_queries(10):
        page = web.get(f"/exports/{job.pk}/").content.decode()
    assert page.count('class="card file"') == 40
    last = job.entries.order_by("id")[39].pk
    assert f"after={last}" in page
    assert web.get(f"/exports/{job.pk}/?after={last}").content.decode().count('class="card file"') == 40


def test_viewers_look_and_change_nothing(trip, web, client):
    job = planned(trip)
    viewer = User.objects.create_user("vic")
    viewer.groups.add(Group.objects.get(name="viewer"))
    client.force_login(viewer)
    page = client.get(f"/exports/{job.pk}/").content.decode()
    assert "animal › dog" in page
    assert 'id="apply"' not in page
    for verb in ("apply", "undo", "tick"):
        assert client.post(f"/exports/{job.pk}/{verb}/").status_code == 403
    assert client.get("/exports/beside/").status_code == 403


def test_words_are_escaped(root, web):
    c = folder(root, ["a.jpg"], ["<img src=x onerror=alert(1)>", 'q"uote'])
    job = planned(c)
    page = web.get(f"/exports/{job.pk}/").content.decode()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror" in page


def test_a_job_that_makes_a_file_has_no_such_page(trip, web):
    job = run(actions.create_export(trip, "csv"))
    assert web.get(f"/exports/{job.pk}/").status_code == 302
    assert post(web, f"/{job.pk}/apply").status_code == 409


# -- everything by one recipe -----------------------------------------------------------------------------------------
@pytest.fixture(name="by_two")
def by_two_fixture(trip, root):
    """a.jpg came of one recipe, b.jpg of another, and both were exported twice."""
    one, two = run_of(trip, "one"), run_of(trip, "two")
    trip.images.filter(path="a.jpg").update(proposed_by=one)
    trip.images.filter(path="b.jpg").update(proposed_by=two)
    jobs = [written(trip, profile="darktable"), written(trip, profile="darktable", prefix="iw")]
    assert [job.summary["done"] for job in jobs] == [2, 2]
    return one.recipe, two.recipe, jobs


def test_the_page_takes_back_what_one_recipe_proposed(web, by_two, root):
    one, two, (first, second) = by_two
    page = web.get(f"/exports/{second.pk}/").content.decode()
    assert f'<option value="{one.pk}">' in page
    assert f'<option value="{two.pk}">' in page
    web.post(f"/exports/{second.pk}/undo/", {"recipe": str(one.pk)})
    web.work()
    assert "iw" not in (root / "a.jpg.xmp").read_text().replace("iwtag", "")
    assert "iw/animal/dog" in (root / "b.jpg.xmp").read_text()
    page = web.get(f"/exports/{second.pk}/").content.decode()
    assert f'<option value="{one.pk}">' not in page
    web.post(f"/exports/{first.pk}/undo/", {"recipe": str(two.pk), "everywhere": "on"})
    web.work()
    assert [p.name for p in root.glob("*.xmp")] == ["a.jpg.xmp"]
    assert web.post(f"/exports/{first.pk}/undo/", {"recipe": "x"}).status_code == 404


def test_the_api_takes_back_everything_by_a_recipe(web, by_two, root):
    one, _, (first, second) = by_two

    def ask(query=""):
        return web.post(f"/api/exports/recipes/{one.pk}/undo{query}", {}, content_type="application/json")

    assert ask("?collection=nowhere").status_code == 422
    answer = ask("?collection=trip")
    assert (answer.status_code, [job["id"] for job in answer.json()]) == (202, [second.pk, first.pk])
    web.work()
    assert [p.name for p in root.glob("*.xmp")] == ["b.jpg.xmp"]
    assert ask().status_code == 409
