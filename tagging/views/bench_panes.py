"""What the workbench is set to, read from its address or its form: images, and up to four panes. The address says all
of it, so that it can be kept, shared, and gone back to.

    ?i=12&i=15 & pane=a & a-adapter=wd & a-options-general=0.4 & pane=b & b-kind=recipe & b-recipe=champion & b-policy=7
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.urls import reverse
from django.utils.safestring import SafeString

from prompts.actions import TRIED, check_prompt
from prompts.drafts import tried_version
from prompts.models import Prompt, PromptVersion

from ..actions.access import may
from ..actions.answers import same_calls
from ..actions.labels import UnknownLabel, find_recipe
from ..actions.policies import compile_checked
from ..actions.recipes import ChannelSpec, draft_recipe, get_recipe, with_policy
from ..actions.trials import MOST_IMAGES
from ..form_fields import shown
from ..forms import SchemaForm
from ..models import Channel, ImageAsset, ModelAdapter, PolicyVersion, Recipe
from ..policy.pipeline import CompiledPolicy
from .channelform import ChannelForm, refusals
from .chips import mark
from .policy_form import PolicyForm

LETTERS = "abcd"
POLICIES = 200
OFFERED = 40
#: prompts that a channel may be asked with: the others need more than an image
TASKS = (Prompt.Task.TAGS, Prompt.Task.CAPTION)


class PaneChannel(ChannelForm):
    """A channel whose prompt may be a text of its own, that is not saved as a version."""

    own_text = False

    def is_valid(self) -> bool:
        valid = super().is_valid()
        if not self.own_text or self.value("prompt"):
            return valid
        self.errors.pop("prompt", None)
        return self.options is not None and self.options.is_valid() and not self.errors


def option_values(form: SchemaForm, values: dict[str, Any]) -> dict[str, list[str]]:
    """Values of options as a form would post them, by input name; only those that are not as the form begins."""
    start = {field.name: field for field in form.fields}
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        if name not in start or name not in form.properties:
            continue
        kind = form.properties[name]["kind"]
        text = shown(value, kind)
        if text == shown(start[name].initial, kind):
            continue
        if kind == "choices":
            found[form.prefix + name] = ["", *text]
        else:
            found[form.prefix + name] = [str(text).lower() if kind == "boolean" else str(text)]
    return found


def channel_data(prefix: str, channel: Channel) -> dict[str, list[str]]:
    """A recipe's channel as the form of a channel says it."""
    found = {f"{prefix}adapter": [channel.adapter.slug]}
    if channel.prompt_version_id:
        found[f"{prefix}prompt"] = [str(channel.prompt_version_id)]
    if channel.read != "original":
        found[f"{prefix}read"] = [channel.read]
    found |= {f"{prefix}var-{name}": [str(value)] for name, value in channel.variables.items()}
    try:
        code = channel.adapter.adapter_class
    except (LookupError, ImportError, TypeError):
        return found
    form = SchemaForm(code.Options, initial=channel.adapter.options, prefix=f"{prefix}options-")
    return found | option_values(form, channel.options)


