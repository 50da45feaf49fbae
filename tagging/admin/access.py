"""API keys: made here, shown once."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..actions import keys
from ..models import ApiKey
from .common import Admin, confirmed, mark


class NewKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=[
            ("read", "read: look at everything"),
            ("write", "write: decide on tags"),
            ("run", "run: runs, exports"),
        ],
        initial=["read"],
        widget=forms.CheckboxSelectMultiple,
        help_text="Never more than its owner may do.",
    )
    text = ""  # the key itself, once it is made

    class Meta:
        model = ApiKey
        fields = ("name", "owner", "scopes")

    def save(self, commit: bool = True) -> ApiKey:
        return self.instance

    def save_m2m(self) -> None:
        """Nothing is left to save."""

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                self.instance, self.text = keys.create_key(data["owner"], data["name"], data["scopes"])
            except ValidationError as e:
                for name, lines in e.message_dict.items():
                    self.add_error(name if name in self.fields else None, lines)
        return data

    def _post_clean(self) -> None:
        """The action has checked and saved it."""


@admin.register(ApiKey)
class ApiKeyAdmin(Admin[ApiKey]):
    list_display = ("name", "prefix", "owner", "shown_scopes", "state", "created_at", "last_used_at")
    list_filter = ("owner",)
    list_select_related = ("owner",)
    search_fields = ("name", "prefix", "owner__username")
    search_help_text = "Name, prefix or owner"
    autocomplete_fields = ("owner",)
    actions = ("revoke",)
    fields = ("name", "owner", "prefix", "shown_scopes", "created_at", "last_used_at", "revoked_at")

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        if not change:
            kwargs |= {"form": NewKeyForm, "fields": ("name", "owner", "scopes")}
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return self.fields if obj else ("name", "owner", "scopes")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # revoke it and make another

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("tagging.view_apikey")

    def save_model(self, request: HttpRequest, obj: ApiKey, form: ModelForm, change: bool) -> None:
        text = getattr(form, "text", "")
        self.message_user(
            request,
            format_html(
                'The key is <code class="iw-key">{}</code> Copy it now: it cannot be shown again. '
                "Send it as the header X-API-Key.",
                text,
            ),
            messages.WARNING,
        )

    @admin.display(description="scopes")
    def shown_scopes(self, obj: ApiKey) -> str:
        return ", ".join(obj.scopes)

    @admin.display(description="state", ordering="revoked_at")
    def state(self, obj: ApiKey) -> SafeString:
        return mark("revoked", "warning") if obj.revoked_at else mark("valid", "ok")

    @confirmed(
        title="Revoke",
        question="Revoke these keys? Programs that use them are shut out at once, and for good.",
        button="Revoke",
        permission="revoke",
        danger=True,
    )
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey], data: dict[str, Any]) -> str:
        n = sum(keys.revoke(key) for key in queryset)
        return f"{n} key{'s' if n != 1 else ''} revoked."

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tagging.change_apikey")
