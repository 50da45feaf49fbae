"""The options of an endpoint: what is sent of the picture, how the answer is sampled, and how politely it is asked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ..base import AdapterOptions

#: Names that a key's environment variable may have. Others would hand secrets of this machine to whoever owns the
#: address: the database's password is in the environment as well.
KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]*_(?:API_?KEY|KEY|TOKEN)")
_OURS = re.compile(r"(?:IWTAG|DJANGO|AWS|PG|POSTGRES)_")
#: What the extra body may not set: it is decided elsewhere, or the reply could not be read.
RESERVED = frozenset({"model", "messages", "stream", "stream_options", "n", "response_format", "logprobs", "tools"})


def _extra(group: str, *, operational: bool = False, advanced: bool = True, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"group": group, **more}
    if operational:
        found["operational"] = True
    if advanced:
        found["advanced"] = True
    return found


class EndpointOptions(AdapterOptions):
    model: str = Field(
        "",
        max_length=200,
        title="Model name",
        description="As the server lists it, e.g. qwen2.5vl:7b or gpt-4.1-mini.",
        json_schema_extra={"group": "Model", "preset": False},
    )
    api_key_env: str = Field(
        "",
        max_length=80,
        title="Variable with the key",
        description="Name of the environment variable that holds the key, e.g. OPENAI_API_KEY. Empty: no key is sent. "
        "The key itself is never stored.",
        json_schema_extra=_extra("Model", operational=True, advanced=False, row=True),
    )
    # -- the picture
    send_image: bool = Field(
        True,
        title="Send the picture",
        description="Off for a language model that sees nothing: it gets the prompt alone, to merge or to judge.",
        json_schema_extra=_extra("Image"),
    )
    long_edge: int = Field(
        1024,
        ge=0,
        le=8192,
        title="Long edge",
        description="Pictures are scaled down to this; smaller ones stay as they are. 0 sends the full size, the "
        "file's own data where the server can read it.",
        json_schema_extra=_extra("Image", advanced=False, unit="px"),
    )
    image_format: Literal["jpeg", "png", "webp"] = Field(
        "jpeg",
        title="Format",
        description="PNG loses nothing and is large. Some servers read no WebP.",
        json_schema_extra=_extra("Image", labels={"jpeg": "JPEG", "png": "PNG", "webp": "WebP"}),
    )
    image_quality: int = Field(
        90,
        ge=30,
        le=100,
        title="Quality",
        description="Of JPEG and WebP; from 90 on colours keep their full resolution.",
        json_schema_extra=_extra("Image"),
    )
    detail: Literal["auto", "low", "high"] = Field(
        "auto",
        title="Detail",
        description="What OpenAI's servers do with the picture: low is cheap and sees 512 px. auto is not sent.",
        json_schema_extra=_extra("Image"),
    )
    # -- the answer
    max_tokens: int = Field(
        512,
        ge=1,
        le=65536,
        title="Longest answer",
        description="An answer that is cut here is flagged as truncated. Reasoning counts.",
        json_schema_extra=_extra("Answer", advanced=False, unit="tokens"),
    )
    temperature: float | None = Field(
        0.2,
        ge=0,
        le=2,
        title="Temperature",
        description="0 is the most repeatable. Empty: not sent, as OpenAI's reasoning models want it.",
        json_schema_extra=_extra("Sampling", advanced=False),
    )
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        title="Top-p",
        description="Samples among the likeliest tokens that have this probability together. Empty: the server's own.",
        json_schema_extra=_extra("Sampling"),
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=1000,
        title="Top-k",
        description="Samples among so many tokens. OpenAI does not take it, local servers do.",
        json_schema_extra=_extra("Sampling"),
    )
    min_p: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Min-p",
        description="Leaves out tokens below this share of the likeliest one. vLLM, llama.cpp and LM Studio take it.",
        json_schema_extra=_extra("Sampling"),
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        title="Seed",
        description="Makes sampling repeatable where the server can. Each further sample of an image adds one.",
        json_schema_extra=_extra("Sampling"),
    )
    frequency_penalty: float | None = Field(
        None,
        ge=-2,
        le=2,
        title="Frequency penalty",
        description="Above 0 makes repeated words less likely the more often they came.",
        json_schema_extra=_extra("Sampling"),
    )
    presence_penalty: float | None = Field(
        None,
        ge=-2,
        le=2,
        title="Presence penalty",
        description="Above 0 makes words that came once less likely.",
        json_schema_extra=_extra("Sampling"),
    )
    repetition_penalty: float | None = Field(
        None,
        ge=0.5,
        le=2,
        title="Repetition penalty",
        description="Above 1 makes repeated tokens less likely. vLLM and TGI call it so, llama.cpp "
        "repeat_penalty: both names are sent.",
        json_schema_extra=_extra("Sampling"),
    )
    stop: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        (),
        max_length=4,
        title="Stop strings",
        description="The answer ends before the first of these, at most four.",
        json_schema_extra=_extra("Answer"),
    )
    response_format: Literal["auto", "json_schema", "json_object", "none"] = Field(
        "auto",
        title="How JSON is asked for",
        description="auto tries a JSON schema first, then what the server takes, and remembers it. Only prompts that "
        "ask for JSON, and answers held to a word list, need it. Every answer is checked in any case.",
        json_schema_extra=_extra(
            "Answer",
            labels={
                "auto": "what the server can",
                "json_schema": "JSON schema",
                "json_object": "JSON object",
                "none": "by the prompt alone",
            },
        ),
    )
    vocabulary: Literal["free", "only"] = Field(
        "free",
        title="Words",
        description="only: every tag is one of the vocabulary's terms, spelled so. A list longer than one question "
        "holds is put in several, so that a picture costs several calls.",
        json_schema_extra=_extra(
            "Words", advanced=False, labels={"free": "the model's own", "only": "only words of the vocabulary"}
        ),
    )
    terms_per_question: int = Field(
        200,
        ge=10,
        le=1000,
        title="Terms per question",
        description="How many terms of the vocabulary the model chooses from at once. OpenAI takes at most 1,000.",
        json_schema_extra=_extra("Words"),
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        title="Extra body",
        description='JSON that is added to each request, for what only this server knows: {"reasoning_effort": "low"}, '
        '{"chat_template_kwargs": {"enable_thinking": false}}, {"mm_processor_kwargs": {"max_pixels": 1003520}}.',
        json_schema_extra=_extra("Answer"),
    )
    # -- how it is asked
    concurrency: int = Field(
        16,
        ge=1,
        le=256,
        title="Requests at once",
        description="At most so many are in flight. When the server says it is too much, fewer are, and more again "
        "once it answers.",
        json_schema_extra=_extra("Limits", operational=True, advanced=False),
    )
    requests_per_minute: int = Field(
        0,
        ge=0,
        le=1_000_000,
        title="Requests per minute",
        description="Never exceeded, whatever the server says. 0: no limit.",
        json_schema_extra=_extra("Limits", operational=True),
    )
    tokens_per_minute: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        title="Tokens per minute",
        description="Sent and received together. 0: no limit.",
        json_schema_extra=_extra("Limits", operational=True),
    )
    connect_timeout: float = Field(
        10.0,
        gt=0,
        le=120,
        title="Time to connect",
        description="A server that does not answer the call within this is tried again.",
        json_schema_extra=_extra("Limits", operational=True, unit="s"),
    )
    read_timeout: float = Field(
        120.0,
        gt=0,
        le=500,
        title="Longest silence",
        description="A reply that stays away this long is given up and asked for again. Raise it for large models on "
        "slow machines.",
        json_schema_extra=_extra("Limits", operational=True, unit="s"),
    )
    total_timeout: float = Field(
        300.0,
        gt=0,
        le=500,
        title="Longest request",
        description="From the call to the last byte of the reply, for each try.",
        json_schema_extra=_extra("Limits", operational=True, unit="s"),
    )
    retries: int = Field(
        4,
        ge=0,
        le=20,
        title="Further tries",
        description="After a failure of the server or the line, with growing pauses.",
        json_schema_extra=_extra("Limits", operational=True),
    )
    patience: float = Field(
        900.0,
        gt=0,
        le=86_400,
        title="Patience",
        description="An image is given up after this long of 'too many requests'. Retry takes it up again.",
        json_schema_extra=_extra("Limits", operational=True, unit="s"),
    )
    # -- what it costs
    price_in: float = Field(
        0.0,
        ge=0,
        le=100_000,
        title="Price of a million tokens sent",
        description="Pictures count as the tokens that the server says. 0: free, or unknown.",
        json_schema_extra=_extra("Price", operational=True),
    )
    price_out: float = Field(
        0.0,
        ge=0,
        le=100_000,
        title="Price of a million tokens received",
        description="Reasoning counts as received.",
        json_schema_extra=_extra("Price", operational=True),
    )
    currency: str = Field(
        "USD",
        pattern=r"^[A-Z]{3}$",
        title="Currency",
        description="Three letters.",
        json_schema_extra=_extra("Price", operational=True),
    )

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost, in `currency`."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1_000_000

    @field_validator("model", "api_key_env", mode="before")
    @classmethod
    def _stripped(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @field_validator("api_key_env")
    @classmethod
    def _a_key(cls, value: str) -> str:
        if value and (not KEY_NAME.fullmatch(value) or _OURS.match(value)):
            raise ValueError(
                "give the name of a variable that ends in _API_KEY, _KEY or _TOKEN, e.g. OPENAI_API_KEY; keys are not "
                "entered here, and iwtag's own variables are not sent anywhere"
            )
        return value

    @field_validator("extra_body")
    @classmethod
    def _not_reserved(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RESERVED & value.keys()):
            raise ValueError(f"{', '.join(taken)} cannot be set here")
        return value
