"""Remote endpoints: how much many requests at once give, and how soon the rate is back after a burst of 429.

    python benchmarks/endpoint.py [--images 256] [--delay 0.2] [--flight 16] [--long-edge 1024]

A server in a process of its own answers each request after `--delay` seconds, as a remote model would. JPEGs of that
long edge, as ingest's proxies are, decoded and encoded anew each time, are asked about

    sequential   one after the other with the openai client, as a plain script does it
    adapter      by the adapter, `--flight` at once
    engine       by a run: claim, prompt, cache look-up, decode ahead, adapter, policy, store (SQLite)

and once more while the server refuses everything for two seconds with 429.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder: its tagging.py is not the package
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "cat, dog"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 8},
}


def serve(delay: float, ready: Any, refuse: Any, refused: Any) -> None:
    """While `refuse` holds a time that is still to come, everything is refused."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if time.time() < refuse.value:
                with refused.get_lock():
                    refused.value += 1
                return self.answer(429, b'{"error": {"message": "slow down"}}')
            time.sleep(delay)
            self.answer(200, json.dumps(ANSWER).encode())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 256

    server = Server(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


def picture(long_edge: int) -> bytes:
    """A 4:3 JPEG with something in it."""
    import numpy as np
    from PIL import Image

    height = long_edge * 3 // 4
    small = np.random.default_rng(1).integers(0, 255, (height // 10, long_edge // 10, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((long_edge, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def sequential(address: str, content: bytes, images: int) -> float:
    """Pictures a second of a plain loop over the openai client, with the picture encoded once."""
    import openai

    from tagging.adapters.base import ImageInput
    from tagging.adapters.endpoint.images import encode

    client = openai.OpenAI(api_key="x", base_url=address)
    began = time.monotonic()
    for _ in range(images):
        uri = encode(ImageInput("x", "0" * 64, lambda: io.BytesIO(content)), 1024, "jpeg", 90).uri
        parts: Any = [{"type": "text", "text": "Tags?"}, {"type": "image_url", "image_url": {"url": uri}}]
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}], max_tokens=64)
    return images / (time.monotonic() - began)


def adapter(address: str, content: bytes, images: int, flight: int, trace: list[float] | None = None) -> float:
    """Pictures a second of the adapter, decoding in the threads that a worker has."""
    from concurrent.futures import ThreadPoolExecutor

    from tagging.adapters.base import AdapterConfig, ImageInput, Reply, Request
    from tagging.adapters.endpoint.adapter import Endpoint

    with Endpoint(AdapterConfig(source=address, options={"model": "m", "concurrency": flight})) as loaded:
        request = Request(loaded.options(), prompt="Tags?")
        image = ImageInput("x", "0" * 64, lambda: io.BytesIO(content))
        began = time.monotonic()
        with ThreadPoolExecutor(os.cpu_count() or 2) as threads:
            items = enumerate(threads.map(lambda _: loaded.prepare(image, request), range(images)))
            ok = 0
            for answer in loaded.infer_stream(items, request):
                if answer is not None:
                    ok += isinstance(answer[1], Reply)
                    if trace is not None:
                        trace.append(time.monotonic() - began)
        assert ok == images, f"{images - ok} lost"
    return images / (time.monotonic() - began)


def engine(address: str, content: bytes, images: int, flight: int) -> float:
    """Pictures a second of a run, from the claim to the stored proposals."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from prompts.actions import create_prompt, create_version
    from tagging.actions.recipes import ChannelSpec, get_recipe
    from tagging.actions.runs import start_run
    from tagging.engine import residency, worker
    from tagging.models import Collection, ImageAsset, ModelAdapter, Proposal

    folder = Path(os.environ["IWTAG_DATA_DIR"]) / "photos"
    folder.mkdir()
    collection = Collection.objects.create(name="b", slug="b", kind="folder", root=str(folder))
    for i in range(images):
        (folder / f"{i}.jpg").write_bytes(content)
    ImageAsset.objects.bulk_create(
        [ImageAsset(collection=collection, path=f"{i}.jpg", sha256=f"{i:064x}") for i in range(images)]
    )
    row = ModelAdapter.objects.create(
        slug="e", label="e", kind="openai", source=address, options={"model": "m", "concurrency": flight}
    )
    version = create_version(create_prompt(slug="p"), template="Tags?", message="first")
    run = start_run(get_recipe([ChannelSpec(row, version)]), collection=collection)
    began = time.monotonic()
    while worker.drain("io"):
        pass
    seconds = time.monotonic() - began
    residency.MODELS.evict()
    found = Proposal.objects.filter(run=run, state="ok").count()
    assert found == images, f"{images - found} lost"
    return images / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--long-edge", type=int, default=1024)
    parser.add_argument("--flight", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(IWTAG_DATA_DIR=folder, DJANGO_SETTINGS_MODULE="iwtag_site.settings")
        refuse, refused = multiprocessing.Value("d", 0.0), multiprocessing.Value("i", 0)
        mine, theirs = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(given.delay, theirs, refuse, refused), daemon=True)
        server.start()
        address = f"http://127.0.0.1:{mine.recv()}/v1"
        content = picture(given.long_edge)
        plain = sequential(address, content, max(8, given.images // 16))
        print(f"sequential           {plain:8.1f} pictures/s")
        rates = {}
        for name, ask in (("adapter", adapter), ("engine", engine)):
            cpu = time.process_time()
            rates[name] = rate = ask(address, content, given.images, given.flight)
            cpu = (time.process_time() - cpu) / given.images * 1000
            print(
                f"{name:8}{given.flight:4} at once {rate:8.1f} pictures/s {rate / plain:6.1f} x {cpu:6.1f} ms CPU each"
            )
        many = rates["adapter"]

        from tagging.adapters.endpoint import limits

        limits.forget()
        trace: list[float] = []
        threading.Timer(2.0, lambda: setattr(refuse, "value", time.time() + 2.0)).start()
        images = int(given.images * 2.5)
        adapter(address, content, images, given.flight, trace)
        gap = max(b - a for a, b in pairwise(trace))
        at = next(b for a, b in pairwise(trace) if b - a == gap)
        whole = next((t for t in trace if t > at and sum(t - 1 < u <= t for u in trace) >= 0.8 * many), None)
        back = "not reached" if whole is None else f"{whole - at:.1f} s after its first answer"
        print(f"429 for 2 s: {refused.value} refusals, {len(trace)} of {images} answered, longest gap {gap:.1f} s,")
        print(f"             80 % of the rate {back}")
        server.terminate()


if __name__ == "__main__":
    main()
