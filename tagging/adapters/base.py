"""The contract of every adapter: code that speaks to one model family.

This module imports nothing heavy and nothing of Django: adapters are usable, and testable, on their own.
A family is one subclass of `Adapter` in one module; `registry.py` names it and imports it only when used.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from .folders import Guess, ModelFolder
from .scores import (  # noqa: F401  all of them are part of the contract
    DEFAULT_SCORE_FLOOR,
    SCORE_SCALE,
    LabelCuts,
    LabelSet,
    PackedScores,
    Thresholds,
)

#: Whatever the caller of `infer_stream` knows an item by.
Handle = TypeVar("Handle")


class AdapterError(Exception):
    """A model or an image could not be used. `permanent` errors are not worth a retry with the same input.

    The text is shown to the person who runs iwtag: it names the thing that failed and the mend.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent


class OutOfMemory(AdapterError):
    """The device had no room for this batch. The engine halves the batch and goes on."""


class ModelUnavailable(AdapterError):
    """The model cannot be loaded at all (missing file, missing package, bad revision): the run fails with this text."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `check()` found. `mend` is what the person can do about it."""

    message: str
    mend: str
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do, as data: forms, the API and validation are drawn from it."""

    outputs: frozenset[str]  # of {"tags", "caption", "rating"}
    scores: bool = False  # tags come with probabilities
    prompt: bool = False  # takes a user prompt
    own_prompt: bool = False  # and does without one: it has words of its own, or its options make them
    system: bool = False  # takes a system prompt
    vision: bool = True  # sees the image
    images_per_call: int = 1
    threshold_categories: tuple[str, ...] = ()  # categories with a threshold option of their own
    quantizations: tuple[str, ...] = ("none",)
    devices: tuple[str, ...] = ("auto", "cpu")
    structured_output: bool = False
    vocabulary: bool = False  # can be held to a list of terms: takes `Request.terms`, has the option `vocabulary`
    seed: bool = False  # sampling can be made repeatable
    queue: str = "gpu"  # the cluster that runs it: "gpu" for local models, "io" for remote endpoints
    hierarchy: bool = False  # labels carry parents

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, used by the API."""
        return {
            "outputs": sorted(self.outputs),
            "scores": self.scores,
            "prompt": self.prompt,
            "own_prompt": self.own_prompt,
            "system": self.system,
            "vision": self.vision,
            "images_per_call": self.images_per_call,
            "threshold_categories": list(self.threshold_categories),
            "quantizations": list(self.quantizations),
            "devices": list(self.devices),
            "structured_output": self.structured_output,
            "vocabulary": self.vocabulary,
            "seed": self.seed,
            "queue": self.queue,
            "hierarchy": self.hierarchy,
        }


@dataclass(frozen=True, slots=True)
class About:
    """What a person wants to know of a family before using it; `docs/adapters.md` is drawn from it.

    Plain sentences, nothing untrue: `tested` says what was run, how, and what was not at hand.
    """

    summary: str  # what it is and what it answers
    weights: str  # where they come from, and which files a folder needs
    licence: str  # of the weights, and of code that comes with them
    memory: str  # measured, or an estimate that says so
    tested: str
    notes: tuple[str, ...] = ()  # traps and advice, one a line

    def missing(self) -> list[str]:
        """Names of the fields that say nothing."""
        return [n for n in ("summary", "weights", "licence", "memory", "tested") if not getattr(self, n).strip()]


