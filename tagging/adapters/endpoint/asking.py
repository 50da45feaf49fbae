"""One image's question, from the prompt to a reply that was checked: the ladder, one repair, the words of a list."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base import AdapterError, Reply, Request, ScoredTag
from . import schema as schemas
from .choosing import Chooser, with_terms
from .client import Client, FormatRefused
from .images import Encoded
from .ladder import instruction, response_format
from .options import EndpointOptions
from .reading import Answer, json_value

_OPTIONS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is asked about one image; without a picture the question is text alone."""

    name: str
    request: Request
    picture: Encoded | None = None


@dataclass(slots=True)
class Spent:
    """What the calls for one image came to."""

    tokens_in: int = 0
    tokens_out: int = 0
    counted: bool = False
    flags: list[str] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        if answer.tokens_in is not None or answer.tokens_out is not None:
            self.counted = True
            self.tokens_in += answer.tokens_in or 0
            self.tokens_out += answer.tokens_out or 0

    def flag(self, name: str) -> None:
        if name not in self.flags:
            self.flags.append(name)


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer, and the JSON in it where JSON was asked for and came in the form that was asked for."""

    answer: Answer
    value: Any = None
    valid: bool = True
    repaired: bool = False


class Question:
    """Asks one model about one image. Not for several threads; makes one call at a time."""

    def __init__(self, client: Client, prepared: Prepared, closed: Callable[[], bool]) -> None:
        self.client, self.prepared, self.closed = client, prepared, closed
        self.request = prepared.request
        self.options: EndpointOptions = self.request.options  # type: ignore[assignment]
        self.spent = Spent()

    def reply(self) -> Reply:
        """The reply. AdapterError; ModelUnavailable; limits.Closed."""
        began = time.monotonic()
        if self.options.vocabulary == "only":
            found = self._chosen()
        else:
            checked = self.ask(self.request.schema)
            found = Reply(text=_text(checked), finish_reason=self._noted(checked))
        found.seconds = time.monotonic() - began
        if self.spent.counted:
            found.tokens_in, found.tokens_out = self.spent.tokens_in, self.spent.tokens_out
            if self.options.price_in or self.options.price_out:
                found.cost = self.options.cost(self.spent.tokens_in, self.spent.tokens_out)
                found.currency = self.options.currency
        found.flags = tuple(self.spent.flags)
        return found

    def _noted(self, checked: Checked) -> str:
        """Flags of an answer; its finish reason."""
        answer, flag = checked.answer, self.spent.flag
        if answer.finish_reason == "length":
            flag("truncated")
        if answer.refusal:
            flag("refusal")
            flag(f"refusal: {answer.refusal[:120]}")
        elif answer.finish_reason == "content_filter":
            flag("content_filter")
        elif not answer.text.strip() and answer.finish_reason != "length":
            flag("no_answer")
        elif not checked.valid:
            flag("parse_failed")
        elif checked.repaired:
            flag("repaired")
        if answer.model and self.client.ladder.moved(answer.model):
            flag("alias_moved")
        if answer.model and answer.model != self.options.model:
            flag(f"model={answer.model.replace(chr(92), '/').rpartition('/')[2][:100]}")
        return answer.finish_reason

    # -- one answer -------------------------------------------------------------------------------------------------
    def ask(self, schema: dict[str, Any] | None, more: str = "") -> Checked:
        """Ask, with `more` after the prompt. With a schema: by the best rung the server takes, checked, and once more
        with what is wrong when the answer is not of the form."""
        if schema is None:
            answer = self._call(None, "", more, [])
            return Checked(answer)
        rung, answer = self._climb(schema, more)
        checked = self._check(answer, schema)
        if checked.valid:
            self.client.ladder.in_form(rung)
            return checked
        if answer.refusal or answer.finish_reason == "content_filter":
            return checked
        if answer.finish_reason != "length":
            self.client.ladder.out_of_form(rung)
        return self._again(schema, more, rung, checked)

    def _climb(self, schema: dict[str, Any], more: str) -> tuple[str, Answer]:
        """The first rung that the server takes, and its answer there."""
        refused: list[str] = []
        rungs = self.client.ladder.rungs(self.options.response_format)
        for rung in rungs:
            try:
                answer = self._call(schema, rung, more, [])
            except FormatRefused as error:
                refused.append(rung)
                if rung == rungs[-1]:  # refused without any format as well: the fault lies elsewhere
                    raise self.client.refused_for_good(error) from None
                continue
            for lower in refused:
                self.client.ladder.refuse(lower)
            if rung != "json_schema" and self.options.response_format == "auto":
                self.spent.flag(f"fallback: {rung}")
            return rung, answer
        raise AssertionError("there is always a rung")

    def _again(self, schema: dict[str, Any], more: str, rung: str, before: Checked) -> Checked:
        """One more try that says what was wrong; the first answer where this one is no better."""
        wrong = "; ".join(schemas.problems(before.value, schema)) if before.value is not None else "it is not JSON"
        turns = [
            {"role": "assistant", "content": before.answer.text[:8000] or "…"},
            {
                "role": "user",
                "content": f"That answer does not have the form that is needed: {wrong}. "
                f"Answer again.\n{instruction('none', schema)}",
            },
        ]
        try:
            answer = self._call(schema, rung, more, turns)
        except AdapterError:
            return before
        self.spent.flag("asked_again")
        checked = self._check(answer, schema)
        return checked if checked.valid else before

    def _check(self, answer: Answer, schema: dict[str, Any]) -> Checked:
        try:
            value, repaired = json_value(answer.text)
        except ValueError:
            return Checked(answer, valid=False)
        return Checked(answer, value, not schemas.problems(value, schema), repaired)

    def _call(self, schema: dict[str, Any] | None, rung: str, more: str, turns: list[dict[str, Any]]) -> Answer:
        told = instruction(rung, schema) if schema is not None else ""
        body = self.body([*self._messages("\n\n".join(t for t in (more, told) if t)), *turns])
        if schema is not None and (shape := response_format(rung, schema)):
            body["response_format"] = shape
        try:
            answer = self.client.call(body, self.closed)
        except FormatRefused as error:
            if schema is None:
                raise self.client.refused_for_good(error) from None
            raise
        self.spent.add(answer)
        return answer

    # -- what is sent -----------------------------------------------------------------------------------------------
    def _messages(self, more: str) -> list[dict[str, Any]]:
        """System line, then the prompt, the picture and what else there is to say. That comes last, so that a server
        which remembers prompts by their beginning reads the picture once."""
        found: list[dict[str, Any]] = []
        if self.request.system:
            found.append({"role": "system", "content": self.request.system})
        picture = self.prepared.picture
        if picture is None:
            text = "\n\n".join(t for t in (self.request.prompt, more) if t)
            found.append({"role": "user", "content": text})
            return found
        image: dict[str, Any] = {"url": picture.uri}
        if self.options.detail != "auto":
            image["detail"] = self.options.detail
        parts: list[dict[str, Any]] = []
        if self.request.prompt:
            parts.append({"type": "text", "text": self.request.prompt})
        parts.append({"type": "image_url", "image_url": image})
        if more:
            parts.append({"type": "text", "text": more})
        found.append({"role": "user", "content": parts})
        return found

    def body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The arguments of the call: what is not set is not sent."""
        o = self.options
        body: dict[str, Any] = {"model": o.model, "messages": messages, "max_tokens": o.max_tokens}
        for name in _OPTIONS:
            if (value := getattr(o, name)) is not None:
                body[name] = value
        if o.seed is not None:
            body["seed"] = o.seed + self.request.sample
        if o.stop:
            body["stop"] = list(o.stop)
        extra: dict[str, Any] = {}
        for name in ("top_k", "min_p"):
            if (value := getattr(o, name)) is not None:
                extra[name] = value
        if o.repetition_penalty is not None:
            extra["repetition_penalty"] = extra["repeat_penalty"] = o.repetition_penalty
        extra.update(o.extra_body)
        if extra:
            body["extra_body"] = extra
        return body

    # -- the words of a list ----------------------------------------------------------------------------------------
    def _chosen(self) -> Reply:
        terms = self.request.terms
        if not terms:
            raise AdapterError(
                "The answer shall keep to a vocabulary, but none was given: choose a vocabulary list, or set Words to "
                "the model's own.",
                permanent=True,
            )
        chooser = Chooser(terms, self.options.terms_per_question)
        asked: list[Checked] = []

        def pick(part: Sequence[str], final: bool) -> list[str]:
            shape = with_terms(self.request.schema if final else None, part)
            checked = self.ask(shape, chooser.question(part))
            asked.append(checked)
            self._noted(checked)
            return chooser.picked(checked.value if checked.value is not None else checked.answer.text, part)

        chosen = chooser.choose(pick)
        last = asked[-1]
        caption = _caption(last.value)
        text = json.dumps({"tags": chosen, **({"caption": caption} if caption else {})}, ensure_ascii=False)
        reason = "length" if "truncated" in self.spent.flags else last.answer.finish_reason
        return Reply(
            tags=tuple(ScoredTag(name) for name in chosen), caption=caption or None, text=text, finish_reason=reason
        )


def _text(checked: Checked) -> str:
    """The answer as it came; where it had to be repaired, the JSON that it holds."""
    if checked.valid and checked.repaired:
        return json.dumps(checked.value, ensure_ascii=False)
    return checked.answer.text


def _caption(value: Any) -> str:
    if isinstance(value, dict):
        for name in ("caption", "description", "summary"):
            if isinstance(value.get(name), str):
                return " ".join(value[name].split())
    return ""
