"""How long a person waits: from `git clone` to the first tagged photograph, a later start, and Ctrl-C to nothing left.

    python benchmarks/first_run.py [--keep FOLDER]

Clones this repository (what is committed) to a new folder and calls `make run` there with an empty environment, as a
new user would: packages are downloaded. Prints seconds; quote them with the machine and the network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).close()
    except OSError:
        return False
    return True


def tagged(data: Path) -> int:
    """Images of the first run that have their proposal."""
    try:
        with sqlite3.connect(f"file:{data / 'db.sqlite3'}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT COUNT(*) FROM tagging_proposal").fetchone()[0])
    except sqlite3.Error:
        return 0


def wait(check: object, began: float, limit: float = 900) -> float:
    while time.monotonic() - began < limit:
        if check():  # type: ignore[operator]
            return time.monotonic() - began
        time.sleep(0.05)
    raise SystemExit(f"not within {limit:.0f} s")


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    kept = ("PATH", "HOME", "LANG", "PIP_CERT", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
    env = {k: v for k, v in os.environ.items() if k in kept} | {"IWTAG_PORT": str(port)}
    # a session of its own stands for a terminal: Ctrl-C goes to make and all it started
    return subprocess.Popen(
        ["make", "run"],
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> float:
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    wait(lambda: not _alive(process.pid), began, 60)
    return time.monotonic() - began


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="clone into this folder and leave it")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="iwtag-first-")) / "iwtag"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    began = time.monotonic()
    try:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        first = start(folder, port)
        print(f"clone to the web server's answer  {wait(lambda: answers(port), began):6.1f} s")
        print(f"clone to the first tagged image   {wait(lambda: tagged(folder / 'data') > 0, began):6.1f} s")
        print(f"clone to all samples tagged       {wait(lambda: tagged(folder / 'data') >= 20, began):6.1f} s")
        print(f"Ctrl-C to nothing left            {stop(first):6.1f} s")
        began = time.monotonic()
        again = start(folder, port)
        print(f"a later start                     {wait(lambda: answers(port), began):6.1f} s")
        print(f"Ctrl-C to nothing left            {stop(again):6.1f} s")
    finally:
        if not options.keep:
            shutil.rmtree(folder.parent, ignore_errors=True)


if __name__ == "__main__":
    main()
