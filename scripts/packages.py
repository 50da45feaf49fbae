"""Download pip and Debian packages into a work folder and unpack them there; nothing is installed.

Used by the build scripts beside this file. A package that lies in WORK/downloads already is not downloaded again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A downloaded package and where it lies unpacked."""

    name: str
    version: str
    file: Path
    folder: Path

    def record(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version, "file": self.file.name, "sha256": sha256(self.file)}


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def downloads_folder(work: Path) -> Path:
    folder = work / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch_wheel(work: Path, name: str, version: str) -> Package:
    """Download one wheel without its dependencies and unpack it."""
    downloads = downloads_folder(work)
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(downloads.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(downloads)]
        subprocess.run([*command, f"{name}=={version}"], check=True)
    (wheel,) = downloads.glob(pattern)
    folder = work / "unpacked" / name
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return Package(name, version, wheel, folder)


def fetch_deb(work: Path, name: str) -> Package:
    """Download one Debian package and unpack it; nothing is installed."""
    downloads = downloads_folder(work)
    if not list(downloads.glob(f"{name}_*.deb")):
        subprocess.run(["apt-get", "download", name], check=True, cwd=downloads)
    (deb,) = downloads.glob(f"{name}_*.deb")
    folder = work / "unpacked" / name
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True)
    version = subprocess.run(
        ["dpkg-deb", "-f", str(deb), "Version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return Package(name, version, deb, folder)
