"""An adapter that computes nothing and misbehaves on demand, registered through the real entry point group.

Its answers follow from the image's name alone. It never opens the file. `install` makes it known to this process and,
by the folder it returns, to processes that have it on their PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from pydantic import Field

from tagging.adapters.base import (
    Adapter,
    AdapterError,
    AdapterOptions,
    Capabilities,
    ImageInput,
    LabelSet,
    ModelUnavailable,
    OutOfMemory,
    PackedScores,
    Problem,
    Reply,
    Request,
)

THRESHOLD = 0.35
#: changes how it is computed, not what comes out
HOW = {"selection": True}


class Fake(Adapter):
    key = "fake"
    label = "Fake"
    capabilities = Capabilities(
        outputs=frozenset({"tags", "rating"}), scores=True, threshold_categories=("general",), hierarchy=True
    )
    preparation: ClassVar[str] = "fake 1"

    class Options(AdapterOptions):
        labels: int = Field(300, ge=10, le=65535)
        scored: int = Field(12, ge=0, description="Scores above the floor per image.")
        kept: int = Field(5, ge=0, description="Of these, at or above the threshold.")
        threshold: float = Field(THRESHOLD, json_schema_extra=HOW)
        variant: str = Field("", description="Another value is another model.")
        caption: str = ""
        rating: str = ""
        bad: tuple[str, ...] = Field((), json_schema_extra=HOW, description="Images that cannot be prepared.")
        failing: tuple[str, ...] = Field((), json_schema_extra=HOW, description="Images that break their batch.")
        refused: tuple[str, ...] = Field(
            (), json_schema_extra=HOW, description="Images that get an error of their own."
        )
        empty: tuple[str, ...] = Field((), json_schema_extra=HOW)
        poison: tuple[str, ...] = Field((), json_schema_extra=HOW, description="Images that kill the process.")
        hang: tuple[str, ...] = Field((), json_schema_extra=HOW, description="Images that hang, the first time.")
        short: tuple[str, ...] = Field((), json_schema_extra=HOW, description="Images that get no reply at all.")
        unavailable: str = Field("", json_schema_extra=HOW, description="load() fails with this text.")
        no_room: int = Field(0, json_schema_extra=HOW, description="So many loads of all meet a full device.")
        needs: int = Field(0, json_schema_extra=HOW, description="Bytes it says it needs.")
        load_seconds: float = Field(0.0, json_schema_extra=HOW)
        prepare_ms: float = Field(0.0, json_schema_extra=HOW)
        image_ms: float = Field(0.0, json_schema_extra=HOW)
        batch: int = Field(16, ge=1, json_schema_extra=HOW)
        out_of_memory_over: int = Field(10**9, json_schema_extra=HOW, description="Largest batch that fits.")
        log: str = Field("", json_schema_extra=HOW, description="File that gets a line for each load and image.")

    #: the instances that are loaded in this process
    loaded: ClassVar[list[Fake]] = []
    #: loads that met a full device so far
    refusals: ClassVar[int] = 0

    def __init__(self, config=None) -> None:
        super().__init__(config)
        self.own = cast(Fake.Options, self.options())

    def check(self) -> list[Problem]:
        return [Problem(self.own.unavailable, "Mend it.")] if self.own.unavailable else []

    def identity(self) -> dict[str, object]:
        return {"model": "fake", "variant": self.own.variant, "labels": self.label_set.digest}

    def memory_needed(self) -> int | None:
        return self.own.needs or None

    @property
    def label_set(self) -> LabelSet:
        return label_set(self.own.labels)

    @property
    def provider(self) -> str:
        return "FakeProvider"

    @property
    def batch_size(self) -> int:
        return self.own.batch

    def load(self) -> None:
        if self in Fake.loaded:
            return
        self._log("try", [str(os.getpid())])
        if self.own.unavailable:
            raise ModelUnavailable(self.own.unavailable)
        if Fake.refusals < self.own.no_room:
            Fake.refusals += 1
            raise OutOfMemory("no room for the weights")
        time.sleep(self.own.load_seconds)
        Fake.loaded.append(self)
        self._log("load", [str(os.getpid())])

    def unload(self) -> None:
        if self in Fake.loaded:
            Fake.loaded.remove(self)
            self._log("unload", [str(os.getpid())])

    def prepare(self, image: ImageInput, request: Request) -> str:
        time.sleep(self.own.prepare_ms / 1000)
        name = Path(image.name).name
        if name in cast(Fake.Options, request.options).bad:
            raise AdapterError(f"{name} cannot be decoded", permanent=True)
        return name

    def infer(self, batch: Sequence[str], request: Request) -> Iterator[Reply | AdapterError]:
        if self not in Fake.loaded:
            raise AdapterError("not loaded")
        o = cast(Fake.Options, request.options)
        self._log("batch", [str(len(batch))])
        if len(batch) > o.out_of_memory_over:
            raise OutOfMemory(f"no room for {len(batch)} images")
        self._log("c", batch)
        self._misbehave(batch, o)
        time.sleep(o.image_ms * len(batch) / 1000)
        for name in batch:
            if name in o.short:
                return
            yield AdapterError(f"{name} is refused") if name in o.refused else answer(name, o)

    def _misbehave(self, batch: Sequence[str], o: Options) -> None:
        if set(batch) & set(o.poison):
            os.kill(os.getpid(), signal.SIGKILL)
        marker = Path(f"{o.log}.hung")
        if set(batch) & set(o.hang) and not marker.exists():
            marker.touch()
            time.sleep(10_000)
        if set(batch) & set(o.failing):
            raise RuntimeError("shape mismatch")

    def _log(self, what: str, values: Sequence[str]) -> None:
        if self.own.log:
            with open(self.own.log, "a", encoding="utf-8") as f:
                f.write("".join(f"{what} {value}\n" for value in values))

    @classmethod
    def thresholds(cls, labels, probabilities, options) -> dict[str, float]:
        return {"general": cast(Fake.Options, options).threshold}


class Talker(Fake):
    """Takes a prompt and answers in text: `says`, with {name}, {prompt}, {system}, {schema} and {sample} filled in."""

    key = "fake-talker"
    label = "Fake talker"
    capabilities = Capabilities(
        outputs=frozenset({"tags", "caption"}), prompt=True, system=True, structured_output=True, seed=True
    )

    class Options(Fake.Options):
        says: str = "red {name}, {name}"
        silent: tuple[str, ...] = Field((), json_schema_extra=HOW, description="Images that get an empty answer.")
        truncated: tuple[str, ...] = Field((), json_schema_extra=HOW)
        stubborn: tuple[str, ...] = Field((), json_schema_extra=HOW, description="Images that never get JSON.")
        garbled: tuple[str, ...] = Field((), json_schema_extra=HOW, description="... not at the first attempt.")
        cut: tuple[int, ...] = Field((), json_schema_extra=HOW, description="Samples without an answer.")

    def identity(self) -> dict[str, object]:
        return {"model": self.key, "variant": self.own.variant}

    @property
    def label_set(self) -> None:
        return None

    def prepare(self, image: ImageInput, request: Request) -> tuple[str, Request]:
        return super().prepare(image, request), request

    def infer(self, batch, request: Request) -> Iterator[Reply | AdapterError]:
        o = cast(Talker.Options, request.options)
        for (name, asked), reply in zip(batch, super().infer([name for name, _ in batch], request), strict=True):
            yield reply if isinstance(reply, AdapterError) else self._reply(name, asked, o)

    def _reply(self, name: str, asked: Request, o: Talker.Options) -> Reply:
        text = "" if name in o.silent or asked.sample in o.cut else o.says
        if name in o.stubborn or (name in o.garbled and "could not be used" not in asked.prompt):
            text = "I would rather not."
        for word, value in (
            ("{prompt}", asked.prompt),
            ("{system}", asked.system),
            ("{schema}", json.dumps(asked.schema)),
            ("{sample}", str(asked.sample)),
            ("{name}", name),
        ):
            text = text.replace(word, value)
        cut = name in o.truncated
        return Reply(
            text=text,
            tokens_in=len(asked.prompt),
            tokens_out=len(text),
            finish_reason="length" if cut else "stop",
            flags=("truncated",) if cut else (),
        )

    @classmethod
    def thresholds(cls, labels, probabilities, options) -> dict[str, float]:
        return {}


class Remote(Talker):
    """The same, served by the cluster of remote endpoints."""

    key = "fake-remote"
    label = "Fake remote"
    capabilities = replace(Talker.capabilities, queue="io")


class Reader(Talker):
    """The same, blind: text alone reaches it."""

    key = "fake-reader"
    label = "Fake reader"
    capabilities = replace(Talker.capabilities, vision=False)


KINDS = {kind.key: kind for kind in (Fake, Talker, Remote, Reader)}


@cache
def label_set(n: int) -> LabelSet:
    """label 0 … label n-1; the last tenth are parents of the others."""
    names = tuple(f"label {i}" for i in range(n))
    first = n - n // 10
    return LabelSet(names, ("general",) * n, tuple(first + i % (n - first) if i < first else -1 for i in range(n)))


def answer(name: str, o: Fake.Options) -> Reply:
    """The scores of an image by its name: `kept` at or above 0.5, the others below 0.3."""
    if name in o.empty:
        return Reply(scores=PackedScores(np.empty(0, np.uint16), np.empty(0, np.uint16)))
    start = zlib.crc32(f"{name}{o.variant}".encode()) % o.labels
    labels = ((start + 7 * np.arange(o.scored)) % o.labels).astype(np.uint16)
    scores = _scores(o.scored, o.kept)
    rating = (o.rating, 0.9) if o.rating else None
    return Reply(scores=PackedScores(labels, scores), caption=o.caption or None, rating=rating, seconds=0.001)


@cache
def _scores(scored: int, kept: int) -> np.ndarray:
    high, low = np.linspace(0.99, 0.5, min(kept, scored)), np.linspace(0.29, 0.06, max(0, scored - kept))
    return np.rint(np.concatenate([high, low]) * 65535).astype(np.uint16)


def expected(name: str, o: Fake.Options | None = None) -> list[str]:
    """The names of the tags that a run with the default policy proposes for an image, highest score first."""
    o = o or Fake.Options()
    scores = answer(name, o).scores
    assert scores is not None
    return [f"label {i}" for i in scores.labels[: o.kept].tolist()]


def install(folder: Path) -> Path:
    """Write what an installed package that brings this adapter would have; put the folder on the search path."""
    info = folder / "iwtag_fake-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: iwtag-fake\nVersion: 1\n")
    points = "".join(f"{key} = tests.fakes.adapter:{kind.__name__}\n" for key, kind in KINDS.items())
    (info / "entry_points.txt").write_text(f"[iwtag.adapters]\n{points}")
    return folder
