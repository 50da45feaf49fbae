"""What the new-run page asks: images, model, options."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import F
from django.http import QueryDict

from prompts.models import PromptVersion

from ..actions.recipes import ChannelSpec, get_recipe
from ..actions.runs import start_run
from ..adapters.base import Adapter, Problem
from ..adapters.registry import UnknownAdapter
from ..forms import SchemaForm
from ..models import Collection, ImageAsset, ModelAdapter, Run
from ..queries import ImageFilter, filtered
from .filters import words

LOWEST, HIGHEST = -100, 100  # priorities


class NewRun:
    """The form behind /runs/new/.

    `data` is what was posted (bound) or what the address says (collection, filter, adapter). `swapped` draws only the
    options after the adapter was changed: `options_for` in the data names the adapter they were drawn for.
    """

    FIELDS = ("collection", "adapter", "filter", "name", "priority", "prompt")

    def __init__(self, data: QueryDict, *, bound: bool = False, swapped: bool = False) -> None:
        self.data = data
        self.bound = bound
        self.swapped = swapped
        self.errors: dict[str, list[str]] = {}
        self.collections = list(Collection.objects.order_by(F("indexed_at").desc(nulls_last=True), "name"))
        self.adapters = list(ModelAdapter.objects.filter(enabled=True))
        self.collection = self._chosen("collection", self.collections)
        self.adapter = self._chosen("adapter", self.adapters)

    def _chosen(self, name: str, rows: list[Any]) -> Any:
        """The row whose slug the data names; the first one where nothing is asked for yet. What is sent is never
        guessed: a run on the wrong images costs hours."""
        slug = self.data.get(name, "")
        found = next((row for row in rows if row.slug == slug), None)
        if slug and found is None:
            self.errors[name] = [f"There is no {name} {slug!r} that can be used."]
        elif not slug and self.bound and rows:
            self.errors[name] = [f"Choose the {'model' if name == 'adapter' else name}."]
        return found or (rows[0] if rows and not slug else None)

    # -- the model and its options ----------------------------------------------------------------------------------
    @cached_property
    def adapter_class(self) -> type[Adapter] | None:
        """The code of the chosen adapter; None when its package is gone or broken (`problems` says so)."""
        return _class_of(self.adapter) if self.adapter else None

    @property
    def capabilities(self) -> dict[str, Any]:
        """What the chosen model can do; empty when its code is missing."""
        return self.adapter_class.capabilities.as_dict() if self.adapter_class else {}

    @cached_property
    def problems(self) -> list[Problem]:
        """What would keep the chosen model from loading, found without loading it."""
        if self.adapter is None:
            return []
        if self.adapter_class is None:
            return [
                Problem(f"The code of adapter kind {self.adapter.kind!r} cannot be loaded.", "Install its package.")
            ]
        return list(self.adapter.build().check())

    @cached_property
    def options(self) -> SchemaForm | None:
        if self.adapter_class is None:
            return None
        initial = self.adapter.options
        if self.bound:
            return SchemaForm(self.adapter_class.Options, data=self.data, initial=initial)
        return SchemaForm(self.adapter_class.Options, initial=initial, carry=self._carried())

    def _carried(self) -> dict[str, Any]:
        """What the person changed in the options of the adapter chosen before."""
        before = next((a for a in self.adapters if a.slug == self.data.get("options_for", "")), None)
        code = _class_of(before) if self.swapped and before else None
        return SchemaForm(code.Options, data=self.data, initial=before.options).changed() if code and before else {}

    @cached_property
    def prompts(self) -> list[PromptVersion]:
        """Versions that the chosen model could be asked with; empty for models that take no prompt."""
        if self.adapter_class is None or not self.adapter_class.capabilities.prompt:
            return []
        versions = PromptVersion.objects.select_related("prompt").order_by("prompt__slug", "-number")[:200]
        return [v for v in versions if not v.prompt.families or self.adapter.kind in v.prompt.families]

    # -- the images -------------------------------------------------------------------------------------------------
    @cached_property
    def filter(self) -> ImageFilter | None:
        """The filter that the run is limited to; None for the whole collection."""
        text = self.data.get("filter", "")
        if not text:
            return None
        try:
            return ImageFilter.parse(QueryDict(text))
        except ValidationError as e:
            self.errors.setdefault("filter", []).extend(e.messages)
            return None

    @property
    def filter_words(self) -> list[str]:
        """The filter as a person reads it."""
        return [word.text for word in words(self.filter)] if self.filter else []

    @property
    def name(self) -> str:
        return str(self.data.get("name", ""))[:160]

    @property
    def shown(self) -> bool:
        """Ticked at first; when the form was sent, as it was sent."""
        return "shown" in self.data if self.bound else self.data.get("shown", "on") == "on"

    @property
    def priority(self) -> str:
        return str(self.data.get("priority", "0"))

    # -- doing it ---------------------------------------------------------------------------------------------------
    def is_valid(self) -> bool:
        for name, row in (("collection", self.collection), ("adapter", self.adapter)):
            if row is None:
                self.errors.setdefault(name, [f"Choose a {name}." if name == "collection" else "Choose a model."])
        try:
            if not LOWEST <= int(self.priority or 0) <= HIGHEST:
                raise ValueError
        except ValueError:
            self.errors["priority"] = [f"A whole number from {LOWEST} to {HIGHEST}."]
        if len(self.data.get("name", "")) > 160:
            self.errors["name"] = ["At most 160 characters."]
        if self.prompt_slug and self.prompt is None:
            self.errors["prompt"] = ["There is no such prompt version for this model."]
        _ = self.filter
        if self.options is None:
            self.errors.setdefault("adapter", ["This model cannot be used here."])
            return False
        return self.options.is_valid() and not self.errors

    @property
    def prompt_slug(self) -> str:
        return str(self.data.get("prompt", ""))

    @property
    def prompt(self) -> PromptVersion | None:
        return next((v for v in self.prompts if str(v.pk) == self.prompt_slug), None)

    def start(self, by: User) -> Run:
        """Make the recipe and the run. ValidationError with the field's name when either is refused."""
        if not (self.collection and self.adapter and self.options):
            raise ValueError("start() comes after is_valid()")
        channel = ChannelSpec(adapter=self.adapter, prompt_version=self.prompt, options=self.options.cleaned)
        recipe = get_recipe([channel], by=by)
        images = None
        if self.filter:
            usable = {"state": ImageAsset.State.READY, "missing_since": None}
            images = filtered(self.collection, self.filter).filter(**usable)
        return start_run(
            recipe,
            collection=self.collection,
            images=images,
            name=self.name,
            shown=self.shown,
            priority=int(self.priority or 0),
            by=by,
        )

    def refuse(self, error: ValidationError) -> None:
        """Put an action's refusal beside the fields it names."""
        found = error.message_dict if hasattr(error, "error_dict") else {"form": error.messages}
        for name, lines in found.items():
            if self.options is not None and name in self.options.properties:
                self.options.errors.setdefault(name, []).extend(lines)
                self.options.__dict__.pop("fields", None)  # drawn anew, with the error
            else:
                known = name if name in self.FIELDS else "form"
                self.errors.setdefault(known, []).extend(lines)


def _class_of(row: ModelAdapter) -> type[Adapter] | None:
    try:
        return row.adapter_class
    except (UnknownAdapter, ImportError, TypeError):
        return None
