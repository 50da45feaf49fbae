"""Configured models: options checked against the adapter's schema, capabilities shown, a check that names mends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse, reverse_lazy
from django.utils.safestring import SafeString

from ..actions.listings import ask_for_models, choose_model
from ..actions.models import problems
from ..adapters import registry
from ..models import ModelAdapter, ModelDownload, ModelListing
from .common import Admin, ReadOnly, Stated, mark, table
from .option_form import OptionsField, OptionsWidget, class_of, swapped


class ModelAdapterForm(forms.ModelForm):
    kind = forms.ChoiceField(
        choices=lambda: [("", "choose…"), *registry.choices()],
        help_text="The family of models. It decides the options below.",
        widget=forms.Select(
            attrs={
                "hx-get": reverse_lazy("admin:tagging_modeladapter_options"),
                "hx-include": "closest form",
                "hx-target": "#options-form",
                "hx-swap": "outerHTML",
                "hx-trigger": "change",
                "hx-params": "not csrfmiddlewaretoken",
            }
        ),
    )
    options = OptionsField(label="Options")

    class Meta:
        model = ModelAdapter
        fields = (
            "slug", "label", "kind", "source", "revision", "device", "quantization", "options", "enabled", "note",
        )  # fmt: skip
        widgets = {
            "source": forms.TextInput(attrs={"list": "sources", "class": "vTextField"}),
            "device": forms.TextInput(attrs={"list": "devices", "class": "vTextField"}),
            "quantization": forms.TextInput(attrs={"list": "quantizations", "class": "vTextField"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "options" in self.fields:
            widget = cast(OptionsWidget, self.fields["options"].widget)
            widget.kind = self.data.get("kind", "") if self.is_bound else self.instance.kind
            sent = self.is_bound and "options" not in self.data
            widget.bound = cast(QueryDict, self.data) if sent else None

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        code = class_of(data.get("kind", ""))
        if code is not None:
            for name, allowed in (
                ("device", code.capabilities.devices),
                ("quantization", code.capabilities.quantizations),
            ):
                if data.get(name) and data[name] not in allowed and not _indexed(data[name], allowed):
                    self.add_error(name, f"{code.label} knows {', '.join(allowed)}.")
        return data


def _indexed(value: str, allowed: Iterable[str]) -> bool:
    """cuda:1 where cuda is allowed."""
    device, _, number = value.partition(":")
    return number.isdigit() and device in allowed


@admin.register(ModelAdapter)
class ModelAdapterAdmin(Admin[ModelAdapter]):
    form = ModelAdapterForm
    list_display = ("label", "slug", "kind", "source", "revision", "device", "shown_state", "last_used_at")
    list_filter = ("enabled", "kind")
    search_fields = ("label", "slug", "source")
    search_help_text = "Name, slug or source"
    prepopulated_fields = {"slug": ("label",)}
    change_form_template = "admin/tagging/modeladapter/change_form.html"
    readonly_fields = ("capabilities", "last_error", "last_used_at", "created_at")
    fieldsets = (
        (None, {"fields": ("label", "slug", "kind", "enabled", "note")}),
        ("Weights", {"fields": ("source", "revision", "device", "quantization")}),
        (
            "Options",
            {
                "fields": ("options",),
                "description": "Defaults of every run with this model. Runs keep what they were made with.",
            },
        ),
        ("Facts", {"fields": ("capabilities", "last_error", "last_used_at", "created_at")}),
    )

    def get_prepopulated_fields(self, request: HttpRequest, obj: ModelAdapter | None = None) -> Any:
        return {} if obj else self.prepopulated_fields

    @admin.display(description="state", ordering="enabled")
    def shown_state(self, obj: ModelAdapter) -> SafeString:
        if not obj.enabled:
            return mark("off", "warning")
        return mark("last use failed", "error") if obj.last_error else mark("on", "ok")

    @admin.display(description="what it can do")
    def capabilities(self, obj: ModelAdapter) -> SafeString | str:
        code = class_of(obj.kind)
        if code is None:
            return "Save it with a kind first." if not obj.kind else "The code of this kind cannot be loaded."
        return table(
            ("capability", "value"),
            (
                (name.replace("_", " "), ", ".join(value) if isinstance(value, list) else _yes(value))
                for name, value in code.capabilities.as_dict().items()
            ),
            "Capabilities of this kind",
        )

    # -- the check --------------------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("options/", wrap(self.options_view), name="tagging_modeladapter_options"),
            path("<path:object_id>/models/", wrap(self.models_view), name="tagging_modeladapter_models"),
            path("<path:object_id>/check/", wrap(self.check_view), name="tagging_modeladapter_check"),
            *super().get_urls(),
        ]

    def options_view(self, request: HttpRequest) -> HttpResponse:
        """The options of the kind that was just chosen, for the form in place."""
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied
        return HttpResponse(swapped(request.GET))

    def models_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What the server behind an endpoint has: asked for here, fetched by a worker, polled until it is there."""
        obj = self.get_object(request, object_id)
        if obj is None or not (obj.kind and getattr(class_of(obj.kind), "lists_models", False)):
            raise Http404("There is no such endpoint.")
        if not self.has_change_permission(request, obj):
            raise PermissionDenied
        if request.method == "POST":
            try:
                if name := request.POST.get("model", ""):
                    choose_model(obj, name)
                    self.message_user(request, f"{obj.label} uses {name} from now on.")
                    return HttpResponseRedirect(reverse("admin:tagging_modeladapter_change", args=[obj.pk]))
                ask_for_models(obj)
            except ValidationError as e:
                self.message_user(request, " ".join(e.messages), messages.ERROR)
            return HttpResponseRedirect(request.path)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Models of {obj.label}",
            "object": obj,
            "opts": self.opts,
            "listing": ModelListing.objects.filter(adapter=obj).first(),
            "chosen": obj.options.get("model", ""),
        }
        piece = "#listing" if request.headers.get("HX-Request") else ""
        return TemplateResponse(request, f"admin/tagging/modeladapter/models.html{piece}", context)

    def check_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What would keep the model from working, found without loading it."""
        obj = self.get_object(request, object_id)
        if obj is None:
            raise Http404("There is no such adapter.")
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": f"Check of {obj.label}",
            "object": obj,
            "opts": self.opts,
            "problems": problems(obj),
        }
        return TemplateResponse(request, "admin/tagging/modeladapter/check.html", context)


def _yes(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


@admin.register(ModelDownload)
class ModelDownloadAdmin(Stated[ModelDownload], ReadOnly[ModelDownload]):
    list_display = ("source", "kind", "shown_state", "bytes_done", "bytes_total", "created_by", "created_at")
    list_filter = ("state", "kind")
    list_select_related = ("created_by",)
    search_fields = ("source", "error")
    search_help_text = "Hub id, or text of the error"
    exclude = ("token",)
