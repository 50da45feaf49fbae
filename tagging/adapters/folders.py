"""A folder with a model in it, as a scan sees it: names, sizes and small JSON files, never the weights.

Adapters look at it in `recognises` and say whether, and why, it is theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

#: A JSON or text file larger than this is not read in a scan.
SMALL = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Guess:
    """Why a folder is taken for an adapter's. `reason` is read by a person ("selected_tags.csv beside model.onnx").

    `certainty` decides between adapters: 90 where a file names the family, 60 where files only fit, 30 for a fallback.
    `options` are values for the new adapter's row that the files call for.
    """

    reason: str
    certainty: int = 60
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ModelFolder:
    """`files` maps names relative to `path`, with "/" (one folder down at most), to bytes."""

    path: Path
    files: Mapping[str, int]

    def has(self, *names: str) -> bool:
        """All of these files are there; names may be patterns ("*.onnx")."""
        return all(name in self.files or any(fnmatch(f, name) for f in self.files) for name in names)

    def matching(self, pattern: str) -> list[str]:
        """File names that fit the pattern, sorted."""
        return sorted(name for name in self.files if fnmatch(name, pattern))

    def json(self, name: str) -> dict[str, Any]:
        """A small JSON object of the folder; {} when it is missing, too large, broken, or no object."""
        if not 0 < self.files.get(name, 0) <= SMALL:
            return {}
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def head(self, name: str, characters: int = 2000) -> str:
        """How a text file begins; "" when it cannot be read."""
        try:
            with (self.path / name).open(encoding="utf-8-sig", errors="replace") as lines:
                return lines.read(characters)
        except OSError:
            return ""

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, {} without one."""
        return self.json("config.json")

    @property
    def architectures(self) -> list[str]:
        """The class names that config.json gives, e.g. Qwen2_5_VLForConditionalGeneration."""
        found = self.config.get("architectures")
        return [str(name) for name in found] if isinstance(found, list) else []

    @property
    def model_type(self) -> str:
        found = self.config.get("model_type", "")
        return found if isinstance(found, str) else ""

    @cached_property
    def weight_bytes(self) -> int:
        """What the weight files hold together: the measure of the memory that loading will take."""
        ends = (".safetensors", ".bin", ".onnx", ".onnx_data", ".onnx.data", ".pth", ".pt", ".gguf")
        return sum(size for name, size in self.files.items() if name.endswith(ends))
