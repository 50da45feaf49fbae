"""Processors of transformers: found, built also where torchvision is missing, and what may stand in a prompt."""

from __future__ import annotations

from typing import Any

from ..base import ModelUnavailable
from .source import Folder, chat_template

#: model_type → key of the adapter that knows the family's own prompt and output rules.
OWNERS = {
    "florence2": "florence2",
    "blip": "blip",
    "blip-2": "blip",
    "instructblip": "blip",
    "kosmos-2": "kosmos2",
    "git": "git",
    "vision-encoder-decoder": "git",
    "moondream1": "moondream",
    "moondream": "moondream",
    "moondream2": "moondream",
}
#: Families of the library whose generating class is listed as a plain language model.
_PLAIN = frozenset({"phi4_multimodal"})
#: Markers of a picture in prompts, beside the processor's own.
_MARKS = (
    "<image>", "<|image|>", "<|image_pad|>", "<|image_1|>", "<|vision_start|>", "<|vision_end|>", "[IMG]",
    "<start_of_image>", "<image_soft_token>", "<IMG_CONTEXT>", "<ImageHere>",
)  # fmt: skip


def owner_of(model_type: str) -> str:
    """The key of the adapter for a model type."""
    return OWNERS.get(model_type, "vlm")


def tokenizer_of(processor: Any) -> Any:
    return getattr(processor, "tokenizer", processor)


def image_tokens(processor: Any) -> tuple[str, ...]:
    """Markers of a picture that this processor knows, its own first."""
    tokenizer = tokenizer_of(processor)
    own = [
        getattr(holder, name, None)
        for holder, name in (
            (processor, "boi_token"),
            (processor, "image_token"),
            (tokenizer, "image_token"),
            (processor, "fake_image_token"),
        )
    ]
    return tuple(dict.fromkeys(str(token) for token in own if isinstance(token, str) and token))


def pictures_in(processor: Any, text: str) -> int:
    """How many pictures a text for this processor has, by the marker that it uses; -1 when it knows none."""
    counts = [text.count(token) for token in image_tokens(processor)]
    return next((count for count in counts if count), 0) if counts else -1


def without_tokens(processor: Any, text: str) -> str:
    """A person's words without markers of pictures: each would be counted as another picture."""
    for token in (*image_tokens(processor), *_MARKS):
        text = text.replace(token, " ")
    return text


def load(transformers: Any, folder: Folder, *, trust: bool) -> Any:
    """The model's processor, padding on the left. Raises what transformers raises, ModelUnavailable with a mend."""
    path = str(folder.path)
    arguments = {"trust_remote_code": trust, "local_files_only": True}
    try:
        processor = transformers.AutoProcessor.from_pretrained(path, **arguments)
    except (ImportError, AttributeError, ValueError, OSError) as error:
        if not any(word in str(error).lower() for word in ("torchvision", "video processor")):
            raise
        processor = without_video(transformers, folder, arguments)
    tokenizer = tokenizer_of(processor)
    if not hasattr(tokenizer, "decode"):
        raise ModelUnavailable(
            f"{folder.model or folder.path.name} has no processor of pictures and text. Download its tokenizer and "
            "preprocessor files too, or choose the adapter for its family."
        )
    tokenizer.padding_side = "left"
    if getattr(tokenizer, "pad_token", None) is None and getattr(tokenizer, "eos_token", None) is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


class NoVideo:
    """Stands for the video processor, which needs torchvision and which pictures do not."""

    num_frames = 1
    fps = 1


def without_video(transformers: Any, folder: Folder, arguments: dict[str, Any]) -> Any:
    """The family's processor for pictures only, put together from its image processor and tokenizer."""
    kind = str(folder.config.get("model_type", ""))
    files = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    named_so = next((str(name) for name in (folder.json(f).get("processor_class") for f in files) if name), "")
    names = transformers.models.auto.processing_auto.PROCESSOR_MAPPING_NAMES
    wanted = getattr(transformers, named_so or names.get(kind) or "", None)
    if wanted is None or "get_attributes" not in dir(wanted):  # a stand-in that only says what is missing
        raise ModelUnavailable(
            f"{folder.model or folder.path.name} ({kind}) prepares its pictures with torchvision, which is missing or "
            "does not fit this torch. Install the torchvision of the same release as torch: "
            ".venv/bin/pip install '.[vlm]' in iwtag's folder"
        )

    class PicturesOnly(wanted):  # type: ignore[misc, valid-type]  # the class is found at run time
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, NoVideo):
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    PicturesOnly.__name__ = wanted.__name__
    path = str(folder.path)
    stored = folder.json("processor_config.json") or folder.json("preprocessor_config.json")
    named = set(wanted.get_attributes())
    given: dict[str, Any] = {
        "image_processor": transformers.AutoImageProcessor.from_pretrained(path, **arguments),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(path, **arguments),
    }
    if "video_processor" in named:
        given["video_processor"] = NoVideo()
    if "feature_extractor" in named:  # of sound
        given["feature_extractor"] = transformers.AutoFeatureExtractor.from_pretrained(path, **arguments)
    skipped = {"image_processor", "video_processor", "processor_class", "auto_map", "tokenizer", "feature_extractor"}
    settings = {
        name: value
        for name, value in stored.items()
        if name not in skipped and name in wanted.__init__.__code__.co_varnames
    }
    if template := chat_template(folder):
        settings["chat_template"] = template
    return PicturesOnly(**given, **settings)


def model_class(transformers: Any, folder: Folder) -> Any:
    """The automatic class that generates text for this kind of model."""
    config = folder.config
    if config.get("model_type") in _PLAIN:
        return transformers.AutoModelForCausalLM
    remote = config.get("auto_map") or {}
    if "AutoModelForImageTextToText" not in remote and "AutoModelForCausalLM" in remote:
        known = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        if config.get("model_type") not in known:
            return transformers.AutoModelForCausalLM
    return transformers.AutoModelForImageTextToText
