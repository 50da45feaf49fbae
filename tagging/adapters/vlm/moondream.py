"""Moondream: not part of transformers. Its own Python comes with the weights and is run only when that is ticked.

That code has one call for a picture's caption and one for a question, one picture at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, cast

from PIL import Image
from pydantic import Field

from .. import preparation
from ..base import (
    About,
    AdapterError,
    AdapterOptions,
    Capabilities,
    ImageInput,
    ModelUnavailable,
    Problem,
    Reply,
    Request,
)
from . import runtime, source
from .batches import Prepared
from .cold import capabilities
from .decoding import row_seed
from .family import VisionLanguage
from .options import LoadOptions

_MEND = "Read that code; if you trust it, pin the revision (a commit) and tick 'Run code that comes with the model'."


class Moondream(VisionLanguage):
    """Moondream 2 and later, by its own code."""

    key: ClassVar[str] = "moondream"
    label: ClassVar[str] = "Moondream (its own code)"
    about = About(
        summary="Captions of three lengths and answers to questions by a small model.",
        weights="vikhyatk/moondream2 at a pinned revision of 2025 with its .py files, or a folder of it.",
        licence="Apache-2.0 (Moondream 2); Moondream 3 has a licence of its own.",
        memory="1.9 billion weights: about 5 GB in bf16. Estimate.",
        tested="Only against a stand-in with the same calls (caption, query): the model's code is not part of "
        "transformers "
        "and was not at hand, so that nothing is known of how it runs with this transformers.",
        notes=(
            "Its Python runs with all rights of iwtag, and only when that is ticked.",
            "One picture at a time: its code has no batches. No vocabulary, beams or stop strings.",
        ),
    )
    capabilities: ClassVar[Capabilities] = capabilities(quantizations=("none",))
    model_types: ClassVar[frozenset[str]] = frozenset({"moondream1", "moondream2", "moondream3", "moondream"})

    class Options(LoadOptions):
        """What Moondream's own calls take."""

        length: Literal["short", "normal", "long"] = Field(
            "normal",
            title="Length of caption",
            description="Used when the prompt is empty; a prompt is asked as a question.",
        )
        max_new_tokens: int = Field(300, ge=1, le=4096, title="Most new tokens", description="The answer is cut there.")
        temperature: float = Field(
            0.0, ge=0, le=2, title="Temperature", description="0 always takes the likeliest word."
        )
        top_p: float = Field(
            1.0,
            gt=0,
            le=1,
            title="Top-p",
            description="Only the likeliest words that together reach this probability.",
            json_schema_extra={"advanced": True},
        )
        seed: int = Field(
            0,
            ge=0,
            le=2**32 - 1,
            title="Seed",
            description="With a temperature, the same seed gives the same answer.",
            json_schema_extra={"advanced": True},
        )

    hub_files = (*source.PATTERNS, "*.py")

    def needs_remote_code(self, folder: source.Folder) -> bool:
        return True

    def wrong_family(self, folder: source.Folder) -> Problem | None:
        found = super().wrong_family(folder)
        if found is None and not folder.remote_code:
            return Problem(
                f"{folder.model or folder.path.name} comes without the Python that Moondream needs.",
                "Download the repository's .py files too.",
            )
        return found

    def load(self) -> None:
        if self._model is None and not self.load_settings.trust_remote_code:
            raise ModelUnavailable(f"Moondream runs only with the code that comes with it. {_MEND}")
        super().load()

    def load_processor(self, transformers: Any, folder: source.Folder, *, trust: bool) -> Any:
        return None

    def load_model(self, transformers: Any, folder: source.Folder, arguments: dict[str, Any]) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(str(folder.path), **arguments)
        if not callable(getattr(model, "caption", None)) or not callable(getattr(model, "query", None)):
            raise ModelUnavailable(
                f"{folder.model or folder.path.name} has no caption and query calls: it is too old or too new. "
                "Set the revision to one of 2025."
            )
        return model

    def forget_settings(self, transformers: Any, model: Any, processor: Any) -> None:
        """Its code does not use transformers' generation."""

    @property
    def batch_size(self) -> int:
        return 2 if self._model is not None else 1  # one at a time; two, so that the next one is prepared meanwhile

    def prepare(self, image: ImageInput, request: Request) -> Prepared:
        self._must_be_loaded()
        picture = preparation.fitted(image, cast(LoadOptions, request.options).max_image_side)
        return Prepared(image.name, image.sha256, request, request.prompt.strip(), {}, image=picture)

    def infer(self, batch: Sequence[Prepared], request: Request) -> Iterator[Reply | AdapterError]:
        self._must_be_loaded()
        for item in batch:
            yield self._one(item, request.options)

    def _one(self, item: Prepared, options: Any) -> Reply:
        torch = self._torch
        settings = {"max_tokens": options.max_new_tokens, "temperature": options.temperature, "top_p": options.top_p}
        began = time.perf_counter()
        with runtime.memory_errors(item.name), torch.inference_mode():
            torch.manual_seed(row_seed(options.seed, item.request.sample, item.sha256))
            picture = cast(Image.Image, item.image)
            if item.prompt:
                text = self._model.query(picture, item.prompt, settings=settings)["answer"]
            else:
                text = self._model.caption(picture, length=options.length, settings=settings)["caption"]
        text = str(text).strip()
        return Reply(caption=None if item.prompt else text, text=text, seconds=time.perf_counter() - began)

    def render(self, processor: Any, request: Request, prompt: str, start: str) -> tuple[str, bool]:
        return prompt, False

    def inputs(self, processor: Any, text: str, picture: Any, options: AdapterOptions) -> dict[str, Any]:
        return {}
