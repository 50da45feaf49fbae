"""How fast images become scores: the adapters' pipeline against a plain sequential loop, side by side in one run.

    python benchmarks/tagging.py [--engine] [--rounds 3] [--images 24] [--sizes camera web] [--models free photo-lite]
    python benchmarks/tagging.py --peer-loop     all bars: free model, ViT-B/16 at 448, its int8 variant, proxies
    python benchmarks/tagging.py --plain-only    the plain loop alone, for comparison with other programs

Photographs are made from samples/: scaled up to 12, 24 and 2 megapixels with grain, so that they are as large on disk
as a camera's. Models (tagging_models.py): `free`, a WD-layout ONNX whose work is next to nothing (mean of the three
channels → 10,861 probabilities), which leaves the cost of everything around a model, as on a fast GPU; `vit`, a
ViT-B/16 at 448 with random weights, `vit-int8`, its variant made as `manage.py quantize_model` does; and `photo-lite`.

The plain loop is what taggers usually do: decode in full, RGBA, composite on white, pad to a square, bicubic, one image
a call, a Python loop over the labels. The pipeline is the adapters': decoding threads ahead of the model, drafted
decoding, batches, numpy afterwards, packed scores. Each arm runs in a process of its own; rounds are interleaved and
medians taken. With --engine a third arm takes the real engine, database included: images are indexed into a fresh
SQLite database, then a run is started and one worker claims, prepares, infers, applies the policy and stores until it
is done (indexing is not timed here, see ingest.py; neither is loading the model, in any arm).

Printed per arm: images/s, processor ms/image, share of it outside the model, peak memory; then the ratios and whether
the bars hold. Proxies: processor time of decoding and preparing alone, from originals in full, from originals drafted
and from the 1,024 px WebP made at indexing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import tagging_models  # noqa: E402

SIDE = tagging_models.SIDE

SIZES = {"camera": [(4000, 3000), (6000, 4000)], "web": [(1600, 1200)]}
BARS = {("free", "camera"): 10.0, ("free", "web"): 2.0, ("vit", "camera"): 1.5}
INT8_BAR, PROXY_BAR = 2.0, 15.0
#: Pictures per size; listed again and again up to --images.
DIFFERENT = 4
MODELS = ("free", "photo-lite", "vit", "vit-int8")
SOURCES = ("honey-bee.jpg", "mountain-path.jpg", "fig-in-a-bowl.jpg", "forest-stream.jpg")


@dataclass
class Measured:
    """What one arm took for `images` images."""

    images: int
    seconds: float
    cpu_seconds: float
    model_cpu_seconds: float
    peak_mib: float


# -- material --------------------------------------------------------------------------------------------------------
def make_photographs(folder: Path, size: tuple[int, int]) -> None:
    """Samples at `size` with grain, as JPEG of two to three bits a pixel."""
    noise = np.random.default_rng(0)
    for name in SOURCES[:DIFFERENT]:
        with Image.open(ROOT / "samples" / name) as opened:
            picture = ImageOps.fit(opened.convert("RGB"), size, Image.Resampling.BICUBIC)
        grain = noise.normal(0, 4, (size[1], size[0], 1)).astype(np.float32)
        pixels = np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{size[0]}x{size[1]}-{name}", quality=92)


def folder_of(model: str, folder: Path) -> Path:
    """Where a model of tagging_models.py is; made when it is not there."""
    base = model.partition("-")[0]
    place = folder / base
    if base in ("free", "vit") and not (place / "selected_tags.csv").exists():
        place.mkdir(parents=True, exist_ok=True)
        (tagging_models.make_free if base == "free" else tagging_models.make_vit)(place)
    if model == "vit-int8" and not (place / "model.int8.json").exists():
        from tagging.adapters import quantize
        from tagging.adapters.base import ImageInput

        pictures = [ImageInput(n, "", partial((ROOT / "samples" / n).open, "rb")) for n in SOURCES]
        quantize.make(_adapter("vit", folder), "int8", pictures)
    return place


# -- the plain loop --------------------------------------------------------------------------------------------------
def plain_pixels(path: Path, side: int) -> np.ndarray:
    """float32 RGB (side, side, 3), everything at full size."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    canvas = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    canvas.alpha_composite(picture)
    picture, longest = canvas.convert("RGB"), max(picture.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)


