"""The form of a recipe: one to five channels, how they are asked and made into one, the policy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import QueryDict

from prompts.models import Prompt

from ..actions.recipe_presets import RecipePreset, saved_prompt
from ..actions.recipes import ChannelSpec, Draft, draft_recipe, get_recipe
from ..models import Channel, ModelAdapter, PolicyVersion, Recipe, Tag
from ..policy.combine import MAX_CHANNELS, CascadeSpec, CombineSpec
from .bench_panes import POLICIES, TASKS, channel_data
from .channelform import ChannelForm, refusals

SLOTS = "12345"
PRIORITIES = 4  # rows for single categories
CATEGORIES = 30  # offered
#: where a refusal of the combine rule is shown
FIELDS = {"votes": "votes", "trust": "trust-1", "priority": "from-0", "caption": "caption", "cascade": "cascade-by"}
_NAMES = ("votes", "at_least", "unscored")


class BuilderChannel(ChannelForm):
    """A channel with its name; prompts of judges and merges are not offered, or those of merges alone."""

    def __init__(self, data: QueryDict, *, slot: str, merge: bool = False, **more: Any) -> None:
        self.slot, self.merge = slot, merge
        tasks = (Prompt.Task.MERGE,) if merge else TASKS
        super().__init__(data, prefix="m-" if merge else f"c{slot}-", bound=True, tasks=tasks, **more)

    def is_valid(self) -> bool:
        valid = super().is_valid()
        if self.merge and not self.value("prompt"):  # it gets the one that comes with iwtag
            self.errors.pop("prompt", None)
            return self.options is not None and self.options.is_valid() and not self.errors
        return valid

    @property
    def problems_by_id(self) -> list[tuple[str, str]]:
        """(id of the input, line)"""
        found = [(f"id_{self.prefix}{name}", line) for name, lines in self.errors.items() for line in lines]
        if self.options:
            prefix = f"id_{self.options_prefix}"
            found += [(prefix + name, line) for name, lines in self.options.errors.items() for line in lines]
        return found


class RecipeForm:
    """`data` as the form posts it; `channels_of` makes such data of a recipe, `preset_data` of a preset."""

    def __init__(self, data: QueryDict, by: User) -> None:
        self.data, self.by = data, by
        self.errors: dict[str, list[str]] = {}  # by the id of the input; "form": none
        slots = [s for s in dict.fromkeys(data.getlist("slot")) if s in SLOTS and len(s) == 1]
        self.adapters = list(ModelAdapter.objects.filter(enabled=True))
        if not slots:
            data = self.data = data.copy()
            data["slot"], slots = "1", ["1"]
            if self.adapters:
                data["c1-adapter"] = self.adapters[0].slug
        self.channels = [BuilderChannel(data, slot=s, adapters=self.adapters, by=by) for s in slots]

    def value(self, name: str, default: str = "") -> str:
        return str(self.data.get(name, default)).strip()

    # -- what is drawn ----------------------------------------------------------------------------------------------
    @property
    def several(self) -> bool:
        return len(self.channels) > 1

    @property
    def free(self) -> str:
        """The first slot without a channel; empty when there are five."""
        return next((s for s in SLOTS if s not in {c.slot for c in self.channels}), "")

    @property
    def rule(self) -> str:
        if not self.several:
            return "single"
        given = self.value("rule", "union")
        return given if given in dict(self.rules) else "union"

    @property
    def order(self) -> str:
        given = self.value("order", "parallel")
        return given if given in Recipe.Order.values else "parallel"

    @property
    def rules(self) -> list[tuple[str, str]]:
        return [(value, str(label)) for value, label in Recipe.Combine.choices if value != "single"]

    @property
    def orders(self) -> list[tuple[str, str]]:
        return [(value, str(label)) for value, label in Recipe.Order.choices]

    @cached_property
    def merge(self) -> BuilderChannel:
        data = self.data
        if not self.value("m-adapter") and self.adapters:
            talkers = [a for a in self.adapters if _takes_prompt(a)] or self.adapters
            data = data.copy()
            data["m-adapter"] = talkers[0].slug
        return BuilderChannel(data, slot="m", merge=True, adapters=self.adapters, by=self.by)

    @cached_property
    def names(self) -> list[str]:
        """Of the channels: given ones, or the models' own, numbered."""
        given = [self.value(f"c{c.slot}-name") for c in self.channels]
        found: list[str] = []
        for name, channel in zip(given, self.channels, strict=True):
            base = name or (channel.adapter.slug if channel.adapter else f"channel-{channel.slot}")[:70]
            own, n = base, 1
            while not name and (own in found or own in given):
                n += 1
                own = f"{base}-{n}"
            found.append(own)
        return found

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """The channels with what the template needs of each."""
        rows = []
        for n, (channel, name) in enumerate(zip(self.channels, self.names, strict=True), 1):
            slot = channel.slot
            rows.append(
                {
                    "n": n,
                    "slot": slot,
                    "form": channel,
                    "name": self.value(f"c{slot}-name"),
                    "called": name,
                    "trust": self.value(f"trust-{slot}", "1"),
                    "trust_by": self.value(f"trust-{slot}-by"),
                }
            )
        return rows

    @property
    def fields(self) -> dict[str, str]:
        """Values of the rule's own fields, as typed or as they are by default."""
        spec, cascade = CombineSpec(), CascadeSpec()
        found = {name: self.value(name, _text(getattr(spec, name))) for name in _NAMES}
        found["caption"] = self.value("caption")
        for name in CascadeSpec.model_fields:
            found[f"cascade_{name}"] = self.value(f"cascade-{name}", _text(getattr(cascade, name)))
        return found

    @property
    def priorities(self) -> list[dict[str, Any]]:
        """Row 0 is for all categories that have none of their own."""
        return [
            {"n": n, "category": self.value(f"category-{n}"), "names": self.value(f"from-{n}")}
            for n in range(PRIORITIES + 1)
        ]

    @cached_property
    def categories(self) -> list[str]:
        return list(Tag.objects.order_by("category").values_list("category", flat=True).distinct()[:CATEGORIES])

    @cached_property
    def policies(self) -> list[PolicyVersion]:
        return list(PolicyVersion.objects.select_related("policy").order_by("policy__slug", "-number")[:POLICIES])

    @property
    def policy(self) -> PolicyVersion | None:
        return next((p for p in self.policies if str(p.pk) == self.value("policy")), None)

    @property
    def name(self) -> str:
        return " ".join(self.value("name").split())[:160]

    # -- what it says -----------------------------------------------------------------------------------------------
    def combine(self) -> dict[str, Any]:
        """As CombineSpec takes it: the fields of the chosen rule alone."""
        rule, order, fields = self.rule, self.order, self.fields
        if rule == "single":
            return {"rule": "single"}
        found: dict[str, Any] = {"rule": rule, "order": order}
        if rule == "votes":
            found["votes"] = fields["votes"]
        if rule in ("weighted", "llm_merge"):
            found["trust"] = self._trust()
            found["unscored"] = fields["unscored"]
        if rule == "weighted":
            found["at_least"] = fields["at_least"]
        if rule == "priority":
            found["priority"] = self._priority()
        if captions := _words(fields["caption"]):
            found["caption"] = captions
        if order == "cascade":
            by = fields["cascade_by"]
            own = {"count": ("fewer", "more"), "disagreement": ("above",)}.get(by, ("below",))
            given = {name: fields[f"cascade_{name}"] for name in own}
            found["cascade"] = {"by": by, **{k: v for k, v in given.items() if v != ""}}
        return found

    def _trust(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for row in self.drawn:
            own: dict[str, str] = {}
            if row["trust"] not in ("", "1"):
                own["*"] = row["trust"]
            for part in row["trust_by"].split(","):
                category, equals, weight = part.partition("=")
                if part.strip() and not equals:
                    raise ValidationError({f"id_trust-{row['slot']}-by": f"{part.strip()}: write category = weight."})
                if part.strip():
                    own[category.strip()] = weight.strip()
            if own:
                found[row["called"]] = own
        return found

    def _priority(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.priorities:
            category = "*" if row["n"] == 0 else row["category"]
            names = _words(row["names"])
            if names and not category:
                raise ValidationError({f"id_category-{row['n']}": "Which category?"})
            if category and names:
                found[category] = names
        return found

    # -- doing it ---------------------------------------------------------------------------------------------------
    def _parts(self) -> dict[str, Any] | None:
        forms = [*self.channels, *([self.merge] if self.rule == "llm_merge" else [])]
        valid = [form.is_valid() for form in forms]  # all of them, so that all say what is wrong
        if not all(valid):
            return None
        specs = []
        for form, name in zip(self.channels, self.names, strict=True):
            spec = form.spec()
            specs.append(ChannelSpec(spec.adapter, spec.prompt_version, spec.options, name, spec.variables, spec.read))
        return {
            "channels": specs,
            "combine": self.combine(),
            "merge": self.merge.spec() if self.rule == "llm_merge" else None,
            "policy_version": self.policy,
        }

    @cached_property
    def draft(self) -> Draft | None:
        """What it would be saved as; None with errors where something is wrong."""
        try:
            parts = self._parts()
            return draft_recipe(**parts) if parts else None
        except ValidationError as error:
            self._refuse(error)
            return None

    def save(self) -> Recipe | None:
        if self.draft is None:
            return None
        parts = self._parts()
        assert parts is not None
        return get_recipe(name=self.name, by=self.by, **parts)

    def _refuse(self, error: ValidationError) -> None:
        for name, lines in refusals(error).items():
            for line in lines:
                where = name if name.startswith("id_") else self._place(name, line)
                self.errors.setdefault(where, []).append(line)

    def _place(self, name: str, line: str) -> str:
        """The input that a refusal is about: a rule's field by the beginning of its words, a channel by its number."""
        if name == "combine":
            field = line.partition(":")[0].partition(".")[0]
            if field == "trust":
                return f"id_trust-{self.channels[0].slot}"
            return f"id_{FIELDS.get(field, field if field in _NAMES else 'rule')}"
        head, _, _ = line.partition(": ")
        number = head.removeprefix("Channel ")
        channel = self.channels[int(number) - 1] if number.isdecimal() else self.channels[0]
        if name == "merge":
            return "id_m-adapter"
        return f"id_{channel.prefix}{name}" if name in ("name", "adapter", "prompt", "read") else "form"

    @property
    def problems(self) -> list[tuple[str, str]]:
        """(id of the input, line) of everything that is wrong; asks for the draft first."""
        _ = self.draft
        found = [(where, line) for where, lines in self.errors.items() for line in lines]
        for form in (*self.channels, *([self.merge] if self.rule == "llm_merge" else [])):
            found += form.problems_by_id
        return found


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _takes_prompt(row: ModelAdapter) -> bool:
    try:
        return row.adapter_class.capabilities.prompt
    except (LookupError, ImportError, TypeError):
        return False


# -- data to begin with ------------------------------------------------------------------------------------------------
def recipe_data(recipe: Recipe) -> QueryDict:
    """A recipe as the form says it, to be changed."""
    found = QueryDict(mutable=True)
    rows = list(recipe.channels.select_related("adapter", "prompt_version").order_by("position"))
    asked = [row for row in rows if row.role == Channel.Role.ASKED][:MAX_CHANNELS]
    slots = {}
    for slot, channel in zip(SLOTS, asked, strict=False):
        found.appendlist("slot", slot)
        found[f"c{slot}-name"] = channel.name
        slots[channel.source] = slot
        for name, values in channel_data(f"c{slot}-", channel).items():
            found.setlist(name, values)
    for channel in rows:
        if channel.role == Channel.Role.MERGE:
            for name, values in channel_data("m-", channel).items():
                found.setlist(name, values)
    found["policy"] = str(recipe.policy_version_id)
    found["name"] = recipe.name
    _combine_data(found, recipe.combine, slots)
    return found


def _combine_data(found: QueryDict, combine: Mapping[str, Any], slots: Mapping[str, str]) -> None:
    found["rule"], found["order"] = combine.get("rule", "union"), combine.get("order", "parallel")
    for name in _NAMES:
        if name in combine:
            found[name] = _text(combine[name])
    found["caption"] = ", ".join(combine.get("caption", ()))
    for name, value in combine.get("cascade", {}).items():
        found[f"cascade-{name}"] = _text(value)
    for channel, weights in combine.get("trust", {}).items():
        slot = slots.get(channel, "")
        found[f"trust-{slot}"] = _text(weights.get("*", 1))
        found[f"trust-{slot}-by"] = ", ".join(f"{c} = {_text(w)}" for c, w in weights.items() if c != "*")
    others = [(c, names) for c, names in combine.get("priority", {}).items() if c != "*"]
    found["from-0"] = ", ".join(combine.get("priority", {}).get("*", ()))
    for n, (category, names) in enumerate(others[:PRIORITIES], 1):
        found[f"category-{n}"], found[f"from-{n}"] = category, ", ".join(names)


def preset_data(preset: RecipePreset, by: User) -> QueryDict:
    """A preset with the most usual of the models that are there in each slot. Its prompts are saved where they are not
    yet."""
    found = QueryDict(mutable=True)
    adapters = list(ModelAdapter.objects.filter(enabled=True))
    slots = {}
    for slot, place in [*zip(SLOTS, preset.channels, strict=False), *([("m", preset.merge)] if preset.merge else [])]:
        prefix = "m-" if slot == "m" else f"c{slot}-"
        row = next((a for kind in place.kinds for a in adapters if a.kind == kind), None)
        row = row or next((a for a in adapters if _takes_prompt(a) == bool(place.prompt or slot == "m")), None)
        row = row or (adapters[0] if adapters else None)
        if slot != "m":
            found.appendlist("slot", slot)
            found[f"{prefix}name"] = place.name
            slots[place.name] = slot
        if row is None:
            continue
        found[f"{prefix}adapter"] = row.slug
        if place.prompt and _takes_prompt(row):
            found[f"{prefix}prompt"] = str(saved_prompt(place.prompt).pk)
    found["name"] = preset.title
    _combine_data(found, preset.combine, slots)
    return found
