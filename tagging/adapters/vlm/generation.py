"""One call of `generate`: its settings, processors and stops from the options, and its rows as answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

from ..base import AdapterError, AdapterOptions, terms_digest
from . import batches, words
from .batches import Answer, Prepared
from .decoding import OnlyTerms, RowSampler, StopAtText, row_seed
from .trie import Vocabulary

#: What a model's stored generation settings may still say; all else comes from the options.
_KEPT = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",  # an end that is forced at the last token would hide that the answer was cut
)
#: How many lists stay tokenised.
LISTS = 4


#: Where models that wrap a language model keep it; its stored settings count too.
_INNER = ("text_decoder", "language_model", "text_model")


def forget_stored_settings(transformers: Any, model: Any, tokenizer: Any) -> None:
    """Models come with sampling settings of their own, which would change answers in silence: only token ids stay."""
    parts = [model, *(getattr(model, name, None) for name in _INNER)]
    parts = [part for part in parts if getattr(part, "generation_config", None) is not None]
    kept: dict[str, Any] = {}
    for name in _KEPT:
        values = (getattr(part.generation_config, name, None) for part in parts)
        kept[name] = next((value for value in values if value is not None), None)
    if kept["eos_token_id"] is None:
        kept["eos_token_id"] = getattr(tokenizer, "eos_token_id", None)
    if kept["pad_token_id"] is None:
        end = kept["eos_token_id"]
        pad = getattr(tokenizer, "pad_token_id", None)
        kept["pad_token_id"] = pad if pad is not None else (end[0] if isinstance(end, list) else end)
    for part in parts:
        part.generation_config = transformers.GenerationConfig(**kept)


def end_tokens(model: Any) -> list[int]:
    found = model.generation_config.eos_token_id
    return [] if found is None else list(found) if isinstance(found, list | tuple) else [int(found)]


def is_encoder_decoder(model: Any) -> bool:
    """Does the answer begin anew, instead of going on from the prompt?"""
    config = model.config
    return any(getattr(part, "is_encoder_decoder", False) for part in (config, config.get_text_config(decoder=True)))


class Vocabularies:
    """The lists that were used last, as tries with their index tensors."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], tuple[Vocabulary, dict[Any, Any]]] = OrderedDict()

    def get(
        self, terms: tuple[str, ...], options: Any, tokenizer: Any, ends: Sequence[int]
    ) -> tuple[Vocabulary, dict[Any, Any]]:
        """AdapterError (permanent) when this model's tokenizer cannot write any of the terms."""
        key = (terms_digest(terms), options.max_terms, options.repeat_terms)
        found = self._kept.get(key)
        if found is None:
            try:
                vocabulary = Vocabulary(
                    terms,
                    lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"],
                    lambda tokens: tokenizer.decode(list(tokens), skip_special_tokens=True),
                    ends,
                    most=options.max_terms,
                    repeat=options.repeat_terms,
                )
            except ValueError as error:
                raise AdapterError(f"The vocabulary cannot be used: {error}.", permanent=True) from error
            found = self._kept[key] = (vocabulary, {})
            while len(self._kept) > LISTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return found


class _Family(Protocol):
    _model: Any
    _device: str

    def vocabulary(self, terms: tuple[str, ...], options: Any, tokenizer: Any, ends: Sequence[int]) -> Any: ...


