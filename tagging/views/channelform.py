"""One channel as a form: adapter, prompt version where it takes prompts, its options, presets.

Pages that build recipes draw `tagging/partials/channel_form.html` once per channel, each with a prefix of its own, and
read `spec()` when everything is valid. Changing the adapter swaps the piece in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.urls import reverse

from prompts.models import PromptVersion
from prompts.rendering import PromptError, free_variables

from ..actions import presets
from ..actions.recipes import READ, ChannelSpec
from ..adapters.base import Adapter, Problem
from ..adapters.registry import UnknownAdapter
from ..forms import SchemaForm
from ..models import ModelAdapter, OptionPreset

PROMPTS = 200  # versions offered in the list


@dataclass(frozen=True)
class Variable:
    """A free variable of the chosen prompt: its input, and the default that its text gives (None: it has to be set)."""

    name: str
    html_name: str
    default: Any
    value: str

    @property
    def id(self) -> str:
        return f"id_{self.html_name}"

    @property
    def parsed(self) -> str | int | float | bool:
        """The value, of the kind that the default is."""
        try:
            if isinstance(self.default, bool):
                return self.value.strip().lower() in ("true", "yes", "on", "1")
            if isinstance(self.default, int | float):
                return type(self.default)(self.value)
        except ValueError:
            pass
        return self.value


class ChannelForm:
    """`data` is what was posted (bound) or what the address says. `swapped` redraws the piece after the adapter was
    changed or a preset was chosen: `options_for` in the data names the adapter that the options were drawn for.
    `keep_typed`: a preset that is named marks the list only, its values do not replace what was typed. `tasks`: those
    whose prompts are offered; all where none is named.

    `errors` holds lines by field: adapter, prompt, preset. Those of options are in `options.errors`.
    """

    FIELDS = ("adapter", "prompt", "preset", "read", "variables")

    def __init__(
        self,
        data: QueryDict,
        *,
        prefix: str = "",
        bound: bool = False,
        swapped: bool = False,
        keep_typed: bool = False,
        adapters: Sequence[ModelAdapter] | None = None,
        tasks: Sequence[str] = (),
        by: AbstractBaseUser | None = None,
    ) -> None:
        self.data, self.prefix, self.bound, self.by = data, prefix, bound, by
        self.tasks = tuple(tasks)
        self.swapped, self.keep_typed = swapped, keep_typed
        self.errors: dict[str, list[str]] = {}
        self.notice = ""  # what was just done with a preset
        self.adapters = list(ModelAdapter.objects.filter(enabled=True)) if adapters is None else list(adapters)
        self.adapter = self._chosen()

    def value(self, name: str, default: str = "") -> str:
        return str(self.data.get(self.prefix + name, default))

    def _chosen(self) -> ModelAdapter | None:
        """The row whose slug the data names; the first one where nothing is asked for yet. What is sent is never
        guessed: a run of the wrong model costs hours."""
        slug = self.value("adapter")
        found = next((row for row in self.adapters if row.slug == slug), None)
        if slug and found is None:
            self.errors["adapter"] = [f"There is no adapter {slug!r} that can be used."]
        elif not slug and self.bound and self.adapters:
            self.errors["adapter"] = ["Choose the model."]
        return found or (self.adapters[0] if self.adapters and not slug else None)

    # -- names for the template -------------------------------------------------------------------------------------
    @property
    def id(self) -> str:
        """Of the element that is swapped."""
        return f"{self.prefix}options"

    @property
    def options_prefix(self) -> str:
        return f"{self.prefix}options-"

    @property
    def query(self) -> str:
        """What every request for the piece says of it, so that it is redrawn with the same prompts."""
        return f"prefix={self.prefix}" + (f"&tasks={','.join(self.tasks)}" if self.tasks else "")

    @property
    def swap_url(self) -> str:
        return f"{reverse('tagging:channel_form')}?{self.query}"

    # -- the model --------------------------------------------------------------------------------------------------
    @cached_property
    def adapter_class(self) -> type[Adapter] | None:
        """The code of the chosen adapter; None when its package is gone or broken (`problems` says so)."""
        return class_of(self.adapter) if self.adapter else None

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

    # -- its options ------------------------------------------------------------------------------------------------
    @cached_property
    def options(self) -> SchemaForm | None:
        """The options' form over the adapter row's own values; None without code."""
        if self.adapter is None or self.adapter_class is None:
            return None
        code = self.adapter_class.Options
        more: dict[str, Any] = {
            "initial": self.adapter.options,
            "prefix": self.options_prefix,
            "leave_out": code.row_settings(),
        }
        if self.bound:
            return SchemaForm(code, data=self.data, **more)
        return SchemaForm(code, carry=self._carried(), **more)

    def _carried(self) -> dict[str, Any]:
        """What the preset says, or what the person changed in the options of the adapter chosen before."""
        if self.preset is not None and not self.keep_typed and self.adapter_class is not None:
            return presets.kept_values(self.adapter_class, self.preset.values)
        slug = self.value("options_for")
        before = next((a for a in self.adapters if a.slug == slug), None)
        code = class_of(before) if self.swapped and before else None
        if not (code and before):
            return {}
        typed = SchemaForm(code.Options, data=self.data, initial=before.options, prefix=self.options_prefix)
        return typed.changed()

    # -- presets ----------------------------------------------------------------------------------------------------
    @cached_property
    def presets(self) -> list[OptionPreset]:
        """Those that fit the adapter and that this person may use."""
        return list(presets.usable(self.adapter, self.by)) if self.adapter else []

    @cached_property
    def preset(self) -> OptionPreset | None:
        """The preset that is applied now; a form that was sent has its values in its fields."""
        wanted = self.value("preset")
        if self.bound or not wanted:
            return None
        if self.swapped and self.value("options_for") != (self.adapter.slug if self.adapter else ""):
            return None  # the preset of the model before
        found = next((p for p in self.presets if str(p.pk) == wanted), None)
        if found is None:
            self.errors["preset"] = ["This preset is gone."]
        return found

    @property
    def own_preset(self) -> bool:
        """The preset that is applied may be changed by this person."""
        return self.preset is not None and presets.may_change(self.preset, self.by)

    @property
    def typed_name(self) -> str:
        """What stands in the field for a preset's name, after a refusal."""
        return self.value("preset_name")

    @cached_property
    def preset_leftovers(self) -> list[str]:
        """Values of the preset that this model does not know or take any more."""
        if self.preset is None or self.options is None or self.keep_typed:
            return []
        return sorted(set(self.preset.values) - set(self.options.carry))

    # -- prompts ----------------------------------------------------------------------------------------------------
    @cached_property
    def prompts(self) -> list[PromptVersion]:
        """Versions that the chosen model could be asked with; empty for models that take no prompt."""
        if self.adapter is None or self.adapter_class is None or not self.adapter_class.capabilities.prompt:
            return []
        versions: Iterable[PromptVersion] = (
            PromptVersion.objects.filter(prompt__hidden=False)
            .select_related("prompt")
            .order_by("prompt__slug", "-number")[:PROMPTS]
        )
        if self.tasks:
            versions = [v for v in versions if v.prompt.task in self.tasks]
        return [v for v in versions if not v.prompt.families or self.adapter.kind in v.prompt.families]

    @property
    def takes_prompt(self) -> bool:
        return bool(self.capabilities.get("prompt"))

    @property
    def needs_prompt(self) -> bool:
        """It has no prompt of its own."""
        return self.takes_prompt and not self.capabilities.get("own_prompt")

    @property
    def read(self) -> str:
        """Which pixels the model gets: "original" or "proxy"."""
        return self.value("read", READ[0]) or READ[0]

    @property
    def prompt(self) -> PromptVersion | None:
        return next((v for v in self.prompts if str(v.pk) == self.value("prompt")), None)

    @cached_property
    def variables(self) -> list[Variable]:
        """The free variables of the chosen prompt, with what was typed for them."""
        if self.prompt is None:
            return []
        try:
            found = {**free_variables(self.prompt.system), **free_variables(self.prompt.template)}
        except PromptError:
            return []
        prefix = f"{self.prefix}var-"
        return [Variable(n, prefix + n, d, str(self.data.get(prefix + n, ""))) for n, d in sorted(found.items())]

    # -- doing it ---------------------------------------------------------------------------------------------------
    def is_valid(self) -> bool:
        if self.adapter is None:
            self.errors.setdefault("adapter", ["Choose a model."])
        if self.value("prompt") and self.prompt is None:
            self.errors["prompt"] = ["There is no such prompt version for this model."]
        elif self.needs_prompt and self.prompt is None:
            self.errors["prompt"] = ["Choose what it is asked."]
        if unset := [v.name for v in self.variables if v.default is None and not v.value.strip()]:
            self.errors["variables"] = [f"The prompt needs a value for {', '.join(unset)}."]
        if self.options is None:
            self.errors.setdefault("adapter", ["This model cannot be used here."])
            return False
        return self.options.is_valid() and not self.errors

    def spec(self) -> ChannelSpec:
        """The channel as it was asked for; after `is_valid()`."""
        if not (self.adapter and self.options):
            raise ValueError("spec() comes after is_valid()")
        return ChannelSpec(
            adapter=self.adapter,
            prompt_version=self.prompt,
            options=self.options.cleaned,
            variables={v.name: v.parsed for v in self.variables if v.value.strip()},
            read=self.read,
        )

    def refuse(self, name: str, lines: Sequence[str]) -> bool:
        """Put an action's refusal beside the field it names; False when it names none of this form."""
        if self.options is not None and name in self.options.properties:
            self.options.errors.setdefault(name, []).extend(lines)
            self.options.__dict__.pop("fields", None)  # drawn anew, with the error
            return True
        if name in self.FIELDS:
            self.errors.setdefault(name, []).extend(lines)
            return True
        return False


def class_of(row: ModelAdapter) -> type[Adapter] | None:
    try:
        return row.adapter_class
    except (UnknownAdapter, ImportError, TypeError):
        return None


def refusals(error: ValidationError) -> dict[str, list[str]]:
    """A refusal's lines by field; "form" for what names none."""
    return error.message_dict if hasattr(error, "error_dict") else {"form": error.messages}