class AdapterOptions(BaseModel):
    """Base of every adapter's options. Unknown names are errors; the JSON schema draws the form.

    A field whose `json_schema_extra` has `"selection": True` only chooses among stored scores (thresholds), one with
    `"operational": True` only says how the work is done (timeouts, concurrency, prices): both are left out of the
    identity of a prediction, because changing them needs no new inference. `"advanced": True` puts a field behind the
    form's disclosure; `"group": "Sampling"` puts it under that heading (Sampling, Image, Limits, Thresholds, Words …),
    `"unit": "px"` names what it counts, `"labels": {value: words}` says choices in better words, `"preset": False`
    keeps a field out of saved presets. `"row": True` marks a setting of the configured model that no run, recipe or
    judge may change (which key is sent, whether foreign code is run): only the administration shows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def row_settings(cls) -> frozenset[str]:
        """Names of the options that belong to the configured model alone."""
        return frozenset(n for n, f in cls.model_fields.items() if _extra(f.json_schema_extra).get("row"))

    def inference_dict(self) -> dict[str, Any]:
        """The options that change what the model computes, defaults filled in: part of `Prediction.key`."""
        fields = type(self).model_fields
        left_out = {
            n for n, f in fields.items() if _LEFT_OUT & {k for k, v in _extra(f.json_schema_extra).items() if v}
        }
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in left_out}


_LEFT_OUT = {"selection", "operational"}


def _extra(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class ScoredTag:
    """One tag as the model said it. `score` is None where the model does not say."""

    name: str
    category: str = "general"
    score: float | None = None


#: Flags of a reply that says nothing of the image and may come out otherwise next time: a refusal, what a content
#: filter kept back, a server's answer without a word. It is stored, and never reused.
WITHHELD = frozenset({"refusal", "content_filter", "no_answer"})


@dataclass(slots=True)
class Reply:
    """What a model said of one image: scored labels and/or tags and/or a caption, never an error text.

    `scores` index the adapter's `label_set`; `tags` serve models without one. `rating` is the name and probability of
    the content rating. `finish_reason` follows the OpenAI words (stop, length, content_filter). An empty reply is a
    legitimate result, different from an error.
    """

    scores: PackedScores | None = None
    tags: tuple[ScoredTag, ...] = ()
    caption: str | None = None
    rating: tuple[str, float] | None = None
    text: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None  # in `currency`, at the price that the adapter has now; None where it has none
    currency: str = ""
    finish_reason: str = ""
    seconds: float = 0.0
    flags: tuple[str, ...] = ()  # e.g. "truncated", "parse_failed", "fallback"

    @property
    def empty(self) -> bool:
        return (self.scores is None or not len(self.scores.labels)) and not self.tags and not self.caption

    @property
    def withheld(self) -> bool:
        """Flagged as WITHHELD: the same question is asked anew."""
        return not WITHHELD.isdisjoint(self.flags)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """One image as an adapter receives it. `open` yields a fresh binary stream of `kind` ("original" or "proxy").

    `kind` "none" (see NO_IMAGE) is a question without an image: an adapter of language models sends the text alone.
    """

    name: str
    sha256: str
    open: Callable[[], BinaryIO]
    kind: str = "original"


def _no_stream() -> BinaryIO:
    raise AdapterError("There is no image in this question: choose a model that answers text alone.", permanent=True)


#: What `prepare` gets for a question of text alone. A model that needs an image fails on `open`, with its mend.
NO_IMAGE = ImageInput(name="", sha256="", open=_no_stream, kind="none")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the model, the same for every image unless the prompt has variables.

    `terms` is filled when the option `vocabulary` of an adapter that has it is "only": every tag of the answer is one
    of them, spelled so. Their digest (`terms_digest`) is part of a prediction's identity.
    """

    options: AdapterOptions
    system: str = ""
    prompt: str = ""
    schema: dict[str, Any] | None = None
    sample: int = 0
    terms: tuple[str, ...] = ()


