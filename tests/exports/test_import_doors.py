"""The doors of imports: the API, the pages, the command."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from exports import imports
from exports.import_models import ImportJob, ImportRow
from tagging import queue
from tagging.models import ImageTag

from .importing import folder, planned, row, tags

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rung(monkeypatch):
    calls = []
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: calls.append(args))
    return calls


@pytest.fixture
def c(tmp_path):
    return folder(tmp_path, "a.jpg", "b.jpg")


def sign_in(client, role):
    user = User.objects.create_user(role)
    user.groups.add(Group.objects.get(name=role))
    client.force_login(user)
    return client


@pytest.fixture
def curator(client):
    return sign_in(client, "curator")


def upload(text="path,tags\na.jpg,cat\nnowhere.jpg,dog\n", name="a.csv"):
    return SimpleUploadedFile(name, text.encode(), content_type="text/csv")


def send(client, **fields):
    return client.post("/api/imports", {"collection": "photos", "source": "csv", **fields})


# -- API --------------------------------------------------------------------------------------------------------------
def test_from_the_upload_to_the_undo(curator, c, rung):
    made = send(curator, file=upload(), options=json.dumps({"captions": "replace"}))
    assert made.status_code == 202, made.content
    job = made.json()
    assert (job["state"], job["target"], job["name"]) == ("queued", "truth", "a.csv")
    assert rung == [("exports.tasks.import_metadata", job["id"])]
    here = f"/api/imports/{job['id']}"
    assert curator.post(f"{here}/apply", "{}", content_type="application/json").status_code == 409
    imports.run_import(job["id"])

    assert curator.get(here).json()["summary"]["changes"] == 1
    first = curator.get(f"{here}/rows?limit=1").json()
    assert [(r["path"], r["state"], r["words"][0]["fate"]) for r in first["items"]] == [("a.jpg", "change", "new")]
    second = curator.get(f"{here}/rows?limit=1&cursor={first['next_cursor']}").json()
    assert [(r["key"], r["image"]) for r in second["items"]] == [("nowhere.jpg", None)]
    assert second["next_cursor"] == ""
    assert second["items"][0]["error"] == "no image of the collection has this path or name"
    assert len(curator.get(f"{here}/rows?show=unmatched").json()["items"]) == 1

    one = first["items"][0]["id"]
    chosen = {"rows": [one], "selected": False}
    assert curator.post(f"{here}/select", chosen, content_type="application/json").json() == {"changed": 1}
    curator.post(f"{here}/select", {**chosen, "selected": True}, content_type="application/json")
    assert curator.post(f"{here}/apply", {"reviewed": True}, content_type="application/json").status_code == 202
    imports.run_import(job["id"])
    done = curator.get(here).json()
    assert (done["state"], done["result"], bool(done["batch"])) == ("done", {"applied": 1, "left": 0}, True)
    assert tags("a.jpg") == {"cat"}
    assert curator.post(f"{here}/undo").status_code == 202
    imports.run_import(job["id"])
    assert curator.get(here).json()["state"] == "undone"
    assert tags("a.jpg") == set()
    assert curator.post(f"{here}/cancel").status_code == 409
    assert [j["id"] for j in curator.get("/api/imports?collection=photos").json()["items"]] == [job["id"]]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"collection": "nope"}, "collection"),
        ({"source": "fax"}, "source"),
        ({"target": "gold"}, "target"),
        ({"options": "{nonsense"}, "options"),
        ({"options": '{"colour": 1}'}, "colour"),
        ({"options": '{"path_column": "where"}'}, "path_column"),
        ({"file": None}, "file"),
    ],
)
def test_what_is_wrong_is_named(curator, c, fields, field):
    fields = {"file": upload(), **fields}
    refused = send(curator, **{k: v for k, v in fields.items() if v is not None})
    assert refused.status_code == 422, refused.content
    assert field in refused.json()["field"], refused.content
    assert not ImportJob.objects.exists()


def test_roles(client, c):
    job = planned(c, "csv", "path,tags\na.jpg,cat\n")
    sign_in(client, "reviewer")
    assert client.get(f"/api/imports/{job.pk}").status_code == 200
    assert send(client, file=upload()).status_code == 403
    for verb in ("apply", "undo", "cancel"):
        assert client.post(f"/api/imports/{job.pk}/{verb}", "{}", content_type="application/json").status_code == 403
    client.logout()
    assert client.get("/api/imports").status_code == 401


def test_odd_cursors_and_filters(curator, c):
    job = planned(c, "csv", "path,tags\na.jpg,cat\n")
    assert curator.get(f"/api/imports/{job.pk}/rows?cursor=x").status_code == 422
    assert curator.get(f"/api/imports/{job.pk}/rows?show=x").json()["field"] == "show"
    assert curator.get("/api/imports/999").status_code == 404
    sources = {s["source"]: s["options_schema"] for s in curator.get("/api/imports/sources").json()}
    assert set(sources) == {"sidecars", "embedded", "txt", "csv", "jsonl"}
    assert "path_column" in sources["csv"]["properties"]


# -- pages ------------------------------------------------------------------------------------------------------------
def test_the_pages_from_the_upload_to_the_undo(curator, c):
    page = curator.get(reverse("exports:import_new") + "?collection=photos&source=csv").content.decode()
    assert 'type="file"' in page
    assert "path_column" in page
    posted = curator.post(
        reverse("exports:import_new"), {"collection": "photos", "source": "csv", "target": "truth", "file": upload()}
    )
    job = ImportJob.objects.get()
    assert posted.status_code == 302, posted.content.decode()[-3000:]
    here = reverse("exports:import_job", args=[job.pk])
    assert posted.url == here
    assert 'hx-trigger="every 1s"' in curator.get(here).content.decode()
    imports.run_import(job.pk)
    page = curator.get(here).content.decode()
    assert "1 with changes" in page
    assert "new, and unknown here so far" in page
    assert "no image of the collection has this path or name" in page
    assert "hx-trigger" not in page.partition('<main id="main"')[2]
    assert "nowhere.jpg" not in curator.get(here + "?show=change").content.decode()
    a = row(job, "a.jpg")
    act = lambda verb, **data: curator.post(reverse("exports:import_act", args=[job.pk, verb]), data)  # noqa: E731
    act("select", shown=[a.pk], row=[])
    a.refresh_from_db()
    assert a.selected is False
    act("select", shown=[a.pk], row=[a.pk], back="show=change")
    act("apply", reviewed="on")
    imports.run_import(job.pk)
    assert tags("a.jpg") == {"cat"}
    assert "1 row applied" in curator.get(here).content.decode()
    act("undo")
    imports.run_import(job.pk)
    assert "Taken back" in curator.get(here).content.decode()
    assert not ImageTag.objects.exists()
    assert "a.csv" in curator.get(reverse("exports:imports")).content.decode()
    assert act("delete").url == reverse("exports:imports")
    assert not ImportJob.objects.exists()


def test_a_wrong_upload_stays_on_the_form(curator, c):
    data = {"collection": "photos", "source": "csv", "target": "truth"}
    page = curator.post(reverse("exports:import_new"), data)
    assert (page.status_code, "Choose the file to import" in page.content.decode()) == (422, True)
    page = curator.post(reverse("exports:import_new"), {**data, "file": upload("colour,size\n1,2\n")})
    assert (page.status_code, "The table has: colour, size" in page.content.decode()) == (422, True)


def test_viewers_look_and_do_not_touch(client, c):
    job = planned(c, "csv", "path,tags\na.jpg,cat\n")
    sign_in(client, "viewer")
    page = client.get(reverse("exports:import_job", args=[job.pk])).content.decode()
    assert "cat" in page
    assert 'id="apply"' not in page
    assert client.post(reverse("exports:import_act", args=[job.pk, "apply"])).status_code == 403
    assert client.get(reverse("exports:import_new")).status_code == 403


def test_a_word_of_html_is_text(curator, c):
    job = planned(c, "csv", 'path,tags,caption\na.jpg,<script>x</script>,<b>bold</b>\n"<i>.jpg",x,\n')
    page = curator.get(reverse("exports:import_job", args=[job.pk])).content.decode()
    assert "<script>x" not in page
    assert "<b>bold" not in page
    assert "<i>.jpg" not in page


def test_the_preview_costs_the_same_for_many_rows(curator, tmp_path):
    c = folder(tmp_path, *(f"{i}.jpg" for i in range(120)))
    job = planned(c, "csv", "path,tags\n" + "".join(f"{i}.jpg,cat;dog\n" for i in range(120)))
    here = reverse("exports:import_job", args=[job.pk])
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = curator.get(here).content.decode()
    assert len(queries) < 12
    assert "49.jpg" in page
    assert "50.jpg" not in page
    last = ImportRow.objects.filter(job=job).order_by("pk")[49].pk
    assert "50.jpg" in curator.get(f"{here}?after={last}").content.decode()
    assert curator.get(f"{here}?after=x").status_code == 400
    assert curator.get(f"{here}?show=x").status_code == 400


# -- command ----------------------------------------------------------------------------------------------------------
def command(*args: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("import_metadata", *args, stdout=out, stderr=out)
    except CommandError as e:
        return e.returncode, out.getvalue() + str(e)
    except SystemExit as e:
        return int(e.code or 0), out.getvalue()
    return 0, out.getvalue()


def file(tmp_path: Path, text: str, name: str = "table.csv") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_the_dry_run_and_its_exit_codes(c, tmp_path):
    changes = file(tmp_path, "path,tags\na.jpg,cat\n")
    code, said = command(changes, "--collection", "Photos", "--dry-run")
    assert (code, "a.jpg: +cat" in said, "1 change something" in said) == (1, True, True)
    assert not ImageTag.objects.exists()
    assert not ImportJob.objects.exists()
    code, said = command(file(tmp_path, "path,tags\nnowhere.jpg,cat\n"), "--collection", "photos", "--dry-run")
    assert (code, "nowhere.jpg: no image of the collection" in said) == (2, True)
    assert command(file(tmp_path, "path,tags\na.jpg,\n"), "--collection", "photos", "--dry-run")[0] == 0


def test_import_and_undo(c, tmp_path):
    code, said = command(file(tmp_path, "path,tags\na.jpg,cat\n"), "--collection", "photos")
    assert (code, "1 rows applied" in said) == (0, True)
    assert tags("a.jpg") == {"cat"}
    job = ImportJob.objects.get()
    code, said = command("--undo", str(job.pk))
    assert (code, tags("a.jpg")) == (0, set())
    assert command("--undo", str(job.pk))[0] == 2


def test_sidecars_of_the_collection_and_a_word_list(c, tmp_path):
    (tmp_path / "a.jpg.xmp").write_bytes((Path(__file__).parent / "sidecars" / "digikam.xmp").read_bytes())
    code, said = command("--from", "sidecars", "--collection", "photos", "--as", "vocabulary", "--wordlist", "places")
    assert code == 0, said
    assert command(str(tmp_path), "--from", "sidecars", "--collection", "photos")[0] == 0
    assert tags("a.jpg") == {"Alps"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["x.csv", "--collection", "photos"], "cannot be read"),
        (["--collection", "photos"], "Say with --from"),
        (["--collection", "photos", "--from", "csv"], "Name the file"),
        (["--collection", "nowhere", "--from", "sidecars"], "no collection 'nowhere'"),
        (["--from", "sidecars"], "Name the collection"),
        (["--collection", "photos", "--from", "txt", "--option", "content=songs"], "content"),
        (["--collection", "photos", "--from", "txt", "--option", "nonsense"], "NAME=VALUE"),
        (["--collection", "photos", "--from", "txt", "--user", "nobody"], "no user"),
        (["--collection", "photos", "--from", "txt", "--as", "vocabulary"], "Name the word list"),
        (["--undo", "99"], "no import 99"),
    ],
)
def test_one_line_for_what_is_wrong(c, args, says):
    code, said = command(*args)
    assert (code, says in said) == (2, True), said
    assert "\n" not in said.strip()
