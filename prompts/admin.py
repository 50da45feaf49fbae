"""Prompts and wordlists: texts are edited, versions are made. What a run used never changes."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count, Max, Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from import_export.admin import ImportExportMixin
from import_export.formats.base_formats import CSV

from . import actions
from .models import Prompt, PromptVersion, Wordlist, WordlistVersion
from .resources import WordlistResource, words_of
from .wordlists import WordlistError, parse_text

Code = forms.Textarea(attrs={"rows": 14, "cols": 100, "class": "vLargeTextField iw-code", "spellcheck": "false"})
SHOWN = 50


def _pre(text: str) -> SafeString | str:
    return format_html('<pre class="iw-pre" tabindex="0">{}</pre>', text) if text else "–"


def _versions(rows: QuerySet[Any], opts: Any) -> SafeString | str:
    """A table of versions, newest first."""
    if not rows:
        return "None yet."
    name = f"admin:{opts.app_label}_{opts.model_name}_change"
    body = format_html_join(
        "",
        '<tr><td><a href="{}">v{}</a></td><td>{}</td><td>{}</td><td>{}</td></tr>',
        (
            (
                reverse(name, args=[v.pk]),
                v.number,
                v.message or "–",
                v.created_by or "–",
                v.created_at.strftime("%Y-%m-%d %H:%M"),
            )
            for v in rows
        ),
    )
    return format_html(
        '<div class="iw-scroll" tabindex="0" role="region" aria-label="Versions"><table class="iw-table">'
        '<thead><tr><th scope="col">version</th><th scope="col">what changed</th><th scope="col">who</th>'
        '<th scope="col">when</th></tr></thead><tbody>{}</tbody></table></div>',
        body,
    )


def _refuse(form: Any, error: ValidationError) -> None:
    """The refusals of an action beside the fields they name."""
    found = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    for name, lines in found.items():
        form.add_error(name if name in form.fields else None, lines)


# -- prompts ----------------------------------------------------------------------------------------------------------
class PromptForm(forms.ModelForm):
    class Meta:
        model = Prompt
        fields = ("slug", "name", "task", "families")

    def clean_families(self) -> list[str]:
        given = self.cleaned_data["families"] or []
        if not isinstance(given, list) or not all(isinstance(v, str) for v in given):
            raise ValidationError('A JSON list of adapter kinds, e.g. ["qwen-vl"]; empty means any.')
        return given


@admin.register(Prompt)
class PromptAdmin(admin.ModelAdmin):
    form = PromptForm
    change_form_template = "admin/prompts/prompt/change_form.html"
    list_display = ("name", "slug", "task", "versions", "newest", "created_at")
    list_filter = ("task",)
    search_fields = ("name", "slug", "versions__template")
    search_help_text = "Name, slug, or words of any version"
    prepopulated_fields = {"slug": ("name",)}
    readonly_fields = ("created_at", "all_versions")
    fields = ("name", "slug", "task", "families", "created_at", "all_versions")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prompt]:
        found = super().get_queryset(request)
        return found.annotate(n_versions=Count("versions", distinct=True), newest_at=Max("versions__created_at"))

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return {} if obj else self.prepopulated_fields

    @admin.display(ordering="n_versions")
    def versions(self, obj: Any) -> int:
        return int(obj.n_versions)

    @admin.display(description="newest version", ordering="newest_at")
    def newest(self, obj: Any) -> Any:
        return obj.newest_at

    @admin.display(description="versions")
    def all_versions(self, obj: Prompt) -> SafeString | str:
        if not obj.pk:
            return "Save the prompt, then write its first version."
        return _versions(obj.versions.select_related("created_by").order_by("-number")[:SHOWN], PromptVersion._meta)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Not once a run used a version: its results could no longer say what made them."""
        if obj is not None and obj.versions.exclude(used_at=None).exists():
            return False
        return super().has_delete_permission(request, obj)


class PromptVersionForm(forms.ModelForm):
    """A new version is made by the action, within the transaction of the page; an unused one may still be edited."""

    made_by: Any = None

    class Meta:
        model = PromptVersion
        fields = ("prompt", "system", "template", "response_schema", "message", "parent")
        widgets = {"system": Code, "template": Code, "message": forms.TextInput(attrs={"size": 90})}

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if self.errors:
            return data
        try:
            if self.instance.pk:
                actions.check_prompt(data["system"], data["template"], data.get("response_schema"))
            else:
                self.instance = actions.create_version(by=self.made_by, **data)
        except ValidationError as e:
            _refuse(self, e)
        return data

    def _post_clean(self) -> None:
        if self.instance.pk and not self.errors:
            for name in self.changed_data:
                setattr(self.instance, name, self.cleaned_data[name])

    def save(self, commit: bool = True) -> PromptVersion:
        return self.instance

    def save_m2m(self) -> None:
        """Nothing is left to save."""


