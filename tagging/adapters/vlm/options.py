"""The options of local vision-language models, in groups from which each family takes those that it has."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from ..base import AdapterOptions

#: Options that `load()` depends on.
LOAD_OPTIONS = frozenset({"dtype", "attention", "trust_remote_code", "compile"})
_ADVANCED: dict[str, Any] = {"advanced": True}
_HOW: dict[str, Any] = {"advanced": True, "operational": True}
Line = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class LoadOptions(AdapterOptions):
    """How the weights are brought to the device, and how large a picture they see."""

    max_image_side: int = Field(
        1024,
        ge=64,
        le=4096,
        title="Longest image side",
        description="Larger pictures are scaled down to this many pixels before the model's own preparation. More "
        "shows small things, and costs memory and time in models that cut pictures into tiles or patches.",
        json_schema_extra={"group": "image"},
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        title="Number format",
        description="auto: bf16 on a card that has it, else fp16; fp32 on the processor.",
        json_schema_extra=_ADVANCED,
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        title="Attention code",
        description="auto: what transformers prefers. flash_attention_2 needs the package flash-attn and a card.",
        json_schema_extra=_HOW,
    )
    trust_remote_code: bool = Field(
        False,
        title="Run code that comes with the model",
        description="WARNING: the model's folder or repository may hold Python that then runs on this machine with "
        "all rights of iwtag. Tick it only for a source and a pinned revision that you have read or trust.",
        json_schema_extra={"advanced": True, "warning": True, "row": True},
    )
    compile: bool = Field(
        False,
        title="Compile",
        description="torch.compile: minutes at the first image, faster afterwards on cards. Not for short runs.",
        json_schema_extra=_HOW,
    )


class LengthOptions(AdapterOptions):
    """How long the answer may be."""

    max_new_tokens: int = Field(
        300,
        ge=1,
        le=8192,
        title="Most new tokens",
        description="The answer is cut there and flagged as truncated. A token is about three quarters of a word.",
    )
    min_new_tokens: int = Field(
        0,
        ge=0,
        le=4096,
        title="Fewest new tokens",
        description="The model may not end before. Ignored when it answers from a vocabulary.",
        json_schema_extra=_ADVANCED,
    )

    @model_validator(mode="after")
    def _ordered(self) -> LengthOptions:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("the fewest new tokens are more than the most new tokens")
        return self


class SamplingOptions(LengthOptions):
    """Which of the likely words is taken."""

    temperature: float = Field(
        0.0,
        ge=0,
        le=2,
        title="Temperature",
        description="0 always takes the likeliest word (the same answer every time); more is more varied.",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        title="Top-p",
        description="Only the likeliest words that together reach this probability. 1: all. Needs a temperature.",
        json_schema_extra=_ADVANCED,
    )
    top_k: int = Field(
        0,
        ge=0,
        le=1000,
        title="Top-k",
        description="Only this many likeliest words. 0: all. Needs a temperature.",
        json_schema_extra=_ADVANCED,
    )
    min_p: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Min-p",
        description="Only words at least this fraction as likely as the likeliest. 0: all. Needs a temperature.",
        json_schema_extra=_ADVANCED,
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**32 - 1,
        title="Seed",
        description="With a temperature, the same seed gives the same answer whatever else is in the batch; each "
        "sample of an image and each image draw their own numbers from it.",
        json_schema_extra=_ADVANCED,
    )
    num_beams: int = Field(
        1,
        ge=1,
        le=16,
        title="Beams",
        description="Answers followed side by side, of which the likeliest is kept. Costs memory and time alike.",
        json_schema_extra=_ADVANCED,
    )
    length_penalty: float = Field(
        1.0,
        ge=-5,
        le=5,
        title="Length penalty",
        description="With several beams: above 1 prefers longer answers, below shorter ones.",
        json_schema_extra=_ADVANCED,
    )
    repetition_penalty: float = Field(
        1.0,
        ge=0.5,
        le=2,
        title="Repetition penalty",
        description="Above 1 makes words that were said less likely. 1: off.",
        json_schema_extra=_ADVANCED,
    )
    no_repeat_ngram_size: int = Field(
        0,
        ge=0,
        le=10,
        title="No repeated runs of",
        description="No run of this many tokens is said twice. 0: off; small numbers spoil lists of tags and JSON.",
        json_schema_extra=_ADVANCED,
    )
    stop: list[Line] = Field(
        default_factory=list,
        max_length=16,
        title="Stop at",
        description="The answer ends before the first of these, one a line.",
        json_schema_extra=_ADVANCED,
    )
    discouraged: list[Line] = Field(
        default_factory=list,
        max_length=200,
        title="Discouraged words",
        description="Made unlikely, in lower case, capitals and after a space, one a line. An answer that has one "
        "nevertheless is flagged.",
        json_schema_extra=_ADVANCED,
    )
    discourage_by: float = Field(
        100.0,
        gt=0,
        le=100,
        title="Discourage by",
        description="Taken from the words' logits: about 3 makes a word rarer, 100 as good as forbids it.",
        json_schema_extra=_ADVANCED,
    )

    @model_validator(mode="after")
    def _one_way(self) -> SamplingOptions:
        if self.temperature == 0 and (self.top_p < 1 or self.top_k or self.min_p):
            raise ValueError("top-p, top-k and min-p choose among words only with a temperature above 0")
        if self.temperature > 0 and self.num_beams > 1:
            raise ValueError("beams look for the likeliest answer: use them with temperature 0, or one beam")
        return self


class StartOptions(AdapterOptions):
    """Words that the answer has for certain."""

    start_with: str = Field(
        "",
        max_length=500,
        title="Start the answer with",
        description="Put into the model's mouth, and at the beginning of the answer for certain.",
    )


class ForcedOptions(AdapterOptions):
    """Words that the answer must have; checked on the text."""

    forced: list[Line] = Field(
        default_factory=list,
        max_length=50,
        title="Words it must contain",
        description="One a line; alternatives with a bar: cat|kitten. Missing ones are asked for again; when one is "
        "still missing the answer is flagged.",
        json_schema_extra=_ADVANCED,
    )
    forced_retries: int = Field(
        2,
        ge=0,
        le=5,
        title="Tries for missing words",
        description="How often the model is asked again for words that are missing.",
        json_schema_extra=_ADVANCED,
    )


class VocabularyOptions(AdapterOptions):
    """Answers held to a list of terms."""

    vocabulary: Literal["free", "only"] = Field(
        "free",
        title="Vocabulary",
        description="only: the answer is a list of terms of the recipe's vocabulary and cannot be anything else.",
        json_schema_extra={"labels": {"free": "free words", "only": "only terms of the vocabulary"}},
    )
    max_terms: int = Field(
        50,
        ge=1,
        le=1000,
        title="Most terms",
        description="With the vocabulary: the answer ends after this many terms.",
        json_schema_extra=_ADVANCED,
    )
    repeat_terms: bool = Field(
        False,
        title="Terms may repeat",
        description="With the vocabulary: whether a term may be said twice.",
        json_schema_extra=_ADVANCED,
    )


class ThinkingOptions(AdapterOptions):
    """Models that think before they answer."""

    thinking: bool = Field(
        False,
        title="Let it think first",
        description="For models that can. The thoughts are kept in the raw text, never in tags or caption.",
        json_schema_extra=_ADVANCED,
    )


class ChatOptions(
    ThinkingOptions, VocabularyOptions, ForcedOptions, StartOptions, SamplingOptions, LoadOptions, AdapterOptions
):
    """Everything that a model with a chat template can do."""


class CaptionerOptions(VocabularyOptions, ForcedOptions, StartOptions, SamplingOptions, LoadOptions):
    """Captioners that take a text to go on from, or a question."""
