"""The page and the API of models: configured, in memory, on disk, on their way."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tagging import queue
from tagging.adapters import known, registry, scan
from tagging.adapters.folders import ModelFolder
from tagging.models import ModelAdapter, ModelDownload, UnloadRequest, Worker

from .pages import photo_lite, signed_in
from .world import keyed, person

pytestmark = pytest.mark.django_db
COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def rung(monkeypatch) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: found.append(args))
    return found


@pytest.fixture
def folders(tmp_path, settings, monkeypatch) -> Path:
    """A models folder with a tagger, a language model that sees, one that does not, a GGUF file and a broken config."""
    top = tmp_path / "models"
    put(top / "wd-x", {"model.onnx": "x" * 100, "selected_tags.csv": "tag_id,name,category,count\n"})
    put(top / "qwen", {"config.json": config("Qwen2_5_VLForConditionalGeneration"), "model.safetensors": "w" * 50})
    put(top / "deep" / "er" / "llama", {"config.json": config("LlamaForCausalLM"), "model.safetensors": "w"})
    put(top, {"tiny.gguf": "g" * 10})
    put(top / "broken", {"config.json": "{no json"})
    put(top / "pictures", {"a.jpg": "not a model"})
    settings.IWTAG_MODELS_DIRS = [top, tmp_path / "missing"]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return top


@pytest.fixture
def cache(folders, tmp_path) -> Path:
    """A hub cache with one whole model and one whose download broke off."""
    whole = tmp_path / "hub" / "models--owner--wd"
    put(whole / "blobs", {"b1": "x" * 300, "b2": "tag_id,name,category,count\n"})
    put(whole / "refs", {"main": COMMIT})
    snapshot = whole / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.onnx").symlink_to("../../blobs/b1")
    (snapshot / "selected_tags.csv").symlink_to("../../blobs/b2")
    part = tmp_path / "hub" / "models--owner--half"
    put(part / "blobs", {"b1.abc.incomplete": "x"})
    put(part / "snapshots" / COMMIT, {"config.json": config("LlavaForConditionalGeneration")})
    return tmp_path / "hub"


def put(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def config(name: str) -> str:
    return json.dumps({"architectures": [name], "model_type": "x"})


def text_of(response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def worker(*resident: dict[str, object], queue: str = "gpu") -> Worker:
    now = timezone.now()
    return Worker.objects.create(
        owner=f"host|1|{queue}", queue=queue, host="host", pid=1, started_at=now, beat_at=now, resident=list(resident)
    )


LITE = {"key": "k1", "slug": "photo-lite", "provider": "CPUExecutionProvider", "place": "cpu", "load_seconds": 1.5}


# -- looking -----------------------------------------------------------------------------------------------------------
def test_the_scan_offers_an_adapter_and_says_why(folders):
    found = {f.name: f for f in scan.scan([folders]).found}
    assert set(found) == {"wd-x", "qwen", "deep/er/llama", "tiny.gguf", "broken"}
    assert (found["wd-x"].best.kind, found["wd-x"].bytes) == ("wd", 127)
    assert "selected_tags.csv" in found["wd-x"].best.guess.reason
    assert found["qwen"].best.kind == "vlm"
    assert "Qwen2_5_VLForConditionalGeneration" in found["qwen"].best.guess.reason
    assert found["deep/er/llama"].best is None
    assert "reads text only" in found["deep/er/llama"].note
    assert "OpenAI-compatible endpoint" in found["tiny.gguf"].note
    assert found["broken"].best is None


def test_an_adapter_whose_guess_breaks_spoils_nothing(folders, monkeypatch):
    broken = registry.adapter_class("photo-lite")
    monkeypatch.setattr(broken, "recognises", classmethod(lambda cls, folder: 1 / 0))
    assert scan.offers_for(ModelFolder(folders / "wd-x", {"model.onnx": 1, "selected_tags.csv": 1}))[0].kind == "wd"


def test_folders_that_loop_or_are_too_many_end_the_scan(folders, monkeypatch):
    (folders / "loop").symlink_to(folders)
    assert len(scan.scan([folders]).found) == 5
    monkeypatch.setattr(scan, "FOLDERS", 3)
    assert "more than 3 folders" in scan.scan([folders]).problems[-1]


def test_the_hub_cache_is_listed_with_sizes_revisions_and_what_is_not_whole(cache):
    whole, half = sorted(scan.hub_cache(cache), key=lambda c: c.partial)
    assert (whole.source, whole.revision, whole.refs, whole.bytes, whole.partial) == (
        "owner/wd", COMMIT, ("main",), 327, False,
    )  # fmt: skip
    assert whole.found.best.kind == "wd"
    assert (half.source, half.partial) == ("owner/half", True)
    assert scan.hub_cache(cache / "nothing") == []


@pytest.mark.parametrize(
    ("architecture", "name", "kind"),
    [
        ("LlavaForConditionalGeneration", "llava-1.5-7b", "vlm"),
        ("LlavaForConditionalGeneration", "llama-joycaption-beta-one", "joycaption"),
        ("Florence2ForConditionalGeneration", "Florence-2-base", "florence2"),
        ("Florence2ForConditionalGeneration", "Florence-2-PromptGen-v2", "promptgen"),
        ("Blip2ForConditionalGeneration", "blip2", "blip"),
        ("Gemma3ForConditionalGeneration", "gemma", "vlm"),
        ("BertModel", "bert", None),
    ],
)
def test_architectures_and_their_adapters(architecture, name, kind):
    found = known.kind_of([architecture], "", name)
    assert (found[0] if found else None) == kind


def test_suggestions_name_adapters_that_exist_or_are_left_out():
    assert {s.kind for s in known.SUGGESTED} >= {"wd", "vlm"}
    assert all(s.licence and s.note and s.bytes > 10**8 and "/" in s.source for s in known.SUGGESTED)


# -- the page ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("role", "code"), [("", 403), ("viewer", 403), ("reviewer", 403), ("curator", 200)])
def test_who_may_look(folders, role, code):
    client = signed_in(role)
    assert client.get("/models/").status_code == code
    assert client.get("/models/live/").status_code == code
    assert client.post("/models/add/", {"kind": "wd", "source": "x"}).status_code == 403
    assert client.post("/models/downloads/", {}).status_code == 403
    assert client.get("/models/add/").status_code in (403, 405)


def test_the_page_lists_all_with_state_and_reason(cache, folders):
    photo_lite()
    ModelAdapter.objects.create(
        slug="wd", label="WD", kind="wd", source="SmilingWolf/wd-vit-tagger-v3", last_error="no room"
    )
    worker(LITE)
    text = text_of(signed_in("administrator").get("/models/"))
    assert "photo-lite ready in memory, cpu" in text
    assert "on cpu · CPUExecutionProvider · loaded in 1.5 s" in text
    assert "WD not on this machine" in text
    assert "Download (380 MB)" in text
    assert "The last load failed: no room" in text
    assert "Looks like WD tagger (ONNX, v2/v3 layout) : model.onnx beside selected_tags.csv" in text
    assert "GGUF files are not loaded by iwtag itself" in text
    assert f"hub cache · {COMMIT[:8]} (main)" in text
    assert "not complete" in text
    assert "missing is not a folder" in text
    assert "SmilingWolf/wd-eva02-large-tagger-v3 about 1.3 GB · apache-2.0" in text


def test_one_click_makes_a_model_of_what_is_on_disk(cache, folders):
    client = signed_in("administrator")
    source = str(folders / "wd-x")
    page = client.post("/models/add/", {"kind": "wd", "source": source}, follow=True)
    row = ModelAdapter.objects.get()
    assert (row.slug, row.kind, row.source) == ("wd-x", "wd", source)
    assert "wd-x can be used now" in text_of(page)
    assert "configured as wd-x" in text_of(page)
    client.post("/models/add/", {"kind": "wd", "source": source})
    assert ModelAdapter.objects.count() == 1
    client.post("/models/add/", {"kind": "wd", "source": "owner/wd"})
    assert ModelAdapter.objects.get(source="owner/wd").slug == "wd"
    text = text_of(client.post("/models/add/", {"kind": "nothing", "source": "x"}, follow=True))
    assert "No adapter &#x27;nothing&#x27;" in text
    assert "Name what is to be used" in text_of(client.post("/models/add/", {"kind": "wd", "source": ""}, follow=True))


def test_unloading_by_button_asks_each_worker_once(folders):
    photo_lite()
    worker(LITE, {**LITE, "key": "k2", "slug": "other"})
    client = signed_in("curator")
    client.post("/models/unload/", {"slug": "photo-lite"})
    client.post("/models/unload/", {"slug": "photo-lite"})
    assert [(r.owner, r.model_key) for r in UnloadRequest.objects.all()] == [("host|1|gpu", "k1")]
    assert "going" in text_of(client.get("/models/live/"))
    client.post("/models/unload/")
    assert UnloadRequest.objects.count() == 2
    Worker.objects.update(resident=[])
    assert "It is not loaded any more" in text_of(client.post("/models/unload/", {"slug": "photo-lite"}, follow=True))
    assert b"hx-trigger" not in client.get("/models/live/").content  # nothing moves: no polling


def test_downloads_by_button(folders, rung):
    client = signed_in("administrator")
    client.post("/models/downloads/", {"source": "owner/new", "kind": "wd"})
    job = ModelDownload.objects.get()
    assert (job.source, job.state, job.created_by.username) == ("owner/new", "queued", "administrator")
    assert rung[0][1] == job.pk
    assert "waiting for a worker" in text_of(client.get("/models/live/"))
    ModelDownload.objects.update(
        state="running", phase="downloading", bytes_total=4 * 10**9, bytes_done=10**9, rate=5e7
    )
    text = text_of(client.get("/models/live/"))
    assert "downloading · 1.0 GB of 4.0 GB · 50 MB/s · 1 min left" in text
    client.post(f"/models/downloads/{job.pk}/cancel/")
    job.refresh_from_db()
    assert job.state == "cancelled"
    client.post(f"/models/downloads/{job.pk}/resume/")
    job.refresh_from_db()
    assert job.state == "queued"
    assert "cancel it first" in text_of(client.post(f"/models/downloads/{job.pk}/forget/", follow=True))
    ModelDownload.objects.update(state="failed", error="The disk is full.", finished_at=timezone.now())
    assert "The disk is full." in text_of(client.get("/models/"))
    client.post(f"/models/downloads/{job.pk}/forget/")
    assert not ModelDownload.objects.exists()
    assert client.post("/models/downloads/99/cancel/").status_code == 404
    assert "is no hub id" in text_of(client.post("/models/downloads/", {"source": "x", "kind": "wd"}, follow=True))


# -- the API -----------------------------------------------------------------------------------------------------------
def test_the_api_of_models(cache, folders, rung):
    photo_lite()
    worker(LITE)
    client = keyed(person("root", "administrator"))
    loaded = client.get("/api/models/loaded").json()
    assert [(m["slug"], m["place"], m["in_use"], m["leaving"]) for m in loaded] == [("photo-lite", "cpu", False, False)]
    disk = client.get("/api/models/found").json()
    by_name = {f["name"]: f for f in disk["found"]}
    assert by_name["wd-x"]["guesses"][0]["kind"] == "wd"
    assert (by_name["owner/wd"]["hub"], by_name["owner/wd"]["refs"]) == (True, ["main"])
    assert by_name["owner/half"]["partial"] is True
    made = client.post(
        "/api/models/add", {"kind": "wd", "source": by_name["wd-x"]["source"]}, content_type="application/json"
    )
    assert (made.status_code, made.json()["slug"]) == (201, "wd-x")
    again = {f["name"]: f for f in client.get("/api/models/found").json()["found"]}
    assert again["wd-x"]["adapter"] == "wd-x"
    assert client.post("/api/models/unload", {}, content_type="application/json").json() == {"workers": 1}
    assert client.get("/api/models/loaded").json()[0]["leaving"] is True
    assert any(s["gated"] for s in client.get("/api/models/suggested").json())

    job = client.post(
        "/api/models/downloads", {"source": "owner/new", "kind": "wd"}, content_type="application/json"
    ).json()
    assert (job["state"], job["bytes_total"], job["adapter"]) == ("queued", None, None)
    url = f"/api/models/downloads/{job['id']}"
    assert client.get(url).json() == job
    assert client.post(f"{url}/resume").status_code == 409
    assert client.post(f"{url}/cancel").json()["state"] == "cancelled"
    assert client.post(f"{url}/resume").json()["state"] == "queued"
    assert len(client.get("/api/models/downloads").json()["items"]) == 1
    wrong = client.post("/api/models/downloads", {"source": "x", "kind": "wd"}, content_type="application/json")
    assert (wrong.status_code, wrong.json()["field"]) == (422, "source")
    curator = keyed(person("c", "curator"))
    assert curator.post("/api/models/unload", {}, content_type="application/json").status_code == 200
    wanted = {"source": "owner/new", "kind": "wd"}
    assert curator.post("/api/models/downloads", wanted, content_type="application/json").status_code == 403
    assert keyed(person("v", "viewer"), ("read",)).get("/api/models/found").status_code == 403


# -- the command -------------------------------------------------------------------------------------------------------
def said(*args: str) -> str:
    out = StringIO()
    call_command("models", *args, stdout=out)
    return out.getvalue()


def test_the_command_lists_what_is_configured_loaded_and_on_disk(cache, folders):
    photo_lite()
    worker(LITE)
    text = said()
    assert re.search(r"photo-lite +photo-lite +ready, loaded on cpu", text)
    assert "looks like vlm: config.json says Qwen2_5_VLForConditionalGeneration" in text
    assert f"owner/wd                                     327 B {COMMIT[:8]} (main)" in text
    assert "not complete" in text
    listing = json.loads(said("--json"))
    assert listing["loaded"] == [{"slug": "photo-lite", "place": "cpu", "host": "host", "in_use": False}]
    assert {f["name"] for f in listing["found"]} >= {"wd-x", "tiny.gguf"}
    assert said("--unload", "photo-lite") == "Asked 1 worker to unload photo-lite.\n"
    Worker.objects.all().delete()
    assert said("--unload", "photo-lite") == "photo-lite is loaded nowhere.\n"
    assert said("--unload", "all") == "Nothing is loaded.\n"
    with pytest.raises(CommandError, match="no model 'gone'"):
        said("--unload", "gone")
