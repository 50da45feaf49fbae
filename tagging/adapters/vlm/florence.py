"""Florence-2 and the PromptGen models trained from it: one task each, chosen from a list; the answer is text.

Region tasks (boxes, polygons) answer with places, not with tags or a caption: they are refused by name.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field

from ..base import About, AdapterError, AdapterOptions, Capabilities, Problem, Reply, Request
from ..folders import Guess, ModelFolder
from . import source
from .batches import Answer, Prepared
from .cold import capabilities
from .family import VisionLanguage
from .options import ForcedOptions, LoadOptions, SamplingOptions

#: Tasks of the published models whose answer is places.
REGION_TASKS = (
    "OD", "DENSE_REGION_CAPTION", "REGION_PROPOSAL", "CAPTION_TO_PHRASE_GROUNDING", "OPEN_VOCABULARY_DETECTION",
    "REFERRING_EXPRESSION_SEGMENTATION", "REGION_TO_SEGMENTATION", "REGION_TO_CATEGORY", "REGION_TO_DESCRIPTION",
    "REGION_TO_OCR", "OCR_WITH_REGION",
)  # fmt: skip
_PLACES = re.compile(r"<loc_\d+>|</?(?:poly|sep|and|od|ocr|cap|ncap|dcap|seg|grounding|proposal|region_\w+)>")
CONVERTER = "transformers' convert_florence2_original_pytorch_to_hf.py"


class Florence2(VisionLanguage):
    """Florence-2 in the layout of transformers."""

    key: ClassVar[str] = "florence2"
    label: ClassVar[str] = "Florence-2"
    about = About(
        summary="Captions of three lengths, or the text in the picture, by a task from a list. Region tasks are "
        "refused.",
        weights="florence-community/Florence-2-base, -base-ft, -large, -large-ft (the layout of transformers), or a "
        "folder. The authors' own repositories need their code of 2024 and must be converted.",
        licence="MIT.",
        memory="0.23 and 0.77 billion weights: about 1 and 2 GB in fp16. Estimate.",
        tested="A tiny random checkpoint: tasks, batches, refusals. No published weights were at hand.",
        notes=("It takes no free prompt: leave it empty, or write a task such as <CAPTION>.",),
    )
    capabilities: ClassVar[Capabilities] = capabilities(outputs=frozenset({"caption"}), prompt=False, own_prompt=False)
    model_types: ClassVar[frozenset[str]] = frozenset({"florence2"})
    card_dtype: ClassVar[str] = "fp16"
    captioner: ClassVar[bool] = True
    pads: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("CAPTION", "DETAILED_CAPTION", "MORE_DETAILED_CAPTION", "OCR")
    #: Tasks whose answer is a list of tags.
    tag_tasks: ClassVar[frozenset[str]] = frozenset()

    class Options(ForcedOptions, SamplingOptions, LoadOptions):
        """Florence-2 takes a task and no other words."""

        task: Literal["CAPTION", "DETAILED_CAPTION", "MORE_DETAILED_CAPTION", "OCR"] = Field(
            "MORE_DETAILED_CAPTION",
            title="Task",
            description="What it answers: a short, a longer or a long caption, or the text in the picture.",
            json_schema_extra={
                "labels": {
                    "CAPTION": "caption",
                    "DETAILED_CAPTION": "detailed caption",
                    "MORE_DETAILED_CAPTION": "more detailed caption",
                    "OCR": "text in the picture",
                }
            },
        )

    def wrong_family(self, folder: source.Folder) -> Problem | None:
        vision = folder.config.get("vision_config") or {}
        if folder.config.get("model_type") == "florence2" and (
            vision.get("model_type") == "davit" or folder.remote_code
        ):
            return Problem(
                f"{folder.model or folder.path.name} is in the layout of its authors, which needs their code of 2024.",
                f"Use a converted model (florence-community/Florence-2-…), or convert it with {CONVERTER}.",
            )
        return super().wrong_family(folder)

    def task(self, request: Request) -> str:
        """The task token. A prompt may be one; AdapterError names the tasks when it is anything else."""
        words = request.prompt.strip()
        chosen = words.strip("<>") if words else str(getattr(request.options, "task", ""))
        if chosen in self.tasks:
            return f"<{chosen}>"
        known = ", ".join(f"<{task}>" for task in self.tasks)
        if chosen in REGION_TASKS:
            text = f"<{chosen}> answers with places in the picture, which iwtag does not keep. Use one of {known}."
        else:
            text = f"{self.label} takes no free words as a prompt. Leave the prompt empty, or use one of {known}."
        raise AdapterError(text, permanent=True)

    def render(self, processor: Any, request: Request, prompt: str, start: str) -> tuple[str, bool]:
        return self.task(request), False

    def clean(self, text: str, options: AdapterOptions) -> str:
        return " ".join(_PLACES.sub(" ", text).split())

    def reply(self, item: Prepared, answer: Answer, options: AdapterOptions) -> Reply:
        found = super().reply(item, answer, options)
        if self.task(item.request).strip("<>") in self.tag_tasks:
            found.caption = None  # the policy reads tags from the text
        return found


class PromptGen(Florence2):
    """Florence-2 trained to write prompts and tags for image generators."""

    key: ClassVar[str] = "promptgen"
    label: ClassVar[str] = "Florence-2 PromptGen"
    about = About(
        summary="Tags, captions, composition or mixtures of them, made for training image generators.",
        weights="A PromptGen v1.5 or v2 model (MiaoshouAI) converted to the layout of transformers, in a folder.",
        licence="MIT.",
        memory="As Florence-2: about 1 and 2 GB in fp16. Estimate.",
        tested="The tasks on a tiny random Florence-2 checkpoint. No published weights were at hand, and conversion of "
        "the published repositories was not tried.",
        notes=("Tags come as text, which the policy's parse step reads.",),
    )
    capabilities: ClassVar[Capabilities] = capabilities(prompt=False, own_prompt=False)
    tasks: ClassVar[tuple[str, ...]] = (
        "GENERATE_TAGS", "CAPTION", "DETAILED_CAPTION", "MORE_DETAILED_CAPTION", "ANALYZE", "MIXED_CAPTION",
        "MIXED_CAPTION_PLUS",
    )  # fmt: skip
    tag_tasks: ClassVar[frozenset[str]] = frozenset({"GENERATE_TAGS"})

    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        found = super().recognises(folder)
        if found and "promptgen" in str(folder.path).lower():
            return Guess("a Florence-2 whose folder is named PromptGen", 92)
        return None

    class Options(ForcedOptions, SamplingOptions, LoadOptions):
        """PromptGen takes a task and no other words."""

        task: Literal[
            "GENERATE_TAGS",
            "CAPTION",
            "DETAILED_CAPTION",
            "MORE_DETAILED_CAPTION",
            "ANALYZE",
            "MIXED_CAPTION",
            "MIXED_CAPTION_PLUS",
        ] = Field(
            "MORE_DETAILED_CAPTION",
            title="Task",
            description="Tags, captions of three lengths, the composition, or a caption mixed with tags.",
            json_schema_extra={
                "labels": {
                    "GENERATE_TAGS": "tags",
                    "CAPTION": "caption",
                    "DETAILED_CAPTION": "detailed caption",
                    "MORE_DETAILED_CAPTION": "more detailed caption",
                    "ANALYZE": "composition",
                    "MIXED_CAPTION": "caption mixed with tags",
                    "MIXED_CAPTION_PLUS": "caption mixed with tags and composition",
                }
            },
        )
