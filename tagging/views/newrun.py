"""What the new-run page asks: images, a model with its options or a recipe, policy, and how the run is done."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import F
from django.http import QueryDict

from ..actions.labels import UnknownLabel, find_recipe
from ..actions.recipes import get_recipe
from ..actions.runs import HIGHEST_SAMPLE, start_run
from ..forms import SchemaForm
from ..models import Collection, ImageAsset, Label, PolicyVersion, Recipe, Run
from ..queries import ImageFilter, filtered
from .channelform import ChannelForm, refusals
from .filters import words

LOWEST, HIGHEST = -100, 100  # priorities
OFFERED = 50  # recipes in the list; others can be written by number or key
POLICIES = 200  # policy versions in the list


class NewRun:
    """The form behind /runs/new/.

    `data` is what was posted (bound) or what the address says (collection, filter, adapter, recipe). A run is asked for
    with a model (`channel`, unprefixed) or with a recipe that exists: `by` in the data says which.
    """

    FIELDS = ("collection", "filter", "name", "priority", "recipe", "policy", "budget", "sample")

    def __init__(self, data: QueryDict, *, bound: bool = False, user: User | None = None) -> None:
        self.data = data
        self.bound = bound
        self.errors: dict[str, list[str]] = {}
        self.collections = list(Collection.objects.order_by(F("indexed_at").desc(nulls_last=True), "name"))
        self.collection = self._chosen()
        self.channel = ChannelForm(data, bound=bound and not self.by_recipe, by=user)

    def _chosen(self) -> Collection | None:
        """The collection whose slug the data names; the first one where nothing is asked for yet. What is sent is never
        guessed: a run on the wrong images costs hours."""
        slug = self.data.get("collection", "")
        found = next((row for row in self.collections if row.slug == slug), None)
        if slug and found is None:
            self.errors["collection"] = [f"There is no collection {slug!r} that can be used."]
        elif not slug and self.bound and self.collections:
            self.errors["collection"] = ["Choose the collection."]
        return found or (self.collections[0] if self.collections and not slug else None)

    # -- the model, or a recipe -------------------------------------------------------------------------------------
    @property
    def by_recipe(self) -> bool:
        """A recipe is asked for, not a model."""
        return self.data.get("by", "recipe" if self.data.get("recipe") else "model") == "recipe"

    @property
    def options(self) -> SchemaForm | None:
        return self.channel.options

    @property
    def recipe_text(self) -> str:
        return str(self.data.get("recipe", "")).strip()

    @cached_property
    def recipe(self) -> Recipe | None:
        """What is named: a number, the beginning of a key, or a label that applies to the collection."""
        try:
            return find_recipe(self.recipe_text, collection=self.collection) if self.recipe_text else None
        except UnknownLabel as e:
            self.errors["recipe"] = [str(e)]
            return None

    @cached_property
    def labels(self) -> list[Label]:
        """Labels that apply to the collection, for the list of what can be asked for."""
        rows = Label.objects.select_related("recipe", "adapter", "collection").order_by("name", "pk")
        return [row for row in rows if row.collection_id in (None, self.collection.pk if self.collection else None)]

    @cached_property
    def recipes(self) -> list[Recipe]:
        """The newest recipes."""
        return list(Recipe.objects.prefetch_related("channels__adapter").order_by("-pk")[:OFFERED])

    @cached_property
    def policies(self) -> list[PolicyVersion]:
        """Versions of policies, each policy's newest first."""
        return list(PolicyVersion.objects.select_related("policy").order_by("policy__slug", "-number")[:POLICIES])

    @property
    def policy(self) -> PolicyVersion | None:
        """The version that is chosen; None for the default policy as it is now."""
        return next((p for p in self.policies if str(p.pk) == self.data.get("policy", "")), None)

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

    @property
    def sample(self) -> str:
        return str(self.data.get("sample", "0")).strip()

    @property
    def budget(self) -> str:
        return str(self.data.get("budget", "")).strip()

    # -- doing it ---------------------------------------------------------------------------------------------------
    def is_valid(self) -> bool:
        if self.collection is None:
            self.errors.setdefault("collection", ["Choose a collection."])
        try:
            if not LOWEST <= int(self.priority or 0) <= HIGHEST:
                raise ValueError
        except ValueError:
            self.errors["priority"] = [f"A whole number from {LOWEST} to {HIGHEST}."]
        if not (self.sample or "0").isdecimal() or int(self.sample or 0) > HIGHEST_SAMPLE:
            self.errors["sample"] = [f"A whole number from 0 to {HIGHEST_SAMPLE}."]
        if len(self.data.get("name", "")) > 160:
            self.errors["name"] = ["At most 160 characters."]
        if self.data.get("policy") and self.policy is None:
            self.errors["policy"] = ["There is no such version of a policy."]
        _ = self.filter
        if self.by_recipe:
            if self.recipe is None:
                self.errors.setdefault("recipe", ["Name a recipe: a label, its number, or the beginning of its key."])
            return not self.errors
        return self.channel.is_valid() and not self.errors

    @property
    def has_errors(self) -> bool:
        return bool(self.errors or self.channel.errors or (self.options and self.options.errors))

    @property
    def more_open(self) -> bool:
        """Something behind the disclosure needs to be seen."""
        return any(self.errors.get(name) for name in ("name", "priority", "budget", "sample"))

    def start(self, by: User) -> Run:
        """Make the recipe and the run. ValidationError with the field's name when either is refused."""
        if self.collection is None:
            raise ValueError("start() comes after is_valid()")
        recipe = self.recipe if self.by_recipe else self._recipe(by)
        if recipe is None:
            raise ValueError("start() comes after is_valid()")
        images = None
        if self.filter:
            usable = {"state": ImageAsset.State.READY, "missing_since": None}
            images = filtered(self.collection, self.filter).filter(**usable)
        return start_run(recipe, collection=self.collection, images=images, by=by, **self._settings())

    def _recipe(self, by: User) -> Recipe:
        return get_recipe([self.channel.spec()], policy_version=self.policy, by=by)

    def _settings(self) -> dict[str, Any]:
        """How the run is done."""
        return {
            "name": self.name,
            "shown": self.shown,
            "priority": int(self.priority or 0),
            "budget": self.budget,
            "sample": int(self.sample or 0),
        }

    def refuse(self, error: ValidationError) -> None:
        """Put an action's refusal beside the fields it names."""
        for name, lines in refusals(error).items():
            if self.by_recipe or not self.channel.refuse(name, lines):
                known = name if name in self.FIELDS else "form"
                self.errors.setdefault(known, []).extend(lines)
