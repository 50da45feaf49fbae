"""What can be said of a local vision-language model before it is loaded: ready or not, identity, need of memory.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from ..base import Adapter, AdapterConfig, Capabilities, ModelUnavailable, Problem
from ..folders import Guess, ModelFolder
from . import memory, processors, runtime, source
from .options import LOAD_OPTIONS, LoadOptions


def capabilities(**changes: Any) -> Capabilities:
    """What most families can do, with the changes of one."""
    usual: dict[str, Any] = {
        "outputs": frozenset({"caption", "tags"}),
        "prompt": True,
        "own_prompt": True,
        "quantizations": runtime.QUANTIZATIONS,
        "devices": runtime.DEVICES,
        "seed": True,
    }
    return Capabilities(**{**usual, **changes})


class ColdModel(Adapter):
    """The part of an adapter that forms, the API and the engine ask without a device."""

    preparation: ClassVar[str] = "vlm 1: draft 2, white, longest side to max_image_side, bicubic; the model's processor"
    load_options: ClassVar[frozenset[str]] = LOAD_OPTIONS
    hub_files = tuple(source.PATTERNS)
    #: `model_type` of the configurations that this family serves; empty: any that has no family of its own.
    model_types: ClassVar[frozenset[str]] = frozenset()
    #: Asked when the prompt is empty; part of the identity, so that another release with other words asks anew.
    default_prompt: ClassVar[str] = ""

    def __init__(self, config: AdapterConfig | None = None) -> None:
        super().__init__(config)
        self._folder: source.Folder | None = None

    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        kind = folder.model_type
        if kind and kind in cls.model_types and folder.has("*.safetensors"):
            return Guess(f"config.json names the model type {kind!r}", 85)
        return None

    @property
    def own_prompt(self) -> str:
        """What this model is asked when the prompt is empty."""
        return self.default_prompt

    @property
    def load_settings(self) -> LoadOptions:
        """The adapter's own options. ModelUnavailable when a stored one is not accepted any more."""
        try:
            return cast(LoadOptions, self.options())
        except ValueError as error:
            raise ModelUnavailable(f"The stored options of this {self.label} are not valid: {error}") from error

    def check(self) -> list[Problem]:
        found = runtime.missing_packages() + runtime.check_device(self.config.device)
        found += runtime.check_quantization(self.config.quantization, self.config.device)
        try:
            folder = self._find(download=False)
            if folder is None:
                found.append(
                    Problem(
                        f"{self.config.source} is not on this machine yet.",
                        f"It is downloaded at its first use. Without a connection: {source.how_to_get(self.config)}",
                        fatal=False,
                    )
                )
                return found
            found += self._check_folder(folder)
        except ModelUnavailable as error:
            found.append(Problem(error.message, "Correct the adapter's source or options, or put the files there."))
        return found

    def _check_folder(self, folder: source.Folder) -> list[Problem]:
        found = []
        if problem := self.wrong_family(folder):
            found.append(problem)
        trusted = self.load_settings.trust_remote_code
        if folder.remote_code and not trusted and self.needs_remote_code(folder):
            found.append(
                Problem(
                    f"{folder.model or folder.path.name} brings Python of its own and does not work without it.",
                    "Read that code; if you trust it, pin the revision and tick 'Run code that comes with the model'.",
                )
            )
        if trusted:
            found.append(
                Problem(
                    "Python that comes with the model is run with all rights of iwtag.",
                    "Pin the revision, and untick it where the model does not need it.",
                    fatal=False,
                )
            )
        if self.config.device == "cpu" and (free := memory.free_ram()):
            need = self.estimate(dtype="fp32")
            if need and need.total() > free:
                text = f"{need.text()} are needed, {memory.gigabytes(free)} are free."
                found.append(Problem(f"It may not fit: {text}", runtime.less_memory("cpu"), fatal=False))
        return found

    def needs_remote_code(self, folder: source.Folder) -> bool:
        """Is this a model that the library itself does not know? Judged without importing it: by the family's list."""
        return bool(self.model_types) and str(folder.config.get("model_type")) not in self.model_types

    def wrong_family(self, folder: source.Folder) -> Problem | None:
        """A problem when the model's configuration belongs to another adapter."""
        kind = str(folder.config.get("model_type", ""))
        if not kind:
            return Problem(f"{folder.path / source.CONFIG} names no model_type.", "Download the model again.")
        if self.model_types and kind not in self.model_types:
            owner = processors.owner_of(kind)
            return Problem(
                f"This is a {kind!r} model, not one of the family {self.label}.", f"Use the adapter {owner!r}."
            )
        return None

    def estimate(self, *, dtype: str = "bf16", batch_tokens: int = 300) -> memory.Estimate | None:
        """The memory it will need, for forms; None while a hub model is not here. ModelUnavailable (broken files)."""
        folder = self._find(download=False)
        if folder is None:
            return None
        chosen = self.load_settings.dtype
        named = dtype if chosen == "auto" else chosen
        return memory.estimate(folder, dtype=named, quantization=self.config.quantization, new_tokens=batch_tokens)

    def identity(self) -> dict[str, Any]:
        folder = self._find(download=True)
        assert folder is not None
        code = self.load_settings.trust_remote_code
        model = (
            {"id": folder.model, "revision": folder.revision}
            if folder.model
            else {"files_sha256": source.folder_digest(folder, code=code)}
        )
        return {
            **model,
            "quantization": self.config.quantization,
            "chat_template": source.digest(source.chat_template(folder)),
            **({"own_prompt": self.own_prompt} if self.own_prompt else {}),
        }

    def _find(self, *, download: bool) -> source.Folder | None:
        if self._folder is None:
            code = bool(self.config.options.get("trust_remote_code"))
            self._folder = source.find(self.config, download=download, code=code)
        return self._folder

    def memory_needed(self) -> int | None:
        try:
            found = self.estimate(dtype="fp32" if self.config.device == "cpu" else "bf16")
        except ModelUnavailable:
            return None
        return found.total() if found else None