class Plan:
    """The arguments of one `generate`, and how its rows are read. AdapterError when the options cannot be met."""

    def __init__(
        self,
        family: _Family,
        torch: Any,
        transformers: Any,
        tokenizer: Any,
        items: Sequence[Prepared],
        options: AdapterOptions,
        attempt: int,
    ) -> None:
        self._torch, self._transformers, self._tokenizer = torch, transformers, tokenizer
        self._model, self._device = family._model, family._device
        self._options: Any = options
        self.anew = is_encoder_decoder(self._model)
        self.ends = end_tokens(self._model)
        pad = self._model.generation_config.pad_token_id
        self.pad: int = pad if isinstance(pad, int) else 0
        self._only: OnlyTerms | None = None
        self._vocabulary: Vocabulary | None = None
        terms = items[0].request.terms if getattr(options, "vocabulary", "free") == "only" else ()
        if getattr(options, "vocabulary", "free") == "only":
            self._only_terms(family, terms)
        self.arguments: dict[str, Any] = {"generation_config": self._settings()}
        if processors := self._processors(items, attempt):
            self.arguments["logits_processor"] = transformers.LogitsProcessorList(processors)
        if stops := self._get("stop", []):
            stop = StopAtText(torch, self._decode, stops)
            self.arguments["stopping_criteria"] = transformers.StoppingCriteriaList([stop])

    def _get(self, name: str, default: Any) -> Any:
        return getattr(self._options, name, default)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _only_terms(self, family: _Family, terms: tuple[str, ...]) -> None:
        if not terms:
            raise AdapterError(
                "The answer is to be held to a vocabulary, but the recipe has none. Give its policy a vocabulary, or "
                "set the option vocabulary to 'free'.",
                permanent=True,
            )
        vocabulary, indices = family.vocabulary(terms, self._options, self._tokenizer, self.ends)
        if vocabulary.fewest_tokens > self._options.max_new_tokens:
            raise AdapterError(
                f"No term of the vocabulary fits into {self._options.max_new_tokens} new tokens: raise the most new "
                f"tokens to at least {vocabulary.fewest_tokens}.",
                permanent=True,
            )
        self._vocabulary = vocabulary
        self._only = OnlyTerms(self._torch, vocabulary, self._options.max_new_tokens, indices)

    def _settings(self) -> Any:
        """Greedy or beams; never a temperature, which the library would warn of or use."""
        beams = self._get("num_beams", 1)
        fewest = self._get("min_new_tokens", 0) if self._vocabulary is None else 0
        settings: dict[str, Any] = {
            "max_new_tokens": self._options.max_new_tokens,
            "min_new_tokens": fewest or None,
            "do_sample": False,
            "num_beams": beams,
            "repetition_penalty": self._get("repetition_penalty", 1.0),
            "no_repeat_ngram_size": self._get("no_repeat_ngram_size", 0),
        }
        if beams > 1:
            settings["length_penalty"] = self._get("length_penalty", 1.0)
        if bias := self._bias():
            settings["sequence_bias"] = bias
        stored = self._model.generation_config.to_dict()
        kept = {name: stored.get(name) for name in _KEPT if stored.get(name) is not None}
        return self._transformers.GenerationConfig(**{**kept, **settings})

    def _bias(self) -> list[list[Any]]:
        """[[tokens], bias] for every spelling of the discouraged words."""
        found: dict[tuple[int, ...], float] = {}
        for word in self._get("discouraged", []):
            for spelling in words.variants(word):
                tokens = tuple(self._tokenizer(spelling, add_special_tokens=False)["input_ids"])
                if tokens and self._decode(tokens).strip():
                    found[tokens] = -float(self._options.discourage_by)
        return [[list(tokens), bias] for tokens, bias in found.items()]

    def _processors(self, items: Sequence[Prepared], attempt: int) -> list[Any]:
        library = self._transformers.generation.logits_process
        found: list[Any] = [self._only] if self._only else []
        temperature = self._get("temperature", 0.0)
        if temperature <= 0:
            return found
        found.append(library.TemperatureLogitsWarper(float(temperature)))
        if self._get("top_k", 0):
            found.append(library.TopKLogitsWarper(self._options.top_k))
        if self._get("top_p", 1.0) < 1:
            found.append(library.TopPLogitsWarper(self._options.top_p))
        if self._get("min_p", 0.0):
            found.append(library.MinPLogitsWarper(self._options.min_p))
        seeds = [row_seed(self._options.seed, i.request.sample, i.sha256, attempt) for i in items]
        found.append(RowSampler(self._torch, seeds, self._options.max_new_tokens, self._device))
        return found

    # -- reading ------------------------------------------------------------------------------------------------------
    def answer(self, row: int, item: Prepared, tokens: list[int], prompt: list[int]) -> Answer:
        """Row `row` of the output, prompt cut off, as an answer."""
        start = self._model.generation_config.decoder_start_token_id
        if self.anew and tokens and tokens[0] == start:
            tokens = tokens[1:]
        kept, ended = batches.until_end(tokens, self.ends, self.pad)
        found = Answer(kept, "", item.length, len(kept) + ended)
        if self._vocabulary is not None:
            found.text = self._vocabulary.separator_text.join(self._vocabulary.read(kept))
            if self._only is not None and row in self._only.cut:
                found.finish_reason = "length"
            if self._vocabulary.left_out:
                found.flags.add("vocabulary_reduced")
            return found
        context = prompt[-8:] if item.prefilled and prompt else []
        text = batches.text_after(self._decode, context, kept) if context else self._decode(kept)
        text, stopped = words.cut_at_stop(text, self._get("stop", []))
        found.text = words.with_start(item.start, text, prefilled=item.prefilled)
        if not ended and not stopped and len(kept) >= self._options.max_new_tokens:
            found.finish_reason = "length"
        return found
