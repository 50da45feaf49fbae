"""Captioners older than chat models: BLIP, BLIP-2, InstructBLIP, Kosmos-2, GIT and ViT-GPT2."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import Field

from ..base import About, AdapterOptions, Capabilities, Reply, Request, ScoredTag
from . import generation, processors, source
from .batches import Answer, Prepared
from .cold import capabilities
from .family import VisionLanguage
from .options import CaptionerOptions, ForcedOptions, LoadOptions, SamplingOptions, StartOptions


class Blip(VisionLanguage):
    """BLIP goes on from a text, BLIP-2 also answers "Question: … Answer:", InstructBLIP follows instructions."""

    key: ClassVar[str] = "blip"
    label: ClassVar[str] = "BLIP, BLIP-2, InstructBLIP"
    capabilities: ClassVar[Capabilities] = capabilities(vocabulary=True)
    about = About(
        summary="Short captions. BLIP goes on from the prompt's words; BLIP-2 also answers 'Question: … Answer:'; "
        "InstructBLIP follows an instruction.",
        weights="Salesforce/blip-image-captioning-base and -large, Salesforce/blip2-opt-2.7b, blip2-flan-t5-xl, "
        "Salesforce/instructblip-vicuna-7b and others of these kinds, or a folder of such a model.",
        licence="BLIP: BSD-3-Clause. BLIP-2 and InstructBLIP: MIT and the licence of the language model inside "
        "(OPT, Vicuna).",
        memory="BLIP: 0.5 to 1 GB. BLIP-2 with 2.7 billion weights: about 8 GB in fp16; InstructBLIP 7B: about 16 GB. "
        "Estimates.",
        tested="Tiny random checkpoints of BLIP, BLIP-2 (OPT) and InstructBLIP (T5): batches, beginnings, "
        "vocabulary. No "
        "published weights were at hand.",
        notes=("BLIP counts positions with padding, so that only prompts of equal length share a call.",),
    )
    model_types: ClassVar[frozenset[str]] = frozenset({"blip", "blip-2", "instructblip"})
    captioner: ClassVar[bool] = True

    class Options(CaptionerOptions):
        """BLIP has no system words and no thoughts."""

    @property
    def _kind(self) -> str:
        return str(self._folder.config.get("model_type", "")) if self._folder else ""

    @property
    def pads(self) -> bool:  # type: ignore[override]  # BLIP counts positions from the left end, padding included
        return self._kind != "blip"

    def adjust(self, model: Any, processor: Any) -> None:
        if self._kind == "blip":
            text = model.config.text_config
            for part in (model, model.text_decoder):
                part.generation_config.eos_token_id = text.sep_token_id
                part.generation_config.pad_token_id = text.pad_token_id

    def render(self, processor: Any, request: Request, prompt: str, start: str) -> tuple[str, bool]:
        asked = processors.without_tokens(processor, prompt.strip())
        if not asked and self._kind == "instructblip":
            asked = "Describe the image in detail."
        if not start:
            return asked, False
        if self._model is not None and generation.is_encoder_decoder(self._model):
            return asked, False  # its answer begins anew: the words are put before it afterwards
        return f"{asked} {start}".strip(), True

    def inputs(self, processor: Any, text: str, picture: Any, options: AdapterOptions) -> dict[str, Any]:
        found = dict(processor(text=[text], images=[picture], return_tensors="pt"))
        found.pop("token_type_ids", None)
        return found

    def new_tokens(self, row: list[int], prompt: list[int]) -> list[int]:
        if self._kind == "blip":  # [DEC] in place of [CLS], and no [SEP]
            return row[len(prompt) - 1 :]
        return super().new_tokens(row, prompt)


class Kosmos2(VisionLanguage):
    """Kosmos-2 says where things are; the places are cut out of the caption, the phrases they belong to are tags."""

    key: ClassVar[str] = "kosmos2"
    label: ClassVar[str] = "Kosmos-2"
    about = About(
        summary="A caption, and as tags the things in it that the model can point at. Places are cut out.",
        weights="microsoft/kosmos-2-patch14-224, or a folder of it.",
        licence="MIT.",
        memory="1.7 billion weights: about 4 GB in fp16. Estimate.",
        tested="A tiny random checkpoint through loading and generation; the cutting out of places on written examples "
        "of the published form. No published weights were at hand.",
        notes=("'An image of' gives a short caption, 'Describe this image in detail:' a long one.",),
    )
    capabilities: ClassVar[Capabilities] = capabilities()
    model_types: ClassVar[frozenset[str]] = frozenset({"kosmos-2"})
    default_prompt: ClassVar[str] = "An image of"
    captioner: ClassVar[bool] = True

    class Options(ForcedOptions, StartOptions, SamplingOptions, LoadOptions):
        """Kosmos-2 goes on from its prompt."""

        entities: bool = Field(
            True,
            title="Phrases as tags",
            description="The things that the model points at become tags, beside the caption. Off: a caption alone.",
        )

    def render(self, processor: Any, request: Request, prompt: str, start: str) -> tuple[str, bool]:
        text, prefilled = super().render(processor, request, prompt, start)
        grounded = getattr(request.options, "entities", True)
        return ("<grounding>" + text if grounded else text), prefilled

    def call(self, inputs: dict[str, Any], plan: generation.Plan) -> Any:
        # its own `generate` hands every setting to the picture's encoder as well
        picture = self._model.get_image_features(inputs.pop("pixel_values"), return_dict=True).pooler_output
        return self._model.text_model.generate(image_embeds=picture, **inputs, **plan.arguments)

    def reply(self, item: Prepared, answer: Answer, options: AdapterOptions) -> Reply:
        found = super().reply(item, answer, options)
        raw = answer.text
        caption, names = without_places(raw)
        found.text, found.caption = raw.strip(), caption
        if getattr(options, "entities", True):
            found.tags = tuple(ScoredTag(name) for name in names)
        return found


_PHRASE = re.compile(r"<phrase>(.*?)</phrase>", re.DOTALL)
_MARKS = re.compile(r"</?(?:phrase|grounding|image|doc|chunk|line)>|</delimiter_of_multi_objects/?>")
_OBJECT = re.compile(r"<object>.*?(?:</object>|\Z)|<patch_index_\d+>|</?object>", re.DOTALL)


def without_places(text: str) -> tuple[str, list[str]]:
    """A grounded caption without its marks, and the phrases that were marked, each once."""
    names = dict.fromkeys(" ".join(_OBJECT.sub("", name).split()) for name in _PHRASE.findall(text))
    plain = _MARKS.sub(" ", _OBJECT.sub(" ", text))
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(plain.split())), [name for name in names if name]


class Git(VisionLanguage):
    """GIT, whose question models take a prompt, and encoder-decoder captioners such as ViT-GPT2, which take none."""

    key: ClassVar[str] = "git"
    label: ClassVar[str] = "GIT, ViT-GPT2"
    about = About(
        summary="Short captions. GIT models for questions take the question as prompt; ViT-GPT2 and other pairs of an "
        "encoder and a decoder take none.",
        weights="microsoft/git-base-coco, microsoft/git-large-coco, nlpconnect/vit-gpt2-image-captioning, or a folder.",
        licence="GIT: MIT. ViT-GPT2: Apache-2.0.",
        memory="0.4 to 1.6 GB in fp32. Estimate.",
        tested="Tiny random checkpoints of GIT and ViT-GPT2: batches, beginnings. No published weights were at hand.",
    )
    capabilities: ClassVar[Capabilities] = capabilities(outputs=frozenset({"caption"}))
    model_types: ClassVar[frozenset[str]] = frozenset({"git", "vision-encoder-decoder"})
    captioner: ClassVar[bool] = True
    pads: ClassVar[bool] = False

    class Options(ForcedOptions, StartOptions, SamplingOptions, LoadOptions):
        """GIT has no system words, vocabulary or thoughts."""

    @property
    def _pair(self) -> bool:
        """A picture's encoder and a text's decoder, with an image processor and a tokenizer of their own?"""
        return bool(self._folder and self._folder.config.get("model_type") == "vision-encoder-decoder")

    def load_processor(self, transformers: Any, folder: source.Folder, *, trust: bool) -> Any:
        if not self._pair:
            return super().load_processor(transformers, folder, trust=trust)
        path, arguments = str(folder.path), {"trust_remote_code": trust, "local_files_only": True}
        pair = _Pair()
        pair.image_processor = transformers.AutoImageProcessor.from_pretrained(path, **arguments)
        pair.tokenizer = transformers.AutoTokenizer.from_pretrained(path, **arguments)
        return pair

    def render(self, processor: Any, request: Request, prompt: str, start: str) -> tuple[str, bool]:
        asked = "" if self._pair else processors.without_tokens(processor, prompt.strip())
        return f"{asked} {start}".strip(), bool(start)

    def inputs(self, processor: Any, text: str, picture: Any, options: AdapterOptions) -> dict[str, Any]:
        pictures = processor.image_processor(images=[picture], return_tensors="pt")
        tokenizer = processor.tokenizer
        first = tokenizer.bos_token_id if self._pair else tokenizer.cls_token_id
        ids = [first, *tokenizer(text, add_special_tokens=False)["input_ids"]] if text else [first]
        tokens = self._torch.tensor([ids])
        return {"pixel_values": pictures["pixel_values"], "input_ids": tokens, "attention_mask": tokens * 0 + 1}

    def call(self, inputs: dict[str, Any], plan: generation.Plan) -> Any:
        if self._pair:
            inputs["decoder_input_ids"] = inputs.pop("input_ids")
            inputs["decoder_attention_mask"] = inputs.pop("attention_mask")
            plan.anew = False  # the row begins with what was given
        return super().call(inputs, plan)


class _Pair:
    """An image processor and a tokenizer that were saved side by side."""

    image_processor: Any
    tokenizer: Any