def plain_tags(labels: Sequence[tuple[str, str]], scores: np.ndarray) -> list[tuple[str, float]]:
    """A loop over the labels: rating apart, threshold, sort, underscores to spaces."""
    found = []
    for (name, category), score in zip(labels, scores.tolist(), strict=True):
        if category == "rating":
            continue
        if score >= 0.35:
            found.append((name.replace("_", " "), score))
    return sorted(found, key=lambda pair: pair[1], reverse=True)


def run_plain(model: str, folder: Path, paths: Sequence[Path]) -> Measured:
    import onnxruntime

    adapter = _adapter(model, folder)
    labels = list(zip(adapter.label_set.names, adapter.label_set.categories, strict=True))
    file = (adapter.folder if model == "photo-lite" else folder_of(model, folder)) / "model.onnx"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def once(pixels: np.ndarray) -> np.ndarray:
        if model == "photo-lite":
            logits = session.run(None, {name: ((pixels - 127) / 128).transpose(2, 0, 1)[None]})[0][0]
            weights = np.exp(logits - logits.max())
            return weights / weights.sum()
        return session.run(None, {name: np.ascontiguousarray(pixels[None, :, :, ::-1])})[0][0]

    side = 260 if model == "photo-lite" else SIDE

    def work() -> None:
        for path in paths:
            scores = once(plain_pixels(path, side))
            plain_tags(labels[: len(scores)], scores)

    blank = np.zeros((side, side, 3), np.float32)
    times = 2 if model.startswith("vit") else 20
    return _measure(len(paths), work, lambda: [once(blank) for _ in range(times)], times)


# -- the pipeline ----------------------------------------------------------------------------------------------------
def run_pipeline(model: str, folder: Path, paths: Sequence[Path]) -> Measured:
    """The adapter as the engine drives it: preparation in threads ahead, bounded; inference in this one."""
    from tagging.adapters.base import ImageInput, Request
    from tagging.adapters.onnx_session import cores

    with _adapter(model, folder) as adapter, ThreadPoolExecutor(cores()) as threads:
        request = Request(adapter.options())

        def prepare(path: Path) -> Any:
            return adapter.prepare(ImageInput(path.name, "", lambda: path.open("rb")), request)

        def prepared() -> Iterator[Any]:
            waiting: deque[Any] = deque()
            for path in paths:
                waiting.append(threads.submit(prepare, path))
                if len(waiting) > 2 * adapter.batch_size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        def work() -> None:
            left = prepared()
            while batch := list(islice(left, adapter.batch_size)):
                for reply in adapter.infer(batch, request):
                    reply.scores.to_bytes()

        example = prepare(paths[0])
        list(adapter.infer([example], request))
        return _measure(len(paths), work, *_model_alone(model, folder))


def run_engine(model: str, folder: Path, paths: Sequence[Path]) -> Measured:
    """One worker in this process on a database of its own; every image has content of its own, so nothing is cached."""
    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {"IWTAG_DATA_DIR": temporary, "DJANGO_SETTINGS_MODULE": "iwtag_site.settings"}
        for name in ("DATABASE_URL", "IWTAG_BROKER_URL"):
            os.environ.pop(name, None)
        photographs = Path(temporary) / "photographs"
        photographs.mkdir()
        for index, path in enumerate([*paths, paths[0]]):
            (photographs / f"{index:05}.jpg").write_bytes(path.read_bytes() + index.to_bytes(4, "big"))
        import django

        django.setup()
        from django.core.management import call_command

        from tagging.actions.recipes import ChannelSpec, get_recipe
        from tagging.actions.runs import start_run
        from tagging.engine import residency, worker
        from tagging.models import ImageAsset, ModelAdapter, Proposal, Run

        call_command("migrate", verbosity=0)
        with open(os.devnull, "w") as nowhere:
            call_command("ingest", str(photographs), collection="benchmark", stdout=nowhere)
        kind, source = ("photo-lite", "") if model == "photo-lite" else ("wd", str(folder_of(model, folder).resolve()))
        row = ModelAdapter.objects.create(slug="benchmark", label=model, kind=kind, source=source, device="cpu")
        recipe, images = get_recipe([ChannelSpec(row)]), ImageAsset.objects.order_by("pk")

        def work(chosen: Any) -> Run:
            run = start_run(recipe, images=chosen)
            while worker.drain("gpu"):
                pass
            run.refresh_from_db()
            return run

        work(images.filter(path__endswith=f"{len(paths):05}.jpg"))  # loads the model
        ran: list[Run] = []
        model_alone = _model_alone(model, folder)
        rest = images.exclude(path__endswith=f"{len(paths):05}.jpg")
        measured = _measure(len(paths), lambda: ran.append(work(rest)), *model_alone)
        stored = Proposal.objects.filter(run=ran[0], state="ok").count()
        residency.MODELS.evict()
        if ran[0].state != Run.State.DONE or stored != len(paths):
            raise SystemExit(f"the run ended {ran[0].state} with {stored} of {len(paths)} images: {ran[0].error}")
        return measured


