"""JoyCaption: a LLaVA that was trained on requests of fixed wording. Type, length and extras make such a request.

A prompt of one's own goes before them. The wordings keep to the forms that the model's authors describe, because it
follows those best; the lists are data, so that forms show them.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from pydantic import Field

from ..base import About, Capabilities, Request
from ..folders import Guess, ModelFolder
from .chat import ChatModel
from .cold import capabilities
from .options import ChatOptions

#: <|reserved_special_token_69|> of Llama 3, which no other LLaVA uses for pictures.
IMAGE_TOKEN = 128077
SYSTEM = "You are a helpful image captioner."

Kind = Literal[
    "descriptive",
    "casual",
    "straightforward",
    "stable_diffusion",
    "midjourney",
    "danbooru",
    "e621",
    "rule34",
    "booru",
    "art_critic",
    "product",
    "social",
]
Length = Literal[
    "any", "very short", "short", "medium-length", "long", "very long",
    "20", "30", "40", "50", "60", "80", "100", "120", "150", "200", "250",
]  # fmt: skip
Extra = Literal[
    "name",
    "no_fixed_traits",
    "lighting",
    "camera_angle",
    "watermark",
    "artefacts",
    "camera_details",
    "sfw",
    "no_resolution",
    "quality",
    "composition",
    "no_text",
    "depth_of_field",
    "light_sources",
    "no_ambiguity",
    "nsfw_rating",
    "only_important",
    "no_artist",
    "orientation",
    "vulgar",
    "no_euphemisms",
    "ages",
    "shot_type",
    "no_mood",
]

#: Type → its label and the request, {form} is the length.
KINDS: dict[str, tuple[str, str]] = {
    "descriptive": ("descriptive", "Write a {length}detailed description for this image{limit}."),
    "casual": ("descriptive, casual", "Write a {length}descriptive caption for this image in a casual tone{limit}."),
    "straightforward": (
        "straightforward",
        "Write a {length}straightforward caption for this image{limit}. Begin with the main subject and the medium. "
        "Name people, objects and scenery in definite words, with color, shape and place. Quote text exactly. Omit "
        "mood, guesses and what is absent.",
    ),
    "stable_diffusion": (
        "Stable Diffusion prompt",
        "Output a {length}stable diffusion prompt that looks like a real one{limit}.",
    ),
    "midjourney": ("MidJourney prompt", "Write a {length}MidJourney prompt for this image{limit}."),
    "danbooru": (
        "Danbooru tags",
        "Generate only a {length}list of comma-separated Danbooru tags (lowercase_underscores){limit}: artist:, "
        "copyright:, character:, meta:, then general tags. No other text.",
    ),
    "e621": (
        "e621 tags",
        "Write a {length}comma-separated list of e621 tags in alphabetical order for this image{limit}: artist:, "
        "copyright:, character:, species:, meta: and lore: first, then general tags. No other text.",
    ),
    "rule34": (
        "Rule34 tags",
        "Write a {length}comma-separated list of rule34 tags in alphabetical order for this image{limit}: artist:, "
        "copyright:, character: and meta: first, then general tags. No other text.",
    ),
    "booru": ("booru-like tags", "Write a {length}list of Booru-like tags for this image{limit}."),
    "art_critic": (
        "art critic",
        "Analyze this image like an art critic: composition, style, symbolism, color, light, and the movement "
        "it may belong to. Keep it {length}{limit}.",
    ),
    "product": (
        "product listing",
        "Write a {length}caption for this image as though it were a product listing{limit}.",
    ),
    "social": (
        "social media post",
        "Write a {length}caption for this image as if it were being used for a social media post{limit}.",
    ),
}

#: Extra → its label and the sentence that asks for it.
EXTRAS: dict[str, tuple[str, str]] = {
    "name": ("call the person by the name below", "Refer to the person or character in the image as {name}."),
    "no_fixed_traits": (
        "no traits that cannot change",
        "Do NOT mention traits of people that cannot be changed (ethnicity, gender), only changeable ones (hair).",
    ),
    "lighting": ("lighting", "Include information about lighting."),
    "camera_angle": ("camera angle", "Include information about camera angle."),
    "watermark": ("watermark or not", "Say whether there is a watermark or not."),
    "artefacts": ("JPEG artefacts or not", "Say whether there are JPEG artifacts or not."),
    "camera_details": (
        "camera details of photographs",
        "If it is a photo, include the likely camera, aperture, shutter speed and ISO.",
    ),
    "sfw": ("keep it decent", "Keep it PG: do NOT include anything sexual."),
    "no_resolution": ("no resolution", "Do NOT mention the resolution of the image."),
    "quality": ("aesthetic quality", "Include the subjective aesthetic quality, from low to very high."),
    "composition": ("composition", "Include the composition style, such as leading lines or the rule of thirds."),
    "no_text": ("no text of the picture", "Do NOT mention text that is in the image."),
    "depth_of_field": ("depth of field", "Specify the depth of field and whether the background is blurred."),
    "light_sources": ("light sources", "Mention whether the lighting is likely artificial or natural."),
    "no_ambiguity": ("no ambiguous words", "Do NOT use ambiguous language."),
    "nsfw_rating": ("sfw, suggestive or nsfw", "Include whether the image is sfw, suggestive, or nsfw."),
    "only_important": ("only the most important things", "ONLY describe the most important elements of the image."),
    "no_artist": ("no artist or title of artworks", "Do not include the artist's name or the title of the work."),
    "orientation": ("orientation and aspect ratio", "Identify the orientation and the aspect ratio of the image."),
    "vulgar": ("slang and profanity", "Use slang and profanity."),
    "no_euphemisms": ("no euphemisms", "Use blunt, casual words and no euphemisms."),
    "ages": ("ages of people", "Include the ages of people or characters."),
    "shot_type": ("kind of shot", "Mention the shot, from extreme close-up to extreme wide shot."),
    "no_mood": ("no mood or feeling", "Do not mention the mood or feeling of the image."),
}


class JoyCaption(ChatModel):
    """JoyCaption alpha and beta, in the layout of transformers (LLaVA with a SigLIP tower and Llama 3)."""

    key: ClassVar[str] = "joycaption"
    label: ClassVar[str] = "JoyCaption"
    about = About(
        summary="Long or short captions, prompts for image generators, or booru tags; the request is made from type, "
        "length and extras.",
        weights="fancyfeast/llama-joycaption-beta-one-hf-llava and alpha-two in that layout, or a folder.",
        licence="Of the weights: Llama 3.1 community licence (the model is built on it).",
        memory="8.5 billion weights: about 18 GB in bf16, 7 GB in 4 bit. Estimate.",
        tested="A tiny random LLaVA with SigLIP and a Llama 3 chat whose template places the picture itself. No "
        "published "
        "weights were at hand; the wordings are close to the trained ones, not equal.",
        notes=("A prompt of one's own takes the place of type and length; extras are added to it.",),
    )
    capabilities: ClassVar[Capabilities] = capabilities(system=True, vocabulary=True)
    model_types: ClassVar[frozenset[str]] = frozenset({"llava"})
    card_dtype: ClassVar[str] = "bf16"

    class Options(ChatOptions):
        """What the model was trained to be asked."""

        caption_type: Kind = Field(
            "descriptive",
            title="Type of caption",
            description="Used when the prompt is empty.",
            json_schema_extra={"labels": {key: label for key, (label, _) in KINDS.items()}},
        )
        caption_length: Length = Field(
            "long",
            title="Length of caption",
            description="A word for it, or the most words. Used when the prompt is empty.",
            json_schema_extra={"labels": {n: f"at most {n} words" for n in get_args(Length) if n.isdigit()}},
        )
        extras: list[Extra] = Field(
            default_factory=list,
            title="Extras",
            description="Further wishes, added to the prompt.",
            json_schema_extra={"labels": {key: label for key, (label, _) in EXTRAS.items()}},
        )
        person_name: str = Field(
            "",
            max_length=80,
            title="Name of the person",
            description="For the extra that calls people by it.",
        )

    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        if folder.model_type != "llava" or not folder.has("*.safetensors"):
            return None
        if "joycaption" in folder.path.name.lower() or "joycaption" in str(folder.path.parent.parent.name).lower():
            return Guess("a LLaVA whose folder is named JoyCaption", 92)
        if folder.config.get("image_token_index") == IMAGE_TOKEN:
            return Guess("a LLaVA with JoyCaption's marker for pictures", 90)
        return None

    def system(self, request: Request) -> str:
        return request.system.strip() or SYSTEM

    def render(self, processor: object, request: Request, prompt: str, start: str) -> tuple[str, bool]:
        return super().render(processor, request, wording(request.options, prompt), start)

    def kept_whole(self, folder: object) -> list[str]:
        # SigLIP's pooling head has an attention that quantised layers break
        return ["vision_tower", "multi_modal_projector", "lm_head"]


def wording(options: object, prompt: str = "") -> str:
    """The request that the options make; a prompt of one's own takes the place of type and length."""
    parts = [prompt.strip() or _request(options)]
    name = str(getattr(options, "person_name", "")).strip()
    for extra in dict.fromkeys(getattr(options, "extras", ())):
        if extra != "name" or name:
            parts.append(EXTRAS[extra][1].format(name=name))
    return " ".join(parts)


def _request(options: object) -> str:
    length = str(getattr(options, "caption_length", "any"))
    _, written = KINDS[str(getattr(options, "caption_type", "descriptive"))]
    limit = f" in {length} words or less" if length.isdigit() else ""
    word = "" if length == "any" or limit else f"{length} "
    if "Keep it {length}" in written:  # a sentence of its own
        ending = f" Keep it{limit.replace(' in', ' within').replace(' or less', '')}." if limit else ""
        ending = f" Keep it {length}." if word else ending
        return written.replace(" Keep it {length}{limit}.", ending)
    article = "an " if word[:1] in "aeiou" and word else "a "
    return written.replace("a {length}", article + word if word else "a ").format(length=word, limit=limit)
