"""Models that stay loaded: who goes when memory is short, when nobody uses one, when somebody wants it gone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from django.utils import timezone

from tagging import queue
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.actions.runs import start_run
from tagging.adapters.base import AdapterConfig, AdapterError, ModelUnavailable, OutOfMemory
from tagging.adapters.photo_lite import PhotoLite
from tagging.engine import cards, heartbeat, leases, memory, mending, residency, stage, vocabulary, worker
from tagging.engine.cards import Cards
from tagging.engine.identity import loading_key
from tagging.engine.owners import owner_id
from tagging.models import Chunk, Collection, ImageAsset, ModelAdapter, Run, UnloadRequest, Worker
from tests.fakes.adapter import Fake

from .installation import until

pytestmark = pytest.mark.django_db
GB = 10**9


@pytest.fixture(autouse=True)
def fresh(fake, monkeypatch):
    monkeypatch.setattr(queue, "kick", lambda *a, **k: None)
    Fake.refusals = 0
    for forget in (stage.forget, vocabulary.forget, residency.MODELS.evict):
        forget()
    yield
    residency.MODELS.evict()


class Device:
    """Memory of a device: what is loaded takes it, and what leaks is not given back."""

    def __init__(self, total: int = 10 * GB) -> None:
        self.total, self.leaked = total, 0

    def own(self, place: str) -> int | None:
        return sum(m.own.needs for m in Fake.loaded) + self.leaked

    def free(self, place: str) -> int | None:
        return self.total - (self.own(place) or 0)


class Silent(Device):
    """A device that says nothing."""

    def free(self, place: str) -> int | None:
        return None


def models(device: Device | None = None, capacity: int | None = None, **more) -> residency.Residency:
    device = device or Device()
    return residency.Residency(capacity, free=device.free, own=device.own, **more)


def get(found: residency.Residency, key: str, device: str = "cpu", **options: object) -> residency.Resident:
    return found.get(key, key, lambda: Fake(AdapterConfig(device=device, options=options)))


def keys(found: residency.Residency) -> list[str]:
    return [str(m["key"]) for m in found.summary()]


# -- memory ------------------------------------------------------------------------------------------------------------
def test_as_many_models_stay_as_fit_and_the_least_recently_used_goes_first():
    found = models(Device(10 * GB))
    for key in ("a", "b", "c"):
        get(found, key, needs=3 * GB)
    assert keys(found) == ["a", "b", "c"]
    get(found, "a", needs=3 * GB)
    get(found, "d", needs=3 * GB)
    assert keys(found) == ["c", "a", "d"]
    get(found, "e", needs=9 * GB)
    assert keys(found) == ["e"]


def test_without_knowledge_of_memory_one_stays_and_a_setting_decides_over_both():
    found = models(Silent())
    get(found, "a", needs=1)
    get(found, "b", needs=1)
    assert keys(found) == ["b"]
    found = models(capacity=2)
    for key in ("a", "b", "c"):
        get(found, key, needs=1)
    assert keys(found) == ["b", "c"]
    found = models()  # memory is known, the need is not
    get(found, "a")
    get(found, "b")
    assert keys(found) == ["b"]


def test_each_place_has_room_of_its_own(monkeypatch, tmp_path):
    found = models(Silent(), cards=Cards(tmp_path, str))
    get(found, "a", "cpu")
    get(found, "b", "cuda:0")
    get(found, "c", "cuda:1")
    assert keys(found) == ["a", "b", "c"]
    get(found, "d", "cuda:1")
    assert keys(found) == ["a", "b", "d"]
    assert [m["place"] for m in found.summary()] == ["cpu", "cuda:0", "cuda:1"]


def test_an_endpoint_takes_no_room_and_makes_none(monkeypatch):
    from dataclasses import replace

    found = models(Silent())
    get(found, "local")
    monkeypatch.setattr(Fake, "capabilities", replace(Fake.capabilities, queue="io"))
    for n in range(3):
        get(found, f"remote {n}")
    assert keys(found) == ["local", "remote 0", "remote 1", "remote 2"]


def test_a_load_that_meets_a_full_device_is_tried_once_more_with_the_others_gone():
    found = models()
    get(found, "a", needs=GB)
    Fake.refusals = 0
    get(found, "b", needs=GB, no_room=1)
    assert keys(found) == ["b"]
    with pytest.raises(OutOfMemory):
        get(found, "c", needs=GB, no_room=9)
    assert Fake.loaded == []


def test_what_cannot_fit_into_the_processors_memory_is_not_tried():
    found = models(Device(10 * GB))
    with pytest.raises(OutOfMemory, match=r"about 12\.0 GB, and 10\.0 GB of memory are free"):
        get(found, "a", needs=12 * GB)
    assert Fake.loaded == []


def test_a_batch_without_room_first_makes_the_neighbours_go():
    found = models()
    get(found, "a", needs=GB)
    b = get(found, "b", needs=GB)
    with found.using(b.adapter):
        assert found.relieve(b.adapter)
        assert keys(found) == ["b"]
        assert not found.relieve(b.adapter)


def test_memory_that_stays_taken_makes_the_worker_be_replaced():
    device = Device(10 * GB)
    found = models(device)
    get(found, "a", needs=6 * GB)
    device.leaked = 5 * GB
    with pytest.raises(residency.Tired, match="cpu is not free again"):
        get(found, "b", needs=6 * GB)
    assert found.tired
    assert Fake.loaded == []
    get(found, "c", needs=4 * GB)  # what fits beside the leak may come


def test_a_tired_worker_gives_its_chunk_back_and_asks_to_be_replaced(runs, monkeypatch):
    from django_q.conf import Conf

    monkeypatch.setattr(Conf, "MAX_RSS", None)
    (run,) = runs("a")

    def tired(*args: object) -> None:
        raise residency.Tired("cpu is not free again")

    monkeypatch.setattr(residency.MODELS, "get", tired)
    monkeypatch.setattr(worker, "close_old_connections", lambda: None)
    assert worker.drain("gpu") is True  # somebody must ring again
    assert Conf.MAX_RSS == 1
    chunk = Chunk.objects.filter(run=run).order_by("lo").first()
    assert chunk is not None
    assert (chunk.state, chunk.attempts) == (Chunk.State.PENDING, 0)
    run.refresh_from_db()
    assert run.state == Run.State.RUNNING


# -- identity ----------------------------------------------------------------------------------------------------------
def test_device_index_quantization_and_revision_make_another_resident():
    base = {"kind": "fake", "source": "s", "revision": "", "device": "cuda:0", "quantization": "none"}
    others = [{**base, **change} for change in ({"device": "cuda:1"}, {"quantization": "4bit"}, {"revision": "v2"})]
    made = {loading_key(Fake, config, {}) for config in (base, *others)}
    assert len(made) == 4
    assert loading_key(Fake, base, {"batch": 3}) == loading_key(Fake, base, {"batch": 4})  # not what load() depends on


# -- idle, and wanted gone ---------------------------------------------------------------------------------------------
def test_what_is_idle_goes_but_nothing_in_use(monkeypatch):
    found = models(idle=60)
    a, b = get(found, "a", needs=1), get(found, "b", needs=1)
    a.used -= 61
    b.used -= 59
    with found.using(a.adapter):
        assert found.tidy() == []
    assert a.idle < 1  # it was used until now
    a.used -= 61
    assert found.tidy() == ["a"]
    assert keys(found) == ["b"]
    kept = models(idle=0)
    get(kept, "c").used -= 10**6
    assert kept.tidy() == []


def test_an_unwanted_model_goes_once_nothing_uses_it():
    found = models(idle=0)
    a, b = get(found, "a", needs=1), get(found, "b", needs=1)
    a.used = b.used = time.monotonic() - 2
    with found.using(a.adapter):
        assert found.tidy(["a"]) == []
    assert found.tidy(["a"]) == []  # just used: it may be wanted again in this moment
    a.used -= 2
    assert found.tidy(["a", "unknown"]) == ["a"]
    assert found.tidy([""]) == ["b"]


def test_tidying_never_waits_for_a_load():
    found = models(idle=0.001)
    get(found, "a", needs=1).used -= 1
    release = threading.Event()

    def slow() -> Fake:
        release.wait(10)
        return Fake(AdapterConfig(options={"needs": 1}))

    thread = threading.Thread(target=found.get, args=("b", "b", slow))
    thread.start()
    until(lambda: not found._lock.acquire(blocking=False) or found._lock.release(), "the load holds the models", 5)
    assert found.tidy() == []
    release.set()
    thread.join(10)


def test_the_heart_obeys_deletes_the_request_and_tells(monkeypatch):
    found = models(idle=0)
    monkeypatch.setattr(heartbeat, "MODELS", found)
    heart = heartbeat.Heart()
    heart._queue = "gpu"
    get(found, "a", needs=1).used -= 2
    heart._write(timezone.now())
    UnloadRequest.objects.create(owner=owner_id(), model_key="a")
    UnloadRequest.objects.create(owner="other|1|1", model_key="a")
    assert heart._tidy()
    heart._write(timezone.now())
    assert Worker.objects.get().resident == []
    assert [r.owner for r in UnloadRequest.objects.all()] == ["other|1|1"]
    heartbeat.remove_dead()
    assert not UnloadRequest.objects.exists()  # of a worker that is gone


# -- several runs ------------------------------------------------------------------------------------------------------
@pytest.fixture
def runs(tmp_path) -> Callable[..., list[Run]]:
    collection = Collection.objects.create(name="C", slug="c", root="/nowhere")
    ImageAsset.objects.bulk_create(
        ImageAsset(collection=collection, path=f"{i:05}.jpg", sha256=f"{i:064x}", width=1, height=1) for i in range(40)
    )

    def start(*variants: str) -> list[Run]:
        rows = []
        for variant in variants:
            row, _ = ModelAdapter.objects.get_or_create(
                slug=f"fake-{variant}",
                defaults={
                    "kind": "fake",
                    "label": f"Fake {variant}",
                    "options": {"variant": variant, "log": str(tmp_path / "log")},
                    "revision": variant,
                },
            )
            rows.append(start_run(get_recipe([ChannelSpec(row)]), collection=collection, shown=False, sample=len(rows)))
        return rows

    return start


def test_runs_are_ordered_so_that_each_model_is_loaded_once(runs, tmp_path):
    started = runs("a", "b", "a", "b")
    while leases.claimable("gpu").exists():
        worker.drain("gpu")
    for run in started:
        run.refresh_from_db()
    assert [run.state for run in started] == ["done"] * 4
    lines = (tmp_path / "log").read_text().splitlines()
    assert sum(line.startswith("load ") for line in lines) == 2


def test_a_higher_priority_goes_before_the_loaded_model(runs):
    low, high = runs("a", "b")
    chunk = leases.claim("gpu", owner_id())
    assert chunk is not None
    assert chunk.run_id == low.pk
    key = chunk.model_key
    leases.release(chunk, done=False)
    Run.objects.filter(pk=high.pk).update(priority=5)
    first = leases.claim("gpu", owner_id(), [key])
    assert first is not None
    assert first.run_id == high.pk


# -- loading, as a run tells it ----------------------------------------------------------------------------------------
def test_loading_is_a_phase_with_its_seconds(runs, monkeypatch):
    (run,) = runs("a")
    seen: list[tuple[str, float | None]] = []
    real = Fake.load

    def watched(self: Fake) -> None:
        now = Run.objects.get(pk=run.pk)
        seen.append((now.phase, now.phase_seconds))
        real(self)

    monkeypatch.setattr(Fake, "load", watched)
    worker.drain("gpu")
    assert seen[0][0] == "loading Fake a"
    assert seen[0][1] is not None
    assert seen[0][1] >= 0
    run.refresh_from_db()
    assert (run.phase, run.phase_since, run.phase_seconds) == ("", None, None)
    assert run.load_seconds is not None


def test_a_failed_load_is_told_on_the_run_and_remembered_with_the_model(runs, monkeypatch):
    (run,) = runs("a")
    monkeypatch.setattr(Fake, "load", raising(ModuleNotFoundError("No module named 'torch'", name="torch")))
    worker.drain("gpu")
    run.refresh_from_db()
    assert run.state == "failed"
    assert "pip install '.[vlm]'" in run.error
    row = ModelAdapter.objects.get(slug="fake-a")
    assert row.last_error == run.error
    monkeypatch.undo()
    monkeypatch.setattr(queue, "kick", lambda *a, **k: None)
    Run.objects.filter(pk=run.pk).update(state="running", finished_at=None)
    worker.drain("gpu")
    row.refresh_from_db()
    assert row.last_error == ""


def raising(error: BaseException) -> Callable[..., None]:
    def load(self: object) -> None:
        raise error

    return load


class RevisionNotFoundError(OSError):
    pass


class GatedRepoError(OSError):
    pass


class RepositoryNotFoundError(OSError):
    pass


class LocalEntryNotFoundError(OSError):
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("no", name="bitsandbytes"), "quantization to 'none'"),
        (ModuleNotFoundError("no", name="einops.layers"), "pip install einops"),
        (RevisionNotFoundError("404"), "owner/model has no revision 'v9'"),
        (GatedRepoError("403"), "set HF_TOKEN"),
        (RepositoryNotFoundError("404"), "The hub knows no 'owner/model'"),
        (LocalEntryNotFoundError("offline"), "Download it on the page Models"),
        (OSError(errno.ENOSPC, "No space left on device", "/cache"), "the disk is full (/cache)"),
        (AdapterError("the tokenizer is missing"), "could not be loaded: the tokenizer is missing"),
        (RuntimeError("size mismatch\nfor layer"), "RuntimeError: size mismatch"),
    ],
)
def test_a_failed_load_names_the_mend(error, said):
    adapter = Fake(AdapterConfig(source="owner/model", revision="v9"))
    assert said in mending.why_not_loaded(error, "Fake", adapter)
    wrapped = OSError("we could not connect")
    wrapped.__cause__ = error
    if "Error" not in said and not isinstance(error, AdapterError):
        assert said in mending.why_not_loaded(wrapped, "Fake", adapter)


def test_too_little_memory_comes_with_the_estimate_and_what_would_help(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda place: 4 * GB)
    adapter = Fake(AdapterConfig(device="cpu", options={"needs": 17 * GB}))
    text = mending.why_not_loaded(OutOfMemory("bad alloc"), "Fake", adapter)
    assert text == (
        "Fake does not fit into the memory of its device: bad alloc. By its files it needs about 17.0 GB; 4.0 GB are "
        "free on cpu now. Take a smaller model or free memory by unloading others (page Models)."
    )


def test_the_places_of_real_adapters():
    assert PhotoLite(AdapterConfig(device="cuda:1")).place == "cuda:1"
    assert PhotoLite(AdapterConfig(device="cuda")).place == "cuda:0"
    assert PhotoLite(AdapterConfig(device="cpu")).place == "cpu"
    auto = PhotoLite(AdapterConfig())
    assert auto.place == "auto"
    assert memory.likely_place(auto) in ("cpu", "cuda:0")
    with auto:
        assert memory.real_place(auto) == "cpu" or auto.provider != "CPUExecutionProvider"
    ram = memory.free_ram()
    assert ram is None or ram > 0


# -- one worker on a card ----------------------------------------------------------------------------------------------
HOLD = """
import sys, pathlib
from tagging.engine.cards import Cards
cards = Cards(pathlib.Path(sys.argv[1]), lambda place: "GPU-1")
cards.take("cuda:0", "other|1|1")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(cards.fcntl is None, reason="no file locks")
def test_a_card_is_held_by_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "WAIT", 0.3)
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "iwtag_site.settings", "IWTAG_DATA_DIR": str(tmp_path)}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert other.stdout is not None
    assert other.stdin is not None
    try:
        assert other.stdout.readline() == "held\n"
        mine = Cards(tmp_path, lambda place: "GPU-1")
        told: list[str] = []
        with pytest.raises(ModelUnavailable, match=r"in use by another worker \(other\|1\|1\)"):
            mine.take("cuda:3", owner_id(), busy=told.append)
        assert told[0] == "other|1|1"
        mine.take("cpu", owner_id())
        assert mine.held == []
        other.stdin.close()
        other.wait(20)
        mine.take("cuda:3", owner_id())
        mine.take("cuda:3", owner_id())
        assert mine.held == ["cuda:3"]
        mine.leave("cuda:3")
        Cards(tmp_path, lambda place: "GPU-1").take("cuda:0", owner_id())
    finally:
        other.kill()
        other.wait()


