"""Any server that speaks the OpenAI protocol: OpenAI, vLLM, llama.cpp, Ollama, LM Studio, TGI and others.

`openai` is imported when a worker loads it, never by the web process. Requests follow the chat completions API as its
reference describes it; how answers are checked is in `asking`, how servers are treated in `limits` and `client`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from ..base import (
    About,
    Adapter,
    AdapterConfig,
    AdapterError,
    Capabilities,
    Handle,
    ImageInput,
    ModelUnavailable,
    Problem,
    Reply,
    Request,
)
from . import flow, images, limits
from .addresses import AddressRefused, check_address, private_allowed
from .asking import Prepared, Question
from .client import Client
from .options import EndpointOptions


class Endpoint(Adapter):
    """One model behind one address (`source`). A revision of the row stands for what the name does not say: change it
    when the server gets other weights under the same name."""

    key = "openai"
    label = "OpenAI-compatible endpoint"
    capabilities = Capabilities(
        outputs=frozenset({"tags", "caption"}),
        prompt=True,
        system=True,
        devices=("auto",),
        structured_output=True,
        vocabulary=True,
        seed=True,
        queue="io",
    )
    about = About(
        summary="Any server that speaks the OpenAI chat protocol, with or without pictures: OpenAI, vLLM, llama.cpp, "
        "Ollama, LM Studio, TGI. Answers text or JSON; many requests in flight; can be held to a word list.",
        weights="None here: the server has them. Its address is the adapter's source.",
        licence="The server's and its model's own.",
        memory="About 1 MB for each request in flight.",
        tested="A real llama.cpp server with SmolLM2-135M (text, JSON by schema), a real transformers server with a "
        "tiny random LLaVA (pictures in three formats, refused options), and local servers that refuse, "
        "stall, cut and lie. Hosted services and vLLM, Ollama, LM Studio and TGI themselves were not at hand.",
        notes=(
            "docs/endpoints.md tells how to connect each server.",
            "The address is no part of a prediction's identity, the model's name and the revision are.",
        ),
    )
    preparation: ClassVar[str] = "endpoint 1: draft 2, sRGB, white, Lanczos"
    streams: ClassVar[bool] = True
    lists_models: ClassVar[bool] = True
    load_options = frozenset(
        {"model", "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "retries", "patience"}
        | {"connect_timeout", "read_timeout", "total_timeout"}
    )

    class Options(EndpointOptions):
        pass

    def __init__(self, config: AdapterConfig | None = None) -> None:
        super().__init__(config)
        self._client: Client | None = None

    # -- cheap ------------------------------------------------------------------------------------------------------
    def check(self) -> list[Problem]:
        """Looks up no name and calls nobody."""
        found = []
        try:
            check_address(self.config.source, allow_private=private_allowed(), resolve=False)
        except AddressRefused as error:
            mend = "Give the server's address, e.g. http://localhost:11434/v1." if not self.config.source else (
                "Give another address, or set what the message names."
            )  # fmt: skip
            found.append(Problem(str(error) if self.config.source else "The adapter has no address.", mend))
        else:
            if urlsplit(self.config.source).path in ("", "/"):
                found.append(
                    Problem(
                        "The address has no path.",
                        "Most servers want /v1 at the end: " + self.config.source.rstrip("/") + "/v1.",
                        fatal=False,
                    )
                )
        own = cast(EndpointOptions, self.options())
        if not own.model:
            found.append(Problem("No model is named.", "Fetch the server's list, or give the name in the options."))
        if own.api_key_env and not os.environ.get(own.api_key_env, "").strip():
            found.append(
                Problem(
                    f"The environment variable {own.api_key_env} is not set.",
                    "Set it to the key where iwtag is started, then restart iwtag.",
                )
            )
        return found

    def identity(self) -> dict[str, Any]:
        own = cast(EndpointOptions, self.options())
        if not own.model:
            raise ModelUnavailable("No model is named: give its name in the adapter's options.")
        return {"api": "chat completions", "model": own.model, "revision": self.config.revision}

    def models(self) -> list[dict[str, Any]]:
        from .listing import models

        return models(self.config)

    # -- life -------------------------------------------------------------------------------------------------------
    def load(self) -> None:
        if self._client is not None:
            return
        own = cast(EndpointOptions, self.options())
        if not own.model:
            raise ModelUnavailable("No model is named: give its name in the adapter's options.")
        try:
            check_address(self.config.source, allow_private=private_allowed(), resolve=False)
        except AddressRefused as error:
            raise ModelUnavailable(str(error)) from None
        try:
            self._client = Client(self.config, own)
        except ImportError as error:
            raise ModelUnavailable(f"The package openai is needed: pip install openai ({error}).") from error

    def unload(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def sees(self) -> bool:
        return cast(EndpointOptions, self.options()).send_image

    @property
    def provider(self) -> str:
        return urlsplit(self.config.source).netloc if self._client is not None else ""

    @property
    def batch_size(self) -> int:
        return cast(EndpointOptions, self.options()).concurrency

    # -- work -------------------------------------------------------------------------------------------------------
    def prepare(self, image: ImageInput, request: Request) -> Prepared:
        """The picture encoded as the options say. Without one the question is text alone."""
        o = cast(EndpointOptions, request.options)
        if image.kind == "none" or not o.send_image:
            return Prepared(image.name, request)
        return Prepared(image.name, request, images.encode(image, o.long_edge, o.image_format, o.image_quality))

    def infer(self, batch: Sequence[Prepared], request: Request) -> Iterator[Reply | AdapterError]:
        """Asks about all of them at once, as far as the options allow."""
        found: dict[int, Reply | AdapterError] = {}
        for answer in self.infer_stream(iter(enumerate(batch)), request):
            if answer is not None:
                found[answer[0]] = answer[1]
        yield from (found[i] for i in range(len(batch)))

    def infer_stream(
        self, items: Iterator[tuple[Handle, Prepared]], request: Request
    ) -> Iterator[tuple[Handle, Reply | AdapterError] | None]:
        if self._client is None:
            self.load()
        client = cast(Client, self._client)

        def answer(prepared: Prepared, closed: Callable[[], bool]) -> Reply | AdapterError:
            try:
                return Question(client, prepared, closed).reply()
            except ModelUnavailable:
                raise
            except AdapterError as error:
                return error
            except limits.Closed:
                return AdapterError("The work was stopped before the answer came.")

        return flow.stream(items, answer, client.options.concurrency)
