"""The form that changes a judge: its model with the options of that model, its prompt, rubric and decision rules.

What hangs on the model (`judging/partials/judge_options.html`) is swapped in place when another one is chosen.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.core.exceptions import ValidationError
from django.http import QueryDict

from prompts.models import PromptVersion
from tagging.adapters.base import Problem
from tagging.forms import SchemaForm
from tagging.models import ModelAdapter
from tagging.views.channelform import class_of

from ..judges.spec import ASKING, SPECS, RulesSpec
from ..models import JudgeProfile

PROMPTS = 200  # versions offered in the list
OPTIONS, RULES, FIRST = "options-", "rules-", "first-"


class DecisionRules(SchemaForm):
    """The rules of a kind without those that are checked first: they have a form of their own."""

    @cached_property
    def properties(self) -> dict[str, dict[str, Any]]:
        return {name: schema for name, schema in super().properties.items() if name != "rules"}


class JudgeForm:
    """`data` is what was posted; `swap` what was typed before another model was chosen. `errors` holds lines by field:
    adapter, prompt, rubric, members, and "form" for what names none; those of options and rules stand in their forms.
    """

    def __init__(self, profile: JudgeProfile, *, data: QueryDict | None = None, swap: QueryDict | None = None) -> None:
        self.profile, self.version, self.data, self.swap = profile, profile.current, data, swap
        self.asks = profile.kind in ASKING
        self.jury = profile.kind == JudgeProfile.Kind.JURY
        self.errors: dict[str, list[str]] = {}
        self._given = data if data is not None else swap

    def value(self, name: str, default: str = "") -> str:
        return default if self._given is None else str(self._given.get(name, default))

    # -- the model --------------------------------------------------------------------------------------------------
    @cached_property
    def adapters(self) -> list[ModelAdapter]:
        """Models that take a prompt."""
        rows = ModelAdapter.objects.filter(enabled=True)
        return [row for row in rows if (code := class_of(row)) and code.capabilities.prompt]

    @cached_property
    def adapter(self) -> ModelAdapter | None:
        """The model that is chosen: as sent, else the version's own (which may be one that is not offered any more)."""
        own = self.version.adapter if self.version else None
        slug = self.value("adapter", own.slug if own else "")
        if own is not None and own.slug == slug:
            return own
        return next((row for row in self.adapters if row.slug == slug), None)

    @cached_property
    def problems(self) -> list[Problem]:
        """What would keep the chosen model from answering, found without loading it."""
        return list(self.adapter.build().check()) if self.adapter and class_of(self.adapter) else []

    @cached_property
    def blind(self) -> bool:
        code = class_of(self.adapter) if self.adapter else None
        return bool(code and not code.capabilities.vision)

    @cached_property
    def options(self) -> SchemaForm | None:
        """The options of the chosen model; None without one."""
        code = class_of(self.adapter) if self.adapter else None
        if self.adapter is None or code is None:
            return None
        initial = dict(self.adapter.options)
        own = bool(self.version and self.version.adapter_id == self.adapter.pk)
        if own and self.version:
            initial |= self.version.options
        if self.data is not None and self.value("options_for", self.adapter.slug) == self.adapter.slug:
            return SchemaForm(code.Options, data=self.data, initial=initial, prefix=OPTIONS)
        if self.data is not None:  # sent without a script after another model was chosen: the fields were the other's
            return SchemaForm(code.Options, data=QueryDict(), initial=initial, prefix=OPTIONS)
        return SchemaForm(code.Options, initial=initial, carry=self._carried(), prefix=OPTIONS)

    def _carried(self) -> dict[str, Any]:
        """What was typed for the model before, where it applies to this one as well."""
        before = next((row for row in self.adapters if row.slug == self.value("options_for")), None)
        code = class_of(before) if self.swap is not None and before else None
        if not (code and before):
            return {}
        start = dict(before.options)
        if self.version and self.version.adapter_id == before.pk:
            start |= self.version.options
        return SchemaForm(code.Options, data=self.swap, initial=start, prefix=OPTIONS).changed()

    # -- the rest ---------------------------------------------------------------------------------------------------
    @cached_property
    def prompts(self) -> list[PromptVersion]:
        tasks = ("pairwise",) if self.profile.kind == JudgeProfile.Kind.PAIRWISE else ("judge",)
        found = PromptVersion.objects.filter(prompt__task__in=tasks).select_related("prompt")
        return list(found.order_by("prompt__slug", "-number")[:PROMPTS])

    @property
    def prompt(self) -> str:
        own = self.version.prompt_version_id if self.version else None
        return self.value("prompt_version", str(own or ""))

    @property
    def rubric(self) -> str:
        return self.value("rubric", self.version.rubric if self.version else "")

    @property
    def message(self) -> str:
        return self.value("message")

    @cached_property
    def others(self) -> list[JudgeProfile]:
        """Who could sit in the jury."""
        rows = JudgeProfile.objects.filter(current__isnull=False, kind__in=sorted(ASKING))
        return list(rows.exclude(pk=self.profile.pk).select_related("current__profile"))

    @property
    def members(self) -> list[str]:
        if self.data is not None:
            return self.data.getlist("members")
        return [m.profile.slug for m in self.version.members.select_related("profile")] if self.version else []

    @cached_property
    def rules(self) -> SchemaForm:
        own = dict(self.version.rules) if self.version else {}
        own.pop("rules", None)
        return DecisionRules(SPECS[self.profile.kind], data=self.data, initial=own, prefix=RULES)

    @property
    def has_first(self) -> bool:
        """Can this kind check rules that cost nothing before it asks?"""
        return "rules" in SPECS[self.profile.kind].model_fields

    @property
    def first_on(self) -> bool:
        if self.data is not None:
            return "first" in self.data
        return bool(self.version and self.version.rules.get("rules"))

    @cached_property
    def first(self) -> SchemaForm | None:
        """The rules that are checked first, for nothing."""
        if not self.has_first:
            return None
        own = (self.version.rules.get("rules") if self.version else None) or {}
        return SchemaForm(RulesSpec, data=self.data if self.first_on else None, initial=own, prefix=FIRST)

    # -- doing it ---------------------------------------------------------------------------------------------------
    def is_valid(self) -> bool:
        if self.data is None:
            return False
        slug = self.data.get("adapter", "")
        if self.asks and slug and self.adapter is None:
            self.errors["adapter"] = [f"There is no model {slug!r} that could judge."]
        forms = [self.rules, *([self.options] if self.asks else []), *([self.first] if self.first_on else [])]
        valid = [form.is_valid() for form in forms if form is not None]  # each says what it finds
        return all(valid) and not self.errors

    def fields(self) -> dict[str, Any]:
        """What `actions.judges.change` takes; after `is_valid()`."""
        rules = dict(self.rules.cleaned)
        rules.pop("rules", None)
        if self.first_on and self.first is not None:
            rules["rules"] = self.first.cleaned
        found: dict[str, Any] = {"rules": rules, "rubric": self.rubric, "message": self.message}
        if self.asks:
            prompt = next((p for p in self.prompts if str(p.pk) == self.prompt), None)
            if prompt is None and self.version and str(self.version.prompt_version_id) == self.prompt:
                prompt = self.version.prompt_version
            found |= {
                "adapter": self.adapter,
                "options": self.options.cleaned if self.options else {},
                "prompt_version": prompt,
            }
        if self.jury:
            found["members"] = [row.current for row in self.others if row.slug in self.members]
        return found

    def refuse(self, error: ValidationError) -> None:
        """Put an action's refusal beside the field it names."""
        found = error.message_dict if hasattr(error, "error_dict") else {"form": error.messages}
        for name, lines in found.items():
            form = {"options": self.options, "rules": self.rules}.get(name)
            if form is not None:
                form.errors.setdefault("", []).extend(lines)
            else:
                known = ("adapter", "prompt", "rubric", "members", "message")
                self.errors.setdefault(name if name in known else "form", []).extend(lines)

    @property
    def refused(self) -> bool:
        return bool(
            self.errors
            or self.rules.errors
            or (self.options and self.options.errors)
            or (self.first_on and self.first and self.first.errors)
        )
