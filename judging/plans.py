"""What the new-experiment page asks: images, a base, axes; the plan it makes of that."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import F
from django.http import QueryDict

from prompts.models import Prompt, PromptVersion
from tagging.adapters.registry import UnknownAdapter
from tagging.models import Collection, Label, ModelAdapter, PolicyVersion, Recipe, Run
from tagging.queries import ImageFilter
from tagging.views.filters import words

from .actions import experiments
from .actions.cells import option_names
from .actions.preflight import Preflight, bases, preflight
from .grid import parse_values
from .models import Experiment

RUNS = 20  # offered to be compared as they are
ROWS = 3  # empty rows for options to vary
VERSIONS = 4  # of each prompt and policy, the newest
MODES = (
    ("around", "Around a recipe", "One thing varies at a time, all else stays as in the base."),
    ("product", "Every combination", "Of the models, prompts and values below."),
    ("linked", "Recipes as they are", "Those ticked below, beside each other."),
)
RULES = (
    ("union", {"rule": "union"}, "union: what any model says"),
    ("intersection", {"rule": "intersection"}, "intersection: what all models say"),
    ("votes", {"rule": "votes", "votes": 2}, "votes: what at least two models say"),
)


class Plan:
    """The form behind /judging/experiments/new/. `data` is what was posted, or what the address says."""

    def __init__(self, data: QueryDict, *, bound: bool = False) -> None:
        self.data = data
        self.bound = bound
        self.errors: dict[str, list[str]] = {}
        self.found: Preflight | None = None
        self.collections = list(Collection.objects.order_by(F("indexed_at").desc(nulls_last=True), "name"))
        slug = data.get("collection", "")
        self.collection = next((c for c in self.collections if c.slug == slug), None)
        if self.collection is None and not slug and self.collections:
            self.collection = self.collections[0]
        self.mode = data.get("mode") if data.get("mode") in [m for m, _, _ in MODES] else self._first_mode()

    def _first_mode(self) -> str:
        """Around the champion where there is one, else every combination."""
        return "around" if any(label.name == "champion" for label in self.labels) else "product"

    # -- what can be chosen
    @property
    def modes(self) -> Iterable[tuple[str, str, str]]:
        return MODES

    @property
    def labels(self) -> list[Label]:
        if not hasattr(self, "_labels"):
            rows = Label.objects.select_related("recipe", "adapter", "collection").order_by("name", "pk")
            here = self.collection.pk if self.collection else None
            self._labels = [row for row in rows if row.collection_id in (None, here)]
        return self._labels

    @property
    def recipes(self) -> list[tuple[Recipe, bool]]:
        """(recipe, ticked): labelled ones and those of the last runs."""
        ticked = set(self.data.getlist("recipe"))
        return [(recipe, str(recipe.pk) in ticked) for recipe in (bases(self.collection) if self.collection else [])]

    @property
    def runs(self) -> list[Run]:
        """The last runs of the collection that have results, to be put beside each other as they are."""
        rows = Run.objects.listed().filter(collection=self.collection).exclude(state=Run.State.RUNNING)
        return list(rows.filter(started_at__isnull=False).order_by("-pk")[:RUNS]) if self.collection else []

    @property
    def base(self) -> str:
        return self.data.get("base", "") or next((x.reference for x in self.labels if x.name == "champion"), "")

    @property
    def adapters(self) -> list[tuple[ModelAdapter, bool]]:
        ticked = set(self.data.getlist("adapter"))
        return [(row, row.slug in ticked) for row in ModelAdapter.objects.filter(enabled=True)]

    @property
    def prompts(self) -> list[tuple[Prompt, list[tuple[PromptVersion, bool]]]]:
        """The newest versions of each prompt for tags and captions, and those that are ticked."""
        ticked = set(self.data.getlist("prompt"))
        wanted = Prompt.objects.filter(task__in=(Prompt.Task.TAGS, Prompt.Task.CAPTION)).prefetch_related("versions")
        found = []
        for prompt in wanted:
            versions = sorted(prompt.versions.all(), key=lambda v: -v.number)
            shown = [v for at, v in enumerate(versions) if at < VERSIONS or str(v.pk) in ticked]
            for version in shown:
                version.prompt = prompt
            if shown:
                found.append((prompt, [(v, str(v.pk) in ticked) for v in shown]))
        return found

    @property
    def policies(self) -> list[tuple[PolicyVersion, bool]]:
        ticked = set(self.data.getlist("policy"))
        rows = PolicyVersion.objects.select_related("policy").order_by("policy__slug", "-number")
        seen: dict[int, int] = {}
        found = []
        for row in rows:
            seen[row.policy_id] = seen.get(row.policy_id, 0) + 1
            if seen[row.policy_id] <= VERSIONS or str(row.pk) in ticked:
                found.append((row, str(row.pk) in ticked))
        return found

    @property
    def rules(self) -> list[tuple[str, str, bool]]:
        ticked = set(self.data.getlist("rule"))
        return [(name, label, name in ticked) for name, _, label in RULES]

    @property
    def option_names(self) -> list[str]:
        """Of the models ticked; of all, where none is."""
        rows = [row for row, ticked in self.adapters if ticked] or [row for row, _ in self.adapters]
        found: dict[str, None] = {}
        for row in rows:
            try:
                found |= dict.fromkeys(option_names(row))
            except UnknownAdapter:
                continue
        return sorted(found)

    @property
    def option_rows(self) -> list[tuple[str, str]]:
        """(option, values) as typed, and a few empty ones."""
        given = zip(self.data.getlist("option"), self.data.getlist("values"), strict=False)
        typed = [(name, values) for name, values in given if name or values]
        return [*typed, *[("", "")] * max(1, ROWS - len(typed))]

    @property
    def filter_words(self) -> list[Any]:
        try:
            return words(ImageFilter.parse(QueryDict(self.data.get("filter", ""))))
        except ValidationError:
            return [self.data.get("filter", "")]

    def value(self, name: str, default: str = "") -> str:
        return str(self.data.get(name, default))

    @property
    def values(self) -> dict[str, str]:
        """What the plain inputs show."""
        shown = {"samples": "1", "holdout": "0", "seed": "0", "margin": "0.02", "sample": "200"}
        plain = ("name", "question", "prompt_map", "exclude", *shown)
        return {name: self.value(name, "" if self.bound else shown.get(name, "")) for name in plain}

    @property
    def more_open(self) -> bool:
        return any(name in self.errors for name in ("samples", "holdout", "seed", "margin", "prompt_map", "exclude"))

    # -- the plan
    def axes(self) -> dict[str, Any]:
        """Errors go to `errors`."""
        options: dict[str, Any] = {}
        for name, values in self.option_rows:
            if bool(name.strip()) != bool(values.strip()):
                self.refuse("options", f"{name or values}: give the option and its values.")
            elif name:
                try:
                    options[name.strip()] = parse_values(values, name.strip())
                except ValueError as e:
                    self.refuse("options", str(e))
        axes: dict[str, Any] = {
            "mode": self.mode,
            "adapters": self.data.getlist("adapter"),
            "prompts": self._numbers("prompt", "prompts"),
            "options": options,
            "policies": self._numbers("policy", "policies"),
            "combine": [rule for name, rule, _ in RULES if name in self.data.getlist("rule")],
            "recipes": self._numbers("recipe", "recipes"),
            "prompt_map": self._prompt_map(),
            "exclude": self._exclude(),
        }
        return {name: value for name, value in axes.items() if value}

    def _numbers(self, name: str, field: str) -> list[int]:
        found = []
        for text in self.data.getlist(name):
            if not (text.isascii() and text.isdigit() and len(text) < 19):
                self.refuse(field, f"{text[:40]!r} is not a number.")
            else:
                found.append(int(text))
        return found

    def _prompt_map(self) -> dict[str, list[int]]:
        """ "slug: 12, 13" a line."""
        found: dict[str, list[int]] = {}
        for line in self.value("prompt_map").splitlines():
            slug, colon, numbers = line.partition(":")
            if not line.strip():
                continue
            parts = [part.strip() for part in numbers.split(",") if part.strip()]
            if not colon or not parts or not all(part.isascii() and part.isdigit() for part in parts):
                self.refuse(
                    "prompt_map", f"{line.strip()!r}: write a model's slug, a colon, prompt versions: vlm: 3, 7"
                )
                continue
            found[slug.strip()] = [int(part) for part in parts]
        return found

    def _exclude(self) -> list[dict[str, Any]]:
        """ "adapter=wd threshold=0.2" a line: a combination to leave out."""
        found = []
        for line in self.value("exclude").splitlines():
            rule: dict[str, Any] = {}
            for word in line.split():
                name, equals, text = word.partition("=")
                if not equals or not text:
                    self.refuse("exclude", f"{word!r}: write name=value, as in adapter=wd threshold=0.2")
                    continue
                try:
                    value = json.loads(text)
                except ValueError:
                    value = text
                if name in ("adapter", "prompt", "policy", "rule"):
                    rule[name] = str(value) if name in ("adapter", "rule") else value
                else:
                    rule.setdefault("options", {})[name] = value
            if rule:
                found.append(rule)
        return found

    def number(self, name: str, kind: type[int] | type[float], default: float | None) -> Any:
        text = self.value(name).strip()
        if not text:
            return default
        try:
            return kind(text)
        except ValueError:
            self.refuse(name, f"{text[:40]!r} is not a {'whole ' if kind is int else ''}number.")
            return default

    def refuse(self, field: str, text: str) -> None:
        self.errors.setdefault(field, []).append(text)

    def _arguments(self) -> dict[str, Any]:
        holdout = self.number("holdout", float, 0.0)
        return {
            "axes": self.axes(),
            "base": self.base if self.mode == "around" or self.data.get("base") else "",
            "filter": self.value("filter"),
            "sample": self.number("sample", int, None) if self.bound or "sample" in self.data else 200,
            "seed": self.number("seed", int, 0),
            "holdout": holdout / 100,
            "samples": self.number("samples", int, 1),
        }

    def look(self) -> None:
        """Work the preflight out; what is wrong goes to `errors`."""
        arguments = self._arguments()
        if self.collection is None:
            self.refuse("collection", "Choose a collection.")
        if self.errors or self.collection is None:
            return
        try:
            self.found = preflight(self.collection, arguments.pop("axes"), **arguments)
        except ValidationError as e:
            self.take(e)

    def make(self, by: User) -> Experiment | None:
        """The experiment; None with `errors` where something is wrong."""
        arguments = self._arguments()
        margin = self.number("margin", float, 0.02)
        if self.collection is None:
            self.refuse("collection", "Choose a collection.")
        if self.errors or self.collection is None:
            return None
        try:
            return experiments.create_experiment(
                self.collection,
                arguments.pop("axes"),
                name=self.value("name"),
                question=self.value("question"),
                margin=margin,
                by=by,
                **arguments,
            )
        except ValidationError as e:
            self.take(e)
            return None

    def take(self, error: ValidationError) -> None:
        if hasattr(error, "error_dict"):
            for name, texts in error.message_dict.items():
                for text in texts:
                    self.refuse(name, text)
        else:
            self.errors.setdefault("form", []).extend(error.messages)