def _model_alone(model: str, folder: Path) -> tuple[Callable[[], object], int]:
    """A few calls of the model with blank images, and how many images that is."""
    adapter = _adapter(model, folder)
    adapter.load()
    shape = (3, 260, 260) if model == "photo-lite" else (SIDE, SIDE, 3)
    blank = np.zeros((adapter.batch_size, *shape), np.float32 if model == "photo-lite" else np.uint8)
    times = 1 if model.startswith("vit") else 5
    return lambda: [adapter._model.run(blank) for _ in range(times)], times * len(blank)


def _adapter(model: str, folder: Path) -> Any:
    from tagging.adapters import registry
    from tagging.adapters.base import AdapterConfig

    if model == "photo-lite":
        return registry.build("photo-lite", AdapterConfig(device="cpu"))
    kind = "int8" if model.endswith("-int8") else "none"
    return registry.build("wd", AdapterConfig(source=str(folder_of(model, folder)), device="cpu", quantization=kind))


def _measure(images: int, work: Callable[[], object], model_alone: Callable[[], object], runs: int) -> Measured:
    start, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_mib()
    before = time.process_time()
    model_alone()
    return Measured(images, seconds, cpu_seconds, (time.process_time() - before) / runs * images, peak)


def peak_mib() -> float:
    """Largest resident size of this process. Linux's ru_maxrss would begin with the parent's, its VmHWM does not."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


ARMS = {"plain": run_plain, "pipeline": run_pipeline, "engine": run_engine}


# -- the run ---------------------------------------------------------------------------------------------------------
def in_a_process(arm: str, model: str, folder: Path, size: str, images: int) -> Measured:
    command = [sys.executable, __file__, "--arm", arm, "--models", model, "--sizes", size, "--keep", str(folder)]
    command += ["--images", str(images)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr}")
    return Measured(**json.loads(done.stdout))


def row(arm: str, measured: list[Measured]) -> tuple[float, str]:
    """Median images/s, and the printed line."""
    rate = statistics.median(m.images / m.seconds for m in measured)
    cpu = statistics.median(m.cpu_seconds / m.images for m in measured) * 1000
    outside = statistics.median(max(0.0, 1 - m.model_cpu_seconds / m.cpu_seconds) for m in measured)
    peak = max(m.peak_mib for m in measured)
    return (
        rate,
        f"  {arm:<9} {rate:8.2f} images/s  {cpu:7.1f} cpu ms  {outside:6.1%} outside the model  {peak:5.0f} MiB",
    )


def compare(options: argparse.Namespace, folder: Path, model: str, size: str) -> bool:
    """Print one comparison; False when its bar is missed. The int8 variant runs beside the fp32 pipeline."""
    arms = [("plain", model)]
    if not options.plain_only:
        arms += [("pipeline", model), *([("engine", model)] if options.engine else [])]
        arms += [("pipeline", "vit-int8")] if model == "vit" else []
    images = min(options.images, 8) if model == "vit" else options.images
    results: dict[tuple[str, str], list[Measured]] = {arm: [] for arm in arms}
    for _ in range(options.rounds):
        for arm in arms:
            results[arm].append(in_a_process(*arm, folder, size, images))
    print(f"{model}, {size} ({' and '.join(f'{w} x {h}' for w, h in SIZES[size])}), {images} images", flush=True)
    rates = {}
    for arm in arms:
        rates[arm], line = row("int8" if arm[1] != model else arm[0], results[arm])
        print(line)
    met = True
    for arm in arms[1:]:
        base, bar = (arms[1], INT8_BAR) if arm[1] != model else (arms[0], BARS.get((model, size)))
        ratio = rates[arm] / rates[base]
        pairs = zip(results[base], results[arm], strict=True)
        less = statistics.median(p.cpu_seconds / m.cpu_seconds for p, m in pairs)
        verdict = f"; bar {bar:g} x {'met' if ratio >= bar else 'MISSED'}" if bar else ""
        met = met and (not bar or ratio >= bar)
        names = ("int8", "our fp32") if arm[1] != model else (arm[0], "plain loop")
        print(f"  {names[0]} / {names[1]}: {ratio:.1f} x{verdict}; {less:.1f} x less processor time", flush=True)
    if model == "vit" and not options.plain_only:
        told = json.loads((folder_of("vit", folder) / "model.int8.json").read_text())["measured"]
        print(f"  int8 scores: {told['max_error']:.4f} at most, {told['mean_error']:.6f} on average from fp32's")
    print()
    return met


def decoding(folder: Path, rounds: int) -> bool:
    """Processor time of decoding and preparing camera photographs, three ways; False when the bar is missed."""
    from tagging.adapters.base import ImageInput
    from tagging.adapters.preparation import padded_square
    from tagging.imaging import load, thumbnails

    paths = paths_for(folder, "camera", len(SIZES["camera"]) * DIFFERENT)
    proxies = []
    for path in paths:
        with path.open("rb") as stream:
            picture = load.decode(stream, min_side=thumbnails.DECODE_SIDE, name=path.name)
        proxies.append(thumbnails.render(picture).files[thumbnails.PROXY])
    ways: dict[str, Callable[[], object]] = {
        "originals in full": lambda: [plain_pixels(path, SIDE) for path in paths],
        "originals drafted": lambda: [padded_square(ImageInput("", "", partial(p.open, "rb")), SIDE) for p in paths],
        "proxies": lambda: [padded_square(ImageInput("", "", partial(io.BytesIO, b)), SIDE) for b in proxies],
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            start = time.process_time()
            work()
            taken[way].append((time.process_time() - start) / len(paths) * 1000)
    each = {way: statistics.median(times) for way, times in taken.items()}
    print("decoding and preparing 12 and 24 MP, processor ms an image")
    for way, milliseconds in each.items():
        print(f"  {way:<18} {milliseconds:7.1f}")
    full, drafted = (each[way] / each["proxies"] for way in ("originals in full", "originals drafted"))
    print(f"  proxies: {full:.1f} x less than originals in full; bar {PROXY_BAR:g} x", end=" ")
    print(f"{'met' if full >= PROXY_BAR else 'MISSED'}; {drafted:.1f} x less than originals drafted, as we read them\n")
    return full >= PROXY_BAR


def paths_for(folder: Path, size: str, images: int) -> list[Path]:
    found = sorted(p for w, h in SIZES[size] for p in folder.glob(f"{w}x{h}-*.jpg"))
    return list(islice(cycle(found), images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=24, help="per round and arm")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["free", "photo-lite"])
    parser.add_argument("--peer-loop", action="store_true", help="all bars against the plain loop")
    parser.add_argument("--plain-only", action="store_true", help="only the plain loop")
    parser.add_argument("--engine", action="store_true", help="also through the engine, database included")
    parser.add_argument("--keep", type=Path, help="folder for the photographs and the models, kept and used again")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        paths = paths_for(options.keep, options.sizes[0], options.images)
        print(json.dumps(asdict(ARMS[options.arm](options.models[0], options.keep, paths))))
        return
    pairs = [(model, size) for model in options.models for size in options.sizes]
    if options.peer_loop:
        pairs = list(BARS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for size in {s for _, name in pairs for s in SIZES[name]}:
            if not list(folder.glob(f"{size[0]}x{size[1]}-*.jpg")):
                make_photographs(folder, size)
        for model in {model for model, _ in pairs}:
            folder_of("vit-int8" if model == "vit" else model, folder)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start\n", flush=True)
        met = [compare(options, folder, model, size) for model, size in pairs]
        met += [decoding(folder, options.rounds)] if options.peer_loop else []
        print(f"load {os.getloadavg()[0]:.1f} at the end")
    if not all(met):
        raise SystemExit("a bar is missed")


if __name__ == "__main__":
    main()
