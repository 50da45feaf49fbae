"""Questions to one model, outside the stages of a run: merges, judges. What was answered before is not asked again.

    call = call_of(adapter_row, {"temperature": 0})
    for item, outcome in ask(call, [Item(ref=pk, image=image, prompt="…", schema={…}), …]):
        …  # outcome: the Prediction, new or cached, or an AdapterError

Only in a worker: the model is loaded here, into the worker's residency.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..adapters.base import AdapterError, Reply, Request
from ..models import ImageAsset, ModelAdapter, Prediction
from . import inferring, store
from .calls import Call
from .identity import kept_under
from .inferring import Asked, explain
from .process import stopping

#: Questions whose keys are looked up together; of these, answers are yielded in the order they come.
PART = 512
#: Answers are stored when there are so many, or after so many seconds.
STORE_AT, STORE_AFTER = 64, 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """One question: texts as they are sent. `ref` is the asker's own and stays untouched. Without an image it is a
    question of text alone."""

    ref: Any
    image: ImageAsset | None
    prompt: str = ""
    system: str = ""
    schema: dict[str, Any] | None = field(default=None, hash=False)
    sample: int = 0


Outcome = tuple[Item, Prediction | AdapterError]


def call_of(
    adapter: ModelAdapter, options: Mapping[str, Any] | None = None, *, extras: Mapping[str, Any] | None = None
) -> Call:
    """A call of a configured model: its own options, overridden by `options`. `extras` join the identity of what it
    answers. ModelUnavailable; pydantic.ValidationError for an option that it does not have."""
    effective = adapter.settled(adapter.build().options(dict(options or {})).model_dump(mode="json"))
    config = {name: getattr(adapter, name) for name in ("kind", "source", "revision", "device", "quantization")}
    return Call(adapter.slug, adapter.label, config, effective, extras=extras)


def ask(
    call: Call,
    items: Iterable[Item],
    *,
    stop: Callable[[], bool] = lambda: False,
    doing: Callable[[str], None] | None = None,
    run_id: int | None = None,
) -> Iterator[Outcome]:
    """Each question with its answer, in the order they come: first those known from before, then as the model answers.

    Answers are stored before they are yielded, in short transactions of their own: what was paid for is kept whatever
    happens to the asker. Ends early when `stop()` is true or the worker is to stop: what was not yielded was not
    answered. `doing` is told what takes long ("loading …"), and "" at each sign of progress. Raises ModelUnavailable.
    """
    items = iter(items)
    while not _over(stop) and (part := list(islice(items, PART))):
        yield from _part(call, part, stop, doing or (lambda text: None), run_id)


def _over(stop: Callable[[], bool]) -> bool:
    return stopping() or stop()


def _part(
    call: Call, items: Sequence[Item], stop: Callable[[], bool], doing: Callable[[str], None], run_id: int | None
) -> Iterator[Outcome]:
    by_key: dict[str, list[Item]] = {}
    requests: dict[str, Request] = {}
    sources: dict[str, str] = {}
    for item in items:
        request = Request(call.options, item.system, item.prompt, item.schema, item.sample)
        source = call.source(item.image)
        key = call.key(item.image, request, source)
        sources[key] = source
        by_key.setdefault(key, []).append(item)
        requests[key] = request
    for prediction in Prediction.objects.filter(key__in=list(by_key)):
        for item in by_key.pop(prediction.key):
            yield item, prediction
    if not by_key or _over(stop):
        return
    adapter = call.load(doing).adapter
    doing("")
    asked = [Asked(key, call.input(same[0].image, sources[key]), requests[key]) for key, same in by_key.items()]
    shared = Request(call.options, schema=_common([item.schema for item in items]))
    stream = inferring.answers(adapter, asked, shared, room=call.room, go_on=lambda: not _over(stop))
    new: dict[str, Reply] = {}
    stored = time.monotonic()
    try:
        for answer in stream:
            if answer is not None:
                key, outcome = answer
                doing("")
                if isinstance(outcome, Exception):
                    for item in by_key[key]:
                        yield item, _error(outcome)
                else:
                    kept = kept_under(key, outcome)
                    by_key[kept], sources[kept] = by_key[key], sources[key]
                    new[kept] = outcome
            if new and (len(new) >= STORE_AT or time.monotonic() - stored >= STORE_AFTER):
                yield from _store(call, new, by_key, sources, run_id)
                new, stored = {}, time.monotonic()
    except GeneratorExit:
        _keep(call, new, by_key, sources, run_id)
        raise
    finally:
        stream.close()
    yield from _store(call, new, by_key, sources, run_id)


def _common(schemas: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The schema that all questions share, if they do."""
    return schemas[0] if all(schema == schemas[0] for schema in schemas) else None


def _error(outcome: Exception) -> AdapterError:
    return outcome if isinstance(outcome, AdapterError) else AdapterError(explain(outcome))


def _keep(
    call: Call,
    new: Mapping[str, Reply],
    by_key: Mapping[str, Sequence[Item]],
    sources: Mapping[str, str],
    run_id: int | None,
) -> None:
    """Store new answers under their keys."""
    results = []
    for key, reply in new.items():
        image = by_key[key][0].image
        sha256 = image.sha256 if image is not None and call.sees else ""
        results.append(store.Result(0, key=key, sha256=sha256, reply=reply, source=sources[key]))
    store.add_predictions(results, call.labels, run_id)


def _store(
    call: Call,
    new: Mapping[str, Reply],
    by_key: Mapping[str, Sequence[Item]],
    sources: Mapping[str, str],
    run_id: int | None,
) -> Iterator[Outcome]:
    if not new:
        return
    _keep(call, new, by_key, sources, run_id)
    for prediction in Prediction.objects.filter(key__in=list(new)):
        for item in by_key[prediction.key]:
            yield item, prediction