class Pane:
    """One way of asking: a model with prompt, options and policy, or a whole recipe. `errors`: lines by field."""

    def __init__(self, letter: str, position: int, data: QueryDict, by: User, shared: Bench) -> None:
        self.letter, self.position, self.data, self.by, self.shared = letter, position, data, by, shared
        self.prefix = f"{letter}-"
        self.errors: dict[str, list[str]] = {}
        self.channel = PaneChannel(data, prefix=self.prefix, bound=True, adapters=shared.adapters, tasks=TASKS, by=by)
        self.channel.own_text = self.edited
        self.kept: PromptVersion | None = None  # what an edited text was just saved as

    def value(self, name: str) -> str:
        return str(self.data.get(self.prefix + name, ""))

    @property
    def mark(self) -> SafeString:
        return mark(self.position)

    @property
    def number(self) -> int:
        return self.position + 1

    @property
    def is_recipe(self) -> bool:
        return self.value("kind") == "recipe"

    @property
    def recipe_text(self) -> str:
        return self.value("recipe")

    # what was typed to keep it by
    @property
    def keep_name(self) -> str:
        return " ".join(self.value("keep-name").split())[:160]

    @property
    def keep_message(self) -> str:
        return self.value("keep-message").strip()

    @property
    def keep_slug(self) -> str:
        return self.value("keep-slug").strip()

    @property
    def title(self) -> str:
        if self.is_recipe:
            return str(self.recipe) if self.recipe else self.value("recipe") or "a recipe"
        parts = [self.channel.adapter.label if self.channel.adapter else "no model"]
        if self.channel.takes_prompt:
            version = self.channel.prompt
            parts.append(f"{version or 'own text'}, edited" if self.edited and version else str(version or "own text"))
        return " · ".join(parts)

    # -- an edited text ---------------------------------------------------------------------------------------------
    @cached_property
    def _draft(self) -> PromptVersion | None:
        """The text that the address names."""
        pk = self.value("draft")
        if "template" in self._posted or not pk.isdecimal():
            return None
        return PromptVersion.objects.filter(pk=int(pk[:18])).select_related("prompt").first()

    @property
    def _posted(self) -> dict[str, str]:
        names = ("template", "system")
        return {n: self.value(n).replace("\r\n", "\n") for n in names if self.prefix + n in self.data}

    @property
    def edited(self) -> bool:
        """A text of its own is written, saved or not."""
        return not self.is_recipe and ("template" in self._posted or self._draft is not None)

    @property
    def template(self) -> str:
        return self._posted.get("template", self._draft.template if self._draft else "")

    @property
    def system(self) -> str:
        return self._posted.get("system", self._draft.system if self._draft else "")

    @cached_property
    def text(self) -> PromptVersion | None:
        """The version that is asked with. A text that is not saved hangs on a hidden holder; ValidationError."""
        version = self.channel.prompt
        if not self.channel.takes_prompt or not self.edited:
            return version
        if self.kept is not None or self._draft is not None:
            return self.kept or self._draft
        schema = version.response_schema if version else None
        check_prompt(self.system, self.template, schema)
        return tried_version(
            version.prompt if version else _holder(),
            system=self.system,
            template=self.template,
            response_schema=schema,
        )

    # -- the policy -------------------------------------------------------------------------------------------------
    @property
    def policy(self) -> PolicyVersion | None:
        """The version that is chosen; None: the recipe's, or the default policy as it is now."""
        return next((p for p in self.shared.policies if str(p.pk) == self.value("policy")), None)

    @property
    def rules_open(self) -> bool:
        return bool(self.value("rules"))

    @cached_property
    def rules(self) -> PolicyForm:
        """The rules as they are edited here, over the version that is chosen."""
        base = self.policy or (self.recipe.policy_version if self.recipe else None)
        if base is not None:
            base = PolicyVersion.objects.prefetch_related("wordlists__wordlist").get(pk=base.pk)
        return PolicyForm(base, self.data if self.rules_open else None, prefix=self.prefix)

    @property
    def rules_edited(self) -> bool:
        """They say something else than the version."""
        if not self.rules_open:
            return False
        changed = self.rules.rules.changed() or self.rules.caption.changed()
        return bool(changed) or any(c.ticked != (c.used is not None) or c.outdated for c in self.rules.lists)

    @cached_property
    def compiled(self) -> CompiledPolicy | None:
        """The edited rules, ready; None where there are none. ValidationError."""
        if not self.rules_edited:
            return None
        if not self.rules.is_valid():
            raise ValidationError({"policy": self.rules.all_errors})
        return compile_checked(self.rules.spec, self.rules.chosen())

    # -- what is asked ----------------------------------------------------------------------------------------------
    @cached_property
    def recipe(self) -> Recipe | None:
        """Found or made; None with `errors` where something is wrong."""
        try:
            return self._named() if self.is_recipe else self._made()
        except ValidationError as error:
            for name, lines in refusals(error).items():
                if self.is_recipe or not self.channel.refuse(name, lines):
                    self.errors.setdefault(name, []).extend(lines)
        return None

    def _named(self) -> Recipe:
        text = self.value("recipe")
        if not text:
            raise ValidationError({"recipe": "Name a recipe: a label, its number, or the beginning of its key."})
        try:
            found = find_recipe(text)
        except UnknownLabel as error:
            raise ValidationError({"recipe": str(error)}) from None
        return with_policy(found, self.policy, by=self.by) if self.policy and self.shared.makes else found

    def _made(self, name: str = "") -> Recipe | None:
        if not self.channel.is_valid():
            return None
        spec = self.channel.spec()
        spec = ChannelSpec(spec.adapter, self.text, spec.options, variables=spec.variables, read=spec.read)
        if not self.shared.makes:
            return Recipe.objects.filter(key=draft_recipe([spec], policy_version=self.policy).key).first()
        return get_recipe([spec], policy_version=self.policy, name=name, by=self.by)

    @cached_property
    def recipes(self) -> list[int]:
        """All recipes that ask the same."""
        return same_calls(self.recipe) if self.recipe else []

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, once `recipe` and `compiled` were asked for, with the field's name."""
        found = dict(self.errors)
        if not self.is_recipe:
            found |= self.channel.errors
            if self.channel.options:
                found |= self.channel.options.errors
        return [f"{name}: {line}" if name not in ("form", "recipe", "policy") else line
                for name, lines in found.items() for line in lines]  # fmt: skip

    # -- in the address ---------------------------------------------------------------------------------------------
    def state(self) -> list[tuple[str, str]]:
        """Its part of the address: only what is not as it begins."""
        pairs = [("pane", self.letter)]
        if self.is_recipe:
            pairs += [(f"{self.prefix}kind", "recipe"), (f"{self.prefix}recipe", self.value("recipe"))]
        else:
            pairs += self._channel_state()
        if self.policy:
            pairs.append((f"{self.prefix}policy", str(self.policy.pk)))
        if self.rules_edited:
            pairs.append((f"{self.prefix}rules", "1"))
            for form in (self.rules.rules, self.rules.caption):
                pairs += [(k, v) for k, vs in option_values(form, form.changed()).items() for v in vs]
            pairs += [(f"{self.prefix}lists", str(c.wordlist.pk)) for c in self.rules.lists if c.ticked]
        return pairs

    def _channel_state(self) -> list[tuple[str, str]]:
        channel = self.channel
        pairs = [(f"{self.prefix}adapter", channel.adapter.slug if channel.adapter else channel.value("adapter"))]
        if channel.prompt:
            pairs.append((f"{self.prefix}prompt", str(channel.prompt.pk)))
        if self.edited and channel.takes_prompt:
            try:
                text = self.text
            except ValidationError:
                text = None
            if text is not None and text != channel.prompt:
                pairs.append((f"{self.prefix}draft", str(text.pk)))
        if channel.read != "original":
            pairs.append((f"{self.prefix}read", channel.read))
        pairs += [(v.html_name, v.value) for v in channel.variables if v.value]
        if channel.options:
            changed = channel.options.changed()
            for name in changed:
                key = channel.options_prefix + name
                pairs += [(key, str(v)) for v in self.data.getlist(key)]
        return pairs


