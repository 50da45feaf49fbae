"""Labels: where they point, how they are moved, how they go back. A pointer and its history move in one transaction."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from ..adapters.registry import UnknownAdapter
from ..models import Collection, Label, LabelEvent, ModelAdapter, Recipe
from ..models.labels import name_validator
from .label_metrics import metrics_of

WHY_LENGTH = 400
_REFERENCE = re.compile(r"(?:(?P<task>[^/@]*)/)?(?P<name>[^/@]+)(?:@(?P<adapter>.+))?\Z")
_KEY = re.compile(r"[0-9a-f]{8,64}\Z")
_NUMBER = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_LISTED = 20


class UnknownLabel(LookupError):
    """No label of that name applies here. The text lists those there are; nothing else is taken instead."""

    def __str__(self) -> str:
        return str(self.args[0])


# -- finding ----------------------------------------------------------------------------------------------------------
def resolve(
    name: str, task: str = "", adapter: ModelAdapter | None = None, collection: Collection | None = None
) -> Label:
    """The label of that name that applies, the most specific first: one of the collection goes before one of the
    adapter, which goes before one of the task, which goes before the global one.

    A label within a scope applies only there. Without a `task` one for any task goes first; where there are only some
    for different tasks, equally near and with different recipes, that is an error as much as none is: UnknownLabel.
    """
    found = Label.objects.filter(name=name).filter(Q(adapter=None) | Q(adapter=adapter))
    found = found.filter(Q(collection=None) | Q(collection=collection))
    if task:
        found = found.filter(task__in=("", task))
    near = sorted(
        found.select_related("recipe", "adapter", "collection"),
        key=lambda one: (one.collection_id is None, one.adapter_id is None, bool(task) != bool(one.task), one.pk),
    )
    if not near:
        raise UnknownLabel(_nothing(name, task, adapter, collection))
    if not task and near[0].task:
        best = [n for n in near if (n.collection_id, n.adapter_id) == (near[0].collection_id, near[0].adapter_id)]
        if len({label.recipe_id for label in best}) > 1:
            names = " or ".join(label.reference for label in best)
            raise UnknownLabel(f"There is more than one label {name!r} here: say {names}.")
    return near[0]


def _nothing(name: str, task: str, adapter: ModelAdapter | None, collection: Collection | None) -> str:
    parts = [f"for {task}" if task else "", f"with {adapter.slug}" if adapter else ""]
    parts.append(f"for the collection {collection}" if collection else "")
    where = " ".join(["", *(p for p in parts if p)])
    there = Label.objects.select_related("adapter", "collection").order_by("name", "pk")[: _LISTED + 1]
    listed = ", ".join(f"{n.reference} ({n.scope})" for n in there[:_LISTED])
    more = ", …" if len(there) > _LISTED else ""
    return f"There is no label {name!r}{where}; there is {listed + more if listed else 'none yet: give a recipe one'}."


def find_recipe(text: str, *, collection: Collection | None = None) -> Recipe:
    """A recipe by what a person writes: its number, a label ([task/]name[@model]) that applies to the collection, or
    the first eight or more digits of its key. UnknownLabel says what is wrong with it."""
    text = text.strip()
    if _NUMBER.match(text):
        found = Recipe.objects.filter(pk=int(text)).first()
        if found is None and len(text) < 8:
            raise UnknownLabel(f"There is no recipe {text}.")
        if found is not None:
            return found
    try:
        return _by_reference(text, collection).recipe
    except UnknownLabel:
        if not _KEY.match(text.lower()):
            raise
    several = list(Recipe.objects.filter(key__startswith=text.lower())[:2])
    if len(several) != 1:
        raise UnknownLabel(f"{'More than one' if several else 'No'} recipe's key begins with {text!r}.")
    return several[0]


def _by_reference(text: str, collection: Collection | None) -> Label:
    parts = _REFERENCE.match(text)
    if parts is None:
        raise UnknownLabel(f"{text!r} is neither a recipe's number nor a label: write [task/]name[@model].")
    task, slug = parts["task"] or "", parts["adapter"]
    if task and task not in Label.Task.values:
        raise UnknownLabel(f"{task!r} is no task; known: {', '.join(Label.Task.values)}.")
    adapter = ModelAdapter.objects.filter(slug=slug).first() if slug else None
    if slug and adapter is None:
        raise UnknownLabel(f"There is no model {slug!r}.")
    return resolve(parts["name"], task, adapter, collection)


# -- moving -----------------------------------------------------------------------------------------------------------
def move_label(
    name: str,
    recipe: Recipe,
    *,
    why: str,
    task: str = "",
    adapter: ModelAdapter | None = None,
    collection: Collection | None = None,
    metrics: dict[str, Any] | None = None,
    by: AbstractBaseUser | None = None,
) -> LabelEvent:
    """Point a label at a recipe; the label is made where the scope has none of that name.

    What is known of the recipe now (`label_metrics`) is kept with the event, under what the caller measured. Raises
    ValidationError keyed by "name", "task", "why", "recipe" (it points there already, or the recipe has not what the
    scope names).
    """
    name, why = name.strip(), " ".join(why.split())
    _check(name, task, adapter, recipe, why)
    known = {**metrics_of(recipe, collection), **(metrics or {})}
    scope = {"name": name, "task": task, "adapter": adapter, "collection": collection}
    return _move(scope, recipe, why, known, by)


def back_to(event: LabelEvent, *, why: str = "", by: AbstractBaseUser | None = None) -> LabelEvent:
    """Point the label where that event had pointed it. A recipe holds all there is, so that this restores prompt,
    options, adapter, lists and policy together. ValidationError keyed by "recipe" when it points there already."""
    label, recipe = event.label, event.to_recipe
    why = " ".join(why.split()) or f"Back to {recipe} of {timezone.localtime(event.at):%d %b %Y %H:%M}"
    _check(label.name, label.task, None, recipe, why)
    scope = {"name": label.name, "task": label.task, "adapter": label.adapter, "collection": label.collection}
    return _move(scope, recipe, why, metrics_of(recipe, label.collection), by, event)


def _move(
    scope: dict[str, Any],
    recipe: Recipe,
    why: str,
    metrics: dict[str, Any],
    by: AbstractBaseUser | None,
    back: LabelEvent | None = None,
) -> LabelEvent:
    where = {k: v for k, v in scope.items() if v is not None} | {
        f"{k}__isnull": True for k, v in scope.items() if v is None
    }
    now = timezone.now()
    for _ in range(2):
        try:
            with transaction.atomic():
                label = Label.objects.select_for_update().filter(**where).first()
                before = label.recipe if label else None
                if label is None:
                    label = Label.objects.create(**scope, recipe=recipe, moved_at=now)
                elif before == recipe:
                    raise ValidationError({"recipe": f"{label} points to {recipe} already."})
                else:
                    label.recipe, label.moved_at = recipe, now
                    label.save(update_fields=["recipe", "moved_at"])
                return LabelEvent.objects.create(
                    label=label,
                    from_recipe=before,
                    to_recipe=recipe,
                    why=why,
                    metrics=metrics,
                    back_to=back,
                    by_id=by.pk if by and by.is_authenticated else None,
                )
        except IntegrityError:  # made by another just now: then it is there to be moved
            continue
    raise ValidationError({"name": f"The label {scope['name']!r} is being changed by another: try again."})


def _check(name: str, task: str, adapter: ModelAdapter | None, recipe: Recipe, why: str) -> None:
    found: dict[str, str] = {}
    try:
        name_validator(name)
    except ValidationError as e:
        found["name"] = e.messages[0]
    if task and task not in Label.Task.values:
        found["task"] = f"{task!r} is no task; known: {', '.join(Label.Task.values)}."
    elif task and not _does(recipe, task):
        found["recipe"] = f"No model of {recipe} gives {'captions' if task == 'caption' else task}."
    if adapter and not recipe.channels.filter(adapter=adapter).exists():
        found["recipe"] = f"{recipe} does not use {adapter}."
    if not why:
        found["why"] = "Say why, in a line: it is what the history is for."
    elif len(why) > WHY_LENGTH:
        found["why"] = f"At most {WHY_LENGTH} characters."
    if found:
        raise ValidationError(found)


def _does(recipe: Recipe, task: str) -> bool:
    for channel in recipe.channels.select_related("adapter"):
        try:
            if task in channel.adapter.adapter_class.capabilities.outputs:
                return True
        except UnknownAdapter:  # the package that brought it is gone: it may have
            return True
    return False
