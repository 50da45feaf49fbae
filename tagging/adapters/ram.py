"""RAM and RAM++ (Recognize Anything): about 4,585 everyday tags of photographs, each with its own threshold.

From the published torch checkpoint (`ram_model.py`) or from an ONNX export that gives logits or probabilities. The
picture is squashed to the model's square, as in training. The original code cuts each tag at its threshold and forgets
the scores; here they are kept, so that a multiplier moves all thresholds with no new inference.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from . import batching, model_files, onnx_session
from .base import (
    About,
    AdapterOptions,
    Capabilities,
    LabelCuts,
    LabelSet,
    ModelUnavailable,
    OutOfMemory,
    Problem,
    Thresholds,
)
from .folders import Guess, ModelFolder
from .model_files import Found, Wanted
from .onnx_tagger import OVERHEAD, OnnxTagger, Sheet, TaggerOptions
from .preparation import IMAGENET, Framing, Norm
from .vlm import runtime

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "ram"
TAGS, CHINESE, CUTS = "ram_tag_list.txt", "ram_tag_list_chinese.txt", "ram_tag_list_threshold.txt"
WEIGHTS = (
    "ram_plus_swin_large_14m.pth",
    "ram_swin_large_14m.pth",
    "ram_plus*.safetensors",
    "ram*.safetensors",
    "ram_plus*.pth",
    "ram*.pth",
    "ram_plus*.onnx",
    "ram*.onnx",
)
#: Where the threshold file says nothing of a tag.
USUAL = 0.68
SOURCE = "https://github.com/xinyu1205/recognize-anything/tree/main/ram/data"
SIDE = 384


class RamTagger(OnnxTagger):
    """One RAM or RAM++ model from a local folder, a name in the models folders, or a hub id."""

    key = "ram"
    label = "RAM and RAM++ (Recognize Anything)"
    capabilities = Capabilities(
        outputs=frozenset({"tags"}),
        scores=True,
        images_per_call=onnx_session.DEVICE_BATCH,
        threshold_categories=("general",),
        quantizations=("none", "bf16", "int8", "fp16"),
        devices=("auto", "cpu", "cuda", "mps", *(d for d in onnx_session.DEVICES if d not in ("auto", "cpu", "cuda"))),
    )
    about = About(
        summary="General tags of photographs: objects, scenes, actions, attributes; about 4,585 of them in English or "
        "Chinese, a probability for each, cut at a threshold of its own.",
        weights="A folder, a name in IWTAG_MODELS_DIRS, or a hub id such as xinyu1205/recognize-anything-plus-model, "
        "with ram_plus_swin_large_14m.pth or ram_swin_large_14m.pth (or the same tensors as .safetensors, or an ONNX "
        "export ram*.onnx that gives logits). The English list and its thresholds are shipped (weights/ram); lists in "
        "the folder go before them. Chinese needs ram_tag_list_chinese.txt there. Checkpoints need torch (extra vlm).",
        licence="Apache-2.0, code and weights, as published by their authors (OPPO); the shipped lists too.",
        memory="Swin-L in 32 bits: an estimated 3 GB for RAM++ (its label embeddings are 480 MB), 2 GB for RAM; about "
        "half in bf16. Not measured: the published weights were not at hand.",
        tested="The graph on small random checkpoints of the published key layout, both kinds, through the file "
        "formats: the Swin part equals transformers' own to 1e-4, the decoder and the mixing of descriptions a plain "
        "numpy formulation; ONNX exports of the same graph equal it. Names and shapes follow the original repository. "
        "The published weights were not at hand, so that no real answer was compared.",
        notes=(
            "A tag whose published threshold is 1 is switched off by its authors and stays so.",
            "The authors' own ONNX export gives 0 and 1 instead of scores and is refused.",
            "Changing the language is a new run: it is another list of labels.",
        ),
    )
    preparation: ClassVar[str] = "ram 1: draft 2, white, squash, bilinear"
    load_options: ClassVar[frozenset[str]] = frozenset({"language"})
    hub_files = (*(name for name in WEIGHTS if "*" not in name), TAGS, CHINESE, CUTS)
    wanted = Wanted("A RAM model", (WEIGHTS,), ((TAGS,), (CHINESE,), (CUTS,)))
    output_names = ("logits", "probabilities", "probs", "scores")
    not_probabilities = "an export with logits or probabilities is expected."

    class Options(TaggerOptions):
        language: Literal["english", "chinese"] = Field(
            "english",
            title="Language",
            description="Of the tags. Chinese needs ram_tag_list_chinese.txt in the folder.",
        )
        threshold_multiplier: float = Field(
            1.0,
            ge=0.1,
            le=1.5,
            title="Threshold multiplier",
            description="Each tag's own threshold times this: below 1 more tags, above 1 fewer.",
            json_schema_extra={"selection": True, "group": "Thresholds"},
        )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._logits = True

    # -- cheap ------------------------------------------------------------------------------------------------------
    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        for name in WEIGHTS[:2]:
            if folder.has(name):
                return Guess(f"{name}, a published checkpoint of Recognize Anything", 95)
        weights = next((found for name in WEIGHTS[2:] for found in folder.matching(name)), "")
        if weights and (folder.has(TAGS) or weights.startswith(("ram_plus", "ram_swin"))):
            return Guess(f"{weights}, named as Recognize Anything's weights", 80)
        return None

    def check(self) -> list[Problem]:
        problems = super().check()
        try:
            found = self._files(download=False)
        except ModelUnavailable:
            return problems
        if found and self._is_torch(found):
            of_onnx = {*onnx_session.DEVICES} - {"auto", "cpu", "cuda"}
            problems = [p for p in problems if "Unknown device" not in p.message]
            problems += [p for p in runtime.missing_packages() if "torch" in p.message.partition("is")[0]]
            if self.config.device.partition(":")[0] in of_onnx:
                mend = "Use auto, cpu, cuda, cuda:N or mps."
                problems.append(Problem(f"A torch checkpoint does not run on {self.config.device!r}.", mend))
            else:
                problems += runtime.check_device(self.config.device)
        return problems

    def _is_torch(self, found: Found) -> bool:
        return found[WEIGHTS[0]].suffix != ".onnx"

    def _weights(self, found: Found) -> Path:
        chosen, torch_file = self.config.quantization, self._is_torch(found)
        if torch_file and chosen not in ("none", "bf16"):
            raise ModelUnavailable(
                f"A torch checkpoint has no {chosen} form. Set the quantization to 'none' or 'bf16'."
            )
        if not torch_file and chosen == "bf16":
            raise ModelUnavailable("An ONNX export has no bf16 form. Set the quantization to 'none', 'int8' or 'fp16'.")
        return found[WEIGHTS[0]] if torch_file else super()._weights(found)

    def memory_needed(self) -> int | None:
        try:
            found = self._files(download=False)
        except ModelUnavailable:
            return None
        if not found or not self._is_torch(found):
            return super().memory_needed()
        size = model_files.bytes_of(found[WEIGHTS[0]])
        if size is None:
            return None
        return (size // 2 if self.config.quantization == "bf16" else size) + 3 * OVERHEAD

    def read_sheet(self, found: Found) -> Sheet:
        language = cast(RamTagger.Options, self.options()).language
        english = read_lines(found.get(TAGS, SHIPPED / TAGS))
        names = english
        if language == "chinese":
            if CHINESE not in found:
                raise ModelUnavailable(
                    f"Chinese tags need {CHINESE} beside {found[WEIGHTS[0]].name}. Take it from {SOURCE}, or set the "
                    "language to 'english'."
                )
            names = read_lines(found[CHINESE])
            if len(names) != len(english):
                raise ModelUnavailable(f"{found[CHINESE]} has {len(names)} tags, {TAGS} has {len(english)}.")
        cuts = read_cuts(found.get(CUTS, SHIPPED / CUTS), len(names))
        try:
            labels = LabelSet(tuple(names), ("general",) * len(names), (), {"tags": cuts})
        except ValueError as error:
            raise ModelUnavailable(f"{found.get(TAGS, SHIPPED / TAGS)}: {error}.") from error
        return Sheet(labels, len(names))

    @property
    def label_file(self) -> Path:
        found = self._files(download=True) or {}
        return found.get(TAGS, SHIPPED / TAGS)

    # -- life -------------------------------------------------------------------------------------------------------
    def load(self) -> None:
        if self._model:
            return
        found = self._files(download=True)
        assert found is not None
        if not self._is_torch(found):
            super().load()
            return
        model = TorchRam(self._weights(found), self.config.device, self._read().outputs, self.config.quantization)
        self._ready = (_framing(model.side), IMAGENET)
        self._logits = True
        self._model = cast(Any, model)

    def input_of(self, found: Found, model: onnx_session.OnnxModel | None) -> tuple[Framing, Norm]:
        side = model.input_shape[-1] if model else SIDE
        return _framing(side if isinstance(side, int) else SIDE), IMAGENET

    def verify(self, found: Found, model: onnx_session.OnnxModel) -> None:
        """An export says in its numbers whether they are logits; zeros and ones are no scores at all."""
        if model.output_name == "logits":
            self._logits = True
            return
        side = self.input_of(found, model)[0].width
        grey = np.random.default_rng(0).integers(0, 255, (1, 3, side, side), dtype=np.uint8)
        answer = model.run(IMAGENET.floats(grey))  # the model's own conversion is not known yet
        if np.isin(answer, (0.0, 1.0)).all():
            raise ModelUnavailable(
                f"{model.path} answers 0 and 1 instead of scores: the thresholds are inside it. "
                "Export the logits, or take the torch checkpoint."
            )
        self._logits = bool(answer.min() < 0 or answer.max() > 1)

    def activation(self, output: str) -> str:
        return "sigmoid" if self._logits else "none"

    # -- selection among stored scores ------------------------------------------------------------------------------
    @classmethod
    def thresholds(
        cls, labels: LabelSet, probabilities: npt.NDArray[np.float32], options: AdapterOptions
    ) -> dict[str, float]:
        times = cast(RamTagger.Options, options).threshold_multiplier
        published = labels.published.get("tags", [])

        def values() -> Sequence[float]:
            return [value if value >= 1 else min(1.0, value * times) for value in published]

        return Thresholds({"general": USUAL * times}, LabelCuts.cached(labels, ("ram", times), values))

    @classmethod
    def thresholds_vary(cls, options: AdapterOptions) -> bool:
        return False


def _framing(side: int) -> Framing:
    return Framing("squash", side, side, Image.Resampling.BILINEAR)


def read_lines(path: Path) -> list[str]:
    """One tag a line. ModelUnavailable names the file and the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error}). Take it from {SOURCE}.") from error
    empty = next((i for i, line in enumerate(lines, 1) if not line.strip()), None)
    if empty is not None or not lines:
        raise ModelUnavailable(f"{path}, line {empty or 1}: a tag is missing. Take it from {SOURCE}.")
    return [line.strip() for line in lines]


