"""What all local vision-language models share: life, preparation in threads, true batches, checks of the answer.

A family subclasses `VisionLanguage` and says how its question is written and how its answer is read.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

from PIL import Image

from .. import preparation
from ..base import (
    AdapterConfig,
    AdapterError,
    AdapterOptions,
    ImageInput,
    ModelUnavailable,
    OutOfMemory,
    Reply,
    Request,
)
from . import batches, forced, generation, memory, processors, runtime, source, words
from .batches import Answer, Prepared
from .cold import ColdModel
from .options import LoadOptions

#: Images in one call where the device's memory does not say: processors gain little from more.
CPU_BATCH = 4
#: Most images in one call.
LARGEST_BATCH = 64
#: (model, device, quantization, format) → the batch that fitted after a larger one did not; kept after unloading.
_LEARNED: dict[tuple[str, ...], int] = {}


class VisionLanguage(ColdModel):
    """One local model that reads an image and writes text."""

    #: Rows of unlike length may be padded on the left; else only equal ones share a call.
    pads: ClassVar[bool] = True
    #: Preferred number format on a card; empty: as the weights are stored.
    card_dtype: ClassVar[str] = ""
    #: The answer is a caption for certain; else text that the policy reads tags or a caption from.
    captioner: ClassVar[bool] = False

    def __init__(self, config: AdapterConfig | None = None) -> None:
        super().__init__(config)
        self._model: Any = None
        self._torch: Any = None
        self._transformers: Any = None
        self._processor: Any = None
        self._device = ""
        self._dtype: Any = None
        self._estimate: memory.Estimate | None = None
        self._vocabularies = generation.Vocabularies()
        self._of_thread = threading.local()

    # -- life ---------------------------------------------------------------------------------------------------------
    def load(self) -> None:
        if self._model is not None:
            return
        folder = self._find(download=True)
        assert folder is not None
        if problem := self.wrong_family(folder):
            raise ModelUnavailable(f"{problem.message} {problem.mend}")
        options = self.load_settings
        torch, transformers = runtime.libraries()
        device = runtime.choose_device(torch, self.config.device)
        preferred = self.card_dtype or runtime.preferred_dtype(folder)
        dtype = runtime.choose_dtype(torch, options.dtype, device, preferred=preferred)
        name = runtime.dtype_name(torch, dtype)
        estimate = memory.estimate(folder, dtype=name, quantization=self.config.quantization)
        runtime.check_room(folder, estimate, runtime.free_bytes(torch, device), device)
        arguments = self._load_arguments(transformers, folder, device, dtype)
        self._torch, self._transformers, self._estimate = torch, transformers, estimate
        try:
            processor = self.load_processor(transformers, folder, trust=options.trust_remote_code)
            model = self.load_model(transformers, folder, arguments).eval().requires_grad_(False)
            self.forget_settings(transformers, model, processor)
            self.adjust(model, processor)
            if options.compile:
                model.forward = torch.compile(model.forward)
        except AdapterError:
            self.unload()
            raise
        except Exception as error:
            self.unload()
            raise runtime.load_error(folder, error, estimate, device) from error
        self._model, self._processor, self._device, self._dtype = model, processor, device, dtype

    def _load_arguments(self, transformers: Any, folder: source.Folder, device: str, dtype: Any) -> dict[str, Any]:
        """What `from_pretrained` is told. ModelUnavailable when the quantisation cannot be had."""
        options = self.load_settings
        arguments: dict[str, Any] = {
            "dtype": dtype,
            "trust_remote_code": options.trust_remote_code,
            "local_files_only": True,
        }
        settings = runtime.quantization_settings(
            transformers, self.config.quantization, device, dtype, self.kept_whole(folder)
        )
        if settings is not None:
            arguments["quantization_config"] = settings
        if options.attention != "auto":
            arguments["attn_implementation"] = options.attention
        if device != "cpu":
            arguments["device_map"] = {"": device}
        return arguments

    def load_processor(self, transformers: Any, folder: source.Folder, *, trust: bool) -> Any:
        return processors.load(transformers, folder, trust=trust)

    def load_model(self, transformers: Any, folder: source.Folder, arguments: dict[str, Any]) -> Any:
        return processors.model_class(transformers, folder).from_pretrained(str(folder.path), **arguments)

    def forget_settings(self, transformers: Any, model: Any, processor: Any) -> None:
        """Only the options say how answers are generated, not what the model's folder says."""
        generation.forget_stored_settings(transformers, model, processors.tokenizer_of(processor))

    def adjust(self, model: Any, processor: Any) -> None:
        """What a family sets on its model after loading."""

    def kept_whole(self, folder: source.Folder) -> list[str]:
        """Modules that are not quantised. The picture's encoder is small and suffers most."""
        return ["vision_tower", "vision_model", "visual", "multi_modal_projector", "lm_head"]

    def unload(self) -> None:
        self._model = self._processor = None
        self._of_thread = threading.local()
        self._vocabularies = generation.Vocabularies()
        self._device = ""

    @property
    def loaded(self) -> bool:
        return self._model is not None

    @property
    def provider(self) -> str:
        if self._model is None:
            return ""
        quantization = "" if self.config.quantization == "none" else f", {self.config.quantization}"
        return f"{self._device} ({runtime.dtype_name(self._torch, self._dtype)}{quantization})"

    @property
    def batch_size(self) -> int:
        if self._model is None:
            return 1
        learned = _LEARNED.get(self._memory_key)
        if learned:
            return learned
        if self._device == "cpu":
            return CPU_BATCH
        free = runtime.free_bytes(self._torch, self._device)
        if free is None or self._estimate is None:
            return CPU_BATCH
        return self._estimate.batch_within(free, LARGEST_BATCH)

    @property
    def _memory_key(self) -> tuple[str, ...]:
        return (self.config.source, self._device, self.config.quantization, str(self._dtype))

    # -- preparation --------------------------------------------------------------------------------------------------
    def prepare(self, image: ImageInput, request: Request) -> Prepared:
        """Decode, scale, and run the model's own processor for one image. In threads: each has its own processor,
        because the tokenizers of transformers cannot be shared."""
        self._must_be_loaded()
        options = cast(LoadOptions, request.options)
        picture = preparation.fitted(image, options.max_image_side)
        return self.ask(picture, image, request, request.prompt)

    def ask(self, picture: Image.Image, image: ImageInput | Prepared, request: Request, prompt: str) -> Prepared:
        """One question about one picture as tensors. AdapterError when the prompt cannot be used with this family."""
        processor = self._processor_of_thread()
        start = str(getattr(request.options, "start_with", ""))
        text, prefilled = self.render(processor, request, prompt, start)
        try:
            inputs = self.inputs(processor, text, picture, request.options)
        except AdapterError:
            raise
        except Exception as error:
            if runtime.is_out_of_memory(error):
                raise OutOfMemory(f"No memory to prepare {image.name}.") from error
            raise AdapterError(
                f"{image.name} cannot be prepared for this model: {type(error).__name__}: {source.first_line(error)}",
                permanent=True,
            ) from error
        inputs.pop("labels", None)  # some processors prepare for training too
        keep = bool(getattr(request.options, "forced", None))
        return Prepared(
            image.name, image.sha256, request, text, inputs, start, prefilled, image=picture if keep else None
        )

    def render(self, processor: Any, request: Request, prompt: str, start: str) -> tuple[str, bool]:
        """The text for the processor, and whether `start` is at its end."""
        text = processors.without_tokens(processor, prompt.strip() or self.own_prompt)
        return (f"{text} {start}".strip(), True) if start else (text, False)

    def inputs(self, processor: Any, text: str, picture: Image.Image, options: AdapterOptions) -> dict[str, Any]:
        """Name → tensor with a first axis of 1 (or of the picture's tiles)."""
        return dict(processor(text=[text], images=[picture], return_tensors="pt"))

    def _processor_of_thread(self) -> Any:
        found = getattr(self._of_thread, "processor", None)
        if found is None:
            found = self._of_thread.processor = copy.deepcopy(self._processor)
        return found

    def _must_be_loaded(self) -> None:
        if self._model is None:
            raise AdapterError(f"The {self.label} is not loaded: call load() first")

    # -- inference ----------------------------------------------------------------------------------------------------
    def infer(self, batch: Sequence[Prepared], request: Request) -> Iterator[Reply | AdapterError]:
        self._must_be_loaded()
        if not batch:
            return
        try:
            answers = self.generate(batch, request.options)
            if getattr(request.options, "forced", None):
                answers = forced.complete(self, batch, answers, request.options)
        except OutOfMemory:
            _LEARNED[self._memory_key] = max(1, len(batch) // 2)
            raise
        for item, answer in zip(batch, answers, strict=True):
            yield self.reply(item, answer, request.options)

    def generate(self, batch: Sequence[Prepared], options: AdapterOptions, attempt: int = 0) -> list[Answer]:
        """One answer for each item, in order; items of like length share a call."""
        answers: list[Answer | None] = [None] * len(batch)
        for group in batches.by_length(batch, equal=not self.pads):
            began = time.perf_counter()
            found = self._generate([batch[i] for i in group], options, attempt)
            seconds = (time.perf_counter() - began) / len(group)
            for i, answer in zip(group, found, strict=True):
                answer.seconds = seconds
                answers[i] = answer
        return cast(list[Answer], answers)

    def _generate(self, items: Sequence[Prepared], options: AdapterOptions, attempt: int) -> list[Answer]:
        torch, tokenizer = self._torch, processors.tokenizer_of(self._processor)
        plan = generation.Plan(self, torch, self._transformers, tokenizer, items, options, attempt)
        with runtime.memory_errors(f"{len(items)} images"), torch.inference_mode():
            inputs = batches.collate(torch, items, {"input_ids": plan.pad})
            moved = {name: self._moved(value) for name, value in inputs.items()}
            output = self.call(moved, plan)
            rows = output.tolist()
        prompts = inputs["input_ids"].tolist() if "input_ids" in inputs else [[]] * len(items)
        return [
            plan.answer(i, items[i], row if plan.anew else self.new_tokens(row, prompt), prompt)
            for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
        ]

    def call(self, inputs: dict[str, Any], plan: generation.Plan) -> Any:
        """Token rows of `generate`."""
        return self._model.generate(**inputs, **plan.arguments)

    def new_tokens(self, row: list[int], prompt: list[int]) -> list[int]:
        return batches.new_tokens(row, prompt)

    def _moved(self, value: Any) -> Any:
        if not hasattr(value, "to"):
            return value
        if value.is_floating_point():
            return value.to(device=self._device, dtype=self._dtype)
        return value.to(device=self._device)

    def vocabulary(self, terms: tuple[str, ...], options: Any, tokenizer: Any, ends: Sequence[int]) -> Any:
        """The terms' trie and its index tensors, made once for each list."""
        return self._vocabularies.get(terms, options, tokenizer, ends)

    def reply(self, item: Prepared, answer: Answer, options: AdapterOptions) -> Reply:
        """What the engine gets. Thoughts stay in `text`; whoever reads it leaves them out."""
        text = self.clean(words.with_thoughts_marked(answer.text), options)
        flags = set(answer.flags)
        if answer.finish_reason == "length":
            flags.add("truncated")
        spoken = words.without_thoughts(text)
        if any(words.contains(spoken, word) for word in getattr(options, "discouraged", ())):
            flags.add("discouraged_present")
        return Reply(
            caption=spoken if self.captioner and not item.request.terms else None,
            text=text,
            tokens_in=answer.tokens_in,
            tokens_out=answer.tokens_out,
            finish_reason=answer.finish_reason,
            seconds=answer.seconds,
            flags=tuple(sorted(flags)),
        )

    def clean(self, text: str, options: AdapterOptions) -> str:
        """The family's own rules for its output."""
        return text.strip()
