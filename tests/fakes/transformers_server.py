"""A real `transformers serve` with a tiny vision-language model of random weights, in a process of its own, offline.

How it decodes pictures, what it refuses and how it counts are real; what it says is gibberish.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tagging.adapters.vlm import runtime
runtime.without_broken_torchvision()  # made for another torch: the processors work with Pillow then
from tests.fakes import tiny_vlm
path = tiny_vlm.build(sys.argv[1], Path(sys.argv[2]))
from transformers.cli.serve import Serve
Serve(str(path), device="cpu", dtype="float32", host="127.0.0.1", port=int(sys.argv[3]), log_level="error")
"""


def there() -> bool:
    return all(find_spec(name) for name in ("torch", "transformers", "fastapi", "uvicorn"))


@contextlib.contextmanager
def running(folder: Path, checkpoint: str = "llava") -> Iterator[tuple[str, str]]:
    """Its address, with /v1, and the name of its only model; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, checkpoint, str(folder), str(port)],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the server ended before it listened: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", str(folder / checkpoint)
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
        return bool(answer.status == 200)
    return False