def read_cuts(path: Path, count: int) -> list[float]:
    """One threshold a line, as many as tags; tags after the shipped list's end get the usual one. ModelUnavailable."""
    found: list[float] = []
    for i, line in enumerate(read_lines(path), 1):
        try:
            value = float(line)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise ModelUnavailable(f"{path}, line {i}: {line!r} is no threshold from 0 to 1. Take it from {SOURCE}.")
        found.append(value)
    if len(found) == count:
        return found
    if path.parent == SHIPPED:  # a list of somebody's own: the shipped thresholds are of other tags
        return [USUAL] * count
    raise ModelUnavailable(f"{path} has {len(found)} thresholds for {count} tags. Take both from one place.")


class TorchRam:
    """A loaded checkpoint, with the face of an OnnxModel."""

    output_name = "logits"

    def __init__(self, path: Path, device: str, labels: int, quantization: str) -> None:
        """ModelUnavailable with the mend, or OutOfMemory."""
        torch = _torch()
        from . import ram_model

        self.path = path
        self._torch = torch
        self.device = runtime.choose_device(torch, device)
        try:
            module = ram_model.build(_checkpoint(torch, path), labels)
            self._dtype = torch.bfloat16 if quantization == "bf16" else torch.float32
            self._module: Any = module.to(device=self.device, dtype=self._dtype)
        except ram_model.WrongCheckpoint as error:
            raise ModelUnavailable(f"{path}: {error}. Take the file and its tag list from one place.") from error
        except ModelUnavailable:
            raise
        except Exception as error:
            if runtime.is_out_of_memory(error):
                raise OutOfMemory(f"No memory on {self.device} to load {path.name}.") from error
            raise
        self.side = module.shape.side
        self._sizes = batching.finder(("ram", str(path), self.device, quantization))

    @property
    def told_provider(self) -> str:
        return self.device

    @property
    def batch_size(self) -> int:
        return 4 if self.device == "cpu" else self._sizes.size

    def run(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, 3, side, side) uint8 RGB → logits (n, labels). OutOfMemory, AdapterError."""
        torch = self._torch
        start = time.perf_counter()
        try:
            with runtime.memory_errors(f"{len(batch)} images"), torch.inference_mode():
                pixels = torch.from_numpy(IMAGENET.floats(batch)).to(device=self.device, dtype=self._dtype)
                found = self._module(pixels).float().cpu().numpy()
        except OutOfMemory:
            self._sizes.full(len(batch))
            raise
        self._sizes.took(len(batch), time.perf_counter() - start)
        return cast(npt.NDArray[np.float32], found)

    def close(self) -> None:
        """Free the device memory."""
        self._module = None
        if self.device.startswith("cuda"):
            self._torch.cuda.empty_cache()


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ModelUnavailable(
            "torch is not installed. Install the extra for it: "
            ".venv/bin/pip install '.[vlm]' in iwtag's folder, or take an ONNX export."
        ) from error
    return torch


def _checkpoint(torch: Any, path: Path) -> Any:
    """The stored tensors, without running anything that a pickle might hold. ModelUnavailable."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelUnavailable(
            f"{path} holds more than tensors and is not opened, as that could run code. Save its tensors as "
            ".safetensors on a machine where you trust it."
        ) from error
    except Exception as error:
        if runtime.is_out_of_memory(error):
            raise OutOfMemory(f"No memory to read {path.name}.") from error
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnavailable(
            f"{path} is no checkpoint that can be read ({text}). Download the file again."
        ) from error