@admin.register(PromptVersion)
class PromptVersionAdmin(admin.ModelAdmin):
    form = PromptVersionForm
    change_form_template = "admin/prompts/promptversion/change_form.html"
    list_display = ("__str__", "task", "message", "frozen", "created_by", "created_at")
    list_filter = ("prompt__task", "prompt")
    list_select_related = ("prompt", "created_by")
    search_fields = ("prompt__name", "prompt__slug", "message", "template")
    search_help_text = "Prompt, what changed, or words of the text"
    autocomplete_fields = ("prompt", "parent")
    date_hierarchy = "created_at"
    readonly_fields = ("number", "digest", "used_at", "created_at", "created_by")
    fieldsets = (
        (None, {"fields": ("prompt", "message", "system", "template", "response_schema", "parent")}),
        ("Facts", {"fields": ("number", "used_at", "digest", "created_at", "created_by")}),
    )

    @admin.display(description="task")
    def task(self, obj: PromptVersion) -> str:
        return obj.prompt.get_task_display()

    @admin.display(description="frozen", boolean=True, ordering="used_at")
    def frozen(self, obj: PromptVersion) -> bool:
        return obj.used_at is not None

    def get_fieldsets(self, request: HttpRequest, obj: PromptVersion | None = None) -> Any:
        return self.fieldsets if obj else self.fieldsets[:1]

    def get_readonly_fields(self, request: HttpRequest, obj: PromptVersion | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "prompt", "parent") if obj else self.readonly_fields

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.used_at is None)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or obj.used_at is None)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        found = super().get_actions(request)
        found.pop("delete_selected", None)
        return found

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return type("Form", (super().get_form(request, obj, change=change, **kwargs),), {"made_by": request.user})

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """`?from=ID`: the text of that version, to be saved as a new one."""
        found: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        origin = str(found.pop("from", ""))
        version = PromptVersion.objects.filter(pk=int(origin)).first() if origin.isdecimal() else None
        if version:
            found |= {
                "prompt": version.prompt_id,
                "parent": version.pk,
                "system": version.system,
                "template": version.template,
                "response_schema": version.response_schema,
            }
        return found

    def save_model(self, request: HttpRequest, obj: Model, form: ModelForm, change: bool) -> None:
        if change:
            obj.save()


# -- wordlists --------------------------------------------------------------------------------------------------------
class WordlistForm(forms.ModelForm):
    """Saving makes a new version where the words changed."""

    words = forms.CharField(
        required=False,
        widget=Code,
        help_text="One entry a line: cat, =exactly this, *_hair, /regular expression/, old -> new, "
        "dog = doggo, pup < animal @category # note. See docs/wordlists.md.",
    )
    message = forms.CharField(
        required=False, max_length=200, widget=forms.TextInput(attrs={"size": 90}), label="What changed"
    )
    base = forms.IntegerField(required=False, widget=forms.HiddenInput)
    made_by: Any = None

    class Meta:
        model = Wordlist
        fields = ("name", "slug", "kind", "note")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        current = self.instance.current if self.instance.pk else None
        self.initial.setdefault("base", current.number if current else 0)
        if current:
            self.initial.setdefault("words", words_of(current))

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        kind = data.get("kind") or self.instance.kind
        if kind:
            try:
                data["entries"] = parse_text(data.get("words", ""), kind)
            except WordlistError as e:
                self.add_error("words", [str(problem) for problem in e.problems[:20]])
        if self.instance.pk and "words" in self.changed_data and not self.errors:
            try:  # within the transaction of the page
                actions.save_wordlist(
                    self.instance,
                    data["entries"],
                    message=data.get("message", ""),
                    base=data.get("base") or 0,
                    by=self.made_by,
                )
            except ValidationError as e:
                self.add_error("words", [line for lines in e.message_dict.values() for line in lines])
        return data


@admin.register(Wordlist)
class WordlistAdmin(ImportExportMixin, admin.ModelAdmin):
    form = WordlistForm
    resource_classes = (WordlistResource,)
    formats = (CSV,)
    list_display = ("name", "slug", "kind", "versions", "created_at")
    list_filter = ("kind",)
    search_fields = ("name", "slug", "note")
    search_help_text = "Name, slug or note"
    prepopulated_fields = {"slug": ("name",)}
    readonly_fields = ("created_at", "all_versions")
    fieldsets = (
        (None, {"fields": ("name", "slug", "kind", "note")}),
        (
            "Words",
            {
                "fields": ("words", "message", "base"),
                "description": "Saving other words makes a new version. Policies keep the version they were made with.",
            },
        ),
        ("Versions", {"fields": ("all_versions", "created_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Wordlist]:
        return super().get_queryset(request).annotate(n_versions=Count("versions"))

    @admin.display(ordering="n_versions")
    def versions(self, obj: Any) -> int:
        return int(obj.n_versions)

    @admin.display(description="versions")
    def all_versions(self, obj: Wordlist) -> SafeString | str:
        if not obj.pk:
            return "None yet."
        rows = obj.versions.select_related("created_by").defer("entries").order_by("-number")
        return _versions(rows[:SHOWN], WordlistVersion._meta)

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return {} if obj else self.prepopulated_fields

    def get_readonly_fields(self, request: HttpRequest, obj: Wordlist | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "kind") if obj and obj.versions.exists() else self.readonly_fields

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return type("Form", (super().get_form(request, obj, change=change, **kwargs),), {"made_by": request.user})

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change:
            data = form.cleaned_data
            actions.save_wordlist(form.instance, data["entries"], message=data["message"], by=form.made_by)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Not once rules use a version: they could no longer say what they are."""
        if obj is not None and obj.versions.filter(policy_versions__isnull=False).exists():
            return False
        return super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        found = super().get_actions(request)
        found.pop("delete_selected", None)
        return found


@admin.register(WordlistVersion)
class WordlistVersionAdmin(admin.ModelAdmin):
    list_display = ("__str__", "message", "created_by", "created_at")
    list_filter = ("wordlist",)
    list_select_related = ("wordlist", "created_by")
    search_fields = ("wordlist__name", "wordlist__slug", "message")
    search_help_text = "List, or what changed"
    fields = ("wordlist", "number", "message", "words", "digest", "created_by", "created_at")
    readonly_fields = ("words",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[WordlistVersion]:
        viewing = request.resolver_match and (request.resolver_match.url_name or "").endswith("_change")
        found = super().get_queryset(request)
        return found if viewing else found.defer("entries")

    @admin.display(description="words")
    def words(self, obj: WordlistVersion) -> SafeString | str:
        return _pre(words_of(obj))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