def _holder() -> Prompt:
    slug = f"{TRIED}-{Prompt.Task.TAGS}"
    name = f"Tried texts ({Prompt.Task.TAGS.label})"
    return Prompt.objects.get_or_create(slug=slug, defaults={"name": name, "task": "tags", "hidden": True})[0]


class Bench:
    """Images and panes, as the data says; something to begin with where it says nothing."""

    def __init__(self, data: QueryDict, by: User, images: Sequence[ImageAsset] = ()) -> None:
        self.data, self.by = data, by
        self.makes = may(by, "curate")  # what is looked at by others is found only, never made
        self.images = list(images) or self._images()
        sample = data.get("sample", "")
        self.sample = min(int(sample[:4]), 999) if sample.isdecimal() else 0
        letters = [x for x in dict.fromkeys(data.getlist("pane")) if x in LETTERS and len(x) == 1]
        if not letters:
            self.data = data = self._begin(data)
            letters = data.getlist("pane")
        self.panes = [Pane(letter, n, data, by, self) for n, letter in enumerate(letters)]

    @cached_property
    def adapters(self) -> list[ModelAdapter]:
        return list(ModelAdapter.objects.filter(enabled=True))

    @cached_property
    def policies(self) -> list[PolicyVersion]:
        return list(PolicyVersion.objects.select_related("policy").order_by("policy__slug", "-number")[:POLICIES])

    def _images(self) -> list[ImageAsset]:
        ids = [int(pk[:18]) for pk in self.data.getlist("i") if pk.isdecimal()][: MOST_IMAGES * 2]
        found = ImageAsset.objects.exclude(sha256="").select_related("collection").in_bulk(ids)
        return [found[pk] for pk in dict.fromkeys(ids) if pk in found][:MOST_IMAGES]

    def _begin(self, data: QueryDict) -> QueryDict:
        """Two panes: the first two models, or the first one twice; a recipe that the address names in the first."""
        made = data.copy()
        first = [row.slug for row in self.adapters[:2]]
        if data.get("recipe"):
            made.setlist("pane", ["a"])
            made["a-kind"], made["a-recipe"] = "recipe", str(data["recipe"])
            return made
        made.setlist("pane", ["a", "b"])
        for letter, slug in zip("ab", [*first, *first][:2], strict=False):
            made[f"{letter}-adapter"] = slug
        return made

    @property
    def free(self) -> str:
        """The first letter that no pane has; empty when there are four."""
        return next((x for x in LETTERS if x not in {p.letter for p in self.panes}), "")

    def state(self) -> QueryDict:
        found = QueryDict(mutable=True)
        for image in self.images:
            found.appendlist("i", str(image.pk))
        if self.sample:
            found["sample"] = str(self.sample)
        for pane in self.panes:
            for name, value in pane.state():
                found.appendlist(name, value)
        return found

    @property
    def address(self) -> str:
        query = self.state().urlencode()
        return reverse("tagging:workbench") + (f"?{query}" if query else "")