def test_the_card_is_let_go_with_its_last_model(tmp_path):
    held = Cards(tmp_path, str)
    found = models(capacity=2, cards=held)
    get(found, "a", "cuda:0")
    get(found, "b", "cuda:0")
    assert held.held == ["cuda:0"]
    found.evict(keep=1)
    assert held.held == ["cuda:0"]
    found.evict()
    assert held.held == []
    with pytest.raises(ModelUnavailable):
        get(found, "c", "cuda:0", unavailable="no weights")
    assert held.held == []


def test_cards_are_named_by_uuid_whatever_their_number_here(tmp_path, monkeypatch):
    for number, uuid in enumerate(("GPU-aaaa", "GPU-bbbb")):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: X\nGPU UUID: \t {uuid}\nBus Type: PCIe\n")
    assert cards.uuids(tmp_path) == ["GPU-aaaa", "GPU-bbbb"]
    monkeypatch.setattr(cards, "uuids", lambda: ["GPU-aaaa", "GPU-bbbb"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cards.card_name("cuda:1") == "GPU-bbbb"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert cards.card_name("cuda:0") == "GPU-bbbb"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-cccc")
    assert cards.card_name("cuda:0") == "GPU-cccc"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(cards, "uuids", list)
    assert cards.card_name("cuda:1") == "gpu-1"