def terms_digest(terms: Sequence[str]) -> str:
    """sha256 (hex) of a list of terms in its order; empty for an empty list, so that free answers keep their keys."""
    if not terms:
        return ""
    return hashlib.sha256(json.dumps(list(terms), ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """A ModelAdapter row as plain data."""

    source: str = ""  # hub id, local folder or endpoint address; empty for the embedded model
    revision: str = ""
    device: str = "auto"
    quantization: str = "none"
    options: dict[str, Any] = field(default_factory=dict)
    models_dirs: tuple[Path, ...] = ()


class Adapter(ABC):
    """One model family. Cheap to construct: weights are touched only by `load`.

    Life: `check()` → `load()` → (`prepare` in threads, `infer` in one thread) … → `unload()`. `load` and `unload` are
    idempotent; the adapter is a context manager that does both.
    """

    key: ClassVar[str]
    label: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    #: For people: docs/adapters.md is drawn from it. None only where there is no model (imported results).
    about: ClassVar[About | None] = None
    #: What `prepare` does to the pixels; part of a prediction's identity. Change it when the pixels change.
    preparation: ClassVar[str] = ""
    #: Answers many images at once, in whatever order they come: the engine then asks `infer_stream`, with no batches.
    streams: ClassVar[bool] = False
    #: Its source is a server that can say which models it has.
    lists_models: ClassVar[bool] = False
    #: Names of the options that `load` depends on: a model loaded with others is another resident.
    load_options: ClassVar[frozenset[str]] = frozenset()

    #: Files of a hub repository that `load` needs, as patterns; all of them where this is empty.
    hub_files: ClassVar[tuple[str, ...]] = ()

    class Options(AdapterOptions):
        """No options."""

    def __init__(self, config: AdapterConfig | None = None) -> None:
        self.config = config or AdapterConfig()

    # -- cheap, no weights ------------------------------------------------------------------------------------------
    @abstractmethod
    def check(self) -> list[Problem]:
        """Is the source there, the key set, the device usable? Reads no weights. Empty means ready."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the answer depends on besides image, prompt and options: model id, resolved revision or file digest,
        quantization, chat template. JSON-ready; part of `Prediction.key`. Never a path, host or device.

        May read files to digest them. Raises ModelUnavailable.
        """

    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        """Does this folder hold a model of this family? The guess says why. Cheap: reads no weights, imports nothing
        heavy, never raises for odd files. None: not ours."""
        return None

    def memory_needed(self) -> int | None:
        """Bytes that `load` will take on its device, estimated from the files without reading them; None when unknown.

        A loaded model's neighbours are unloaded until this much is free, and it is named when loading fails for want
        of memory. Never raises, never downloads.
        """
        return None

    @property
    def place(self) -> str:
        """Where `load` puts the weights: "cuda:0", "cpu", …; "auto" where only loading will tell; "" for a remote
        endpoint, which holds no memory here."""
        if self.capabilities.queue == "io":
            return ""
        name, _, index = self.config.device.partition(":")
        return f"{name}:{index or 0}" if name in ("cuda", "rocm", "tensorrt", "directml") else name

    def options(self, given: dict[str, Any] | None = None) -> AdapterOptions:
        """The effective options: this adapter's configured ones, overridden by `given`. pydantic.ValidationError."""
        return self.Options.model_validate({**self.config.options, **(given or {})})

    def models(self) -> list[dict[str, Any]]:
        """What the server behind it has: {"id", "sees", "note"} each (`lists_models`). Calls it over the network, for
        a few seconds at most: in a worker only. AdapterError."""
        raise NotImplementedError(f"{type(self).__name__} has no server")

    # -- life -------------------------------------------------------------------------------------------------------
    @abstractmethod
    def load(self) -> None:
        """Bring the weights to the device. Idempotent. Raises ModelUnavailable with the mend, or OutOfMemory."""

    @abstractmethod
    def unload(self) -> None:
        """Free the device memory. Idempotent."""

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.unload()

    @property
    def sees(self) -> bool:
        """Does the model, as it is configured, look at the image? Else only text is sent to it."""
        return self.capabilities.vision

    @property
    def label_set(self) -> LabelSet | None:
        """The labels that `Reply.scores` index. Available before `load` where a file says it; None without labels."""
        return None

    @property
    def provider(self) -> str:
        """What really computes ("CPUExecutionProvider", "cuda:0", an endpoint's host); empty before `load`."""
        return ""

    @property
    def batch_size(self) -> int:
        """How many images `infer` likes at once."""
        return 1

    # -- work -------------------------------------------------------------------------------------------------------
    @abstractmethod
    def prepare(self, image: ImageInput, request: Request) -> Any:
        """Decode and shape one image. CPU only, thread-safe, called before or beside `infer`.

        Raises AdapterError (permanent) when the image cannot be used.
        """

    @abstractmethod
    def infer(self, batch: Sequence[Any], request: Request) -> Iterator[Reply | AdapterError]:
        """The device call: exactly one Reply or AdapterError per item of `batch`, in order.

        Raises OutOfMemory for the whole batch; the engine halves it.
        """

    def infer_stream(
        self, items: Iterator[tuple[Handle, Any]], request: Request
    ) -> Iterator[tuple[Handle, Reply | AdapterError] | None]:
        """The same without batches, for models that answer many images at once (`streams`): (handle, what `prepare`
        made) in, (handle, answer) out as soon as there is one, exactly one for each item taken.

        `items` is asked for more whenever there is room, in the thread that iterates, and may end early: then what is
        in flight is still answered. While it waits it yields None at least once a second, so that its caller can see
        to other things; `close()` ends it at once and abandons what is in flight. Raises ModelUnavailable when no item
        can be answered at all.
        """
        raise NotImplementedError(f"{type(self).__name__} answers in batches")

    # -- selection among stored scores ------------------------------------------------------------------------------
    @classmethod
    def thresholds(
        cls, labels: LabelSet, probabilities: npt.NDArray[np.float32], options: AdapterOptions
    ) -> dict[str, float]:
        """Category → lowest probability that counts as a tag, for one image (MCut depends on the image).

        `probabilities` has one value per label (0 where below the stored floor). Categories left out keep all.
        Models with thresholds of single labels answer `Thresholds` with `cuts`.
        """
        return {}

    @classmethod
    def thresholds_vary(cls, options: AdapterOptions) -> bool:
        """Do `thresholds` look at the probabilities? Where they do not, they are asked once for many images when a
        policy is applied again. True is always right."""
        return True
