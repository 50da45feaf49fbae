"""What all admin pages share: read-only pages, tables too large to count, thumbnails, actions that ask first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ..models import ImageAsset

M = TypeVar("M", bound=Model)
COUNTED = 10_000  # rows of a large table that are counted (and paged through) at most
SHOWN = 60  # objects drawn on a confirmation page
#: state → tone of its mark
TONES = {"done": "ok", "ok": "ok", "failed": "error", "error": "error", "cancelled": "warning", "paused": "warning"}
if TYPE_CHECKING:
    Base = admin.ModelAdmin
else:  # django's ModelAdmin cannot be subscripted
    Base = type("Base", (admin.ModelAdmin,), {"__class_getitem__": classmethod(lambda cls, item: cls)})


class MoreThan(int):
    """The size of a table that was not counted to its end."""

    def __str__(self) -> str:
        return f"more than {int(self):,}"

    def __format__(self, spec: str) -> str:
        return str(self)


class CappedPaginator(Paginator):
    """Counts no further than COUNTED: a search narrows better than page 4,000 does."""

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        found = rows.order_by().values("pk")[: COUNTED + 1].count()
        return MoreThan(COUNTED) if found > COUNTED else found


class Admin(Base[M]):
    """The base of all: no counting of everything, fifty rows a page."""

    list_per_page = 50
    show_full_result_count = False


class BigAdmin(Admin[M]):
    """For tables with millions of rows."""

    paginator = CappedPaginator
    show_facets = admin.ShowFacets.NEVER
    list_max_show_all = 0


class ReadOnly(Admin[M]):
    """Rows that are written by workers or actions, never by hand."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Stated(Base[M]):
    """A column of the state, in the colour that it has everywhere."""

    @admin.display(description="state", ordering="state")
    def shown_state(self, obj: Any) -> SafeString:
        return mark(obj.get_state_display(), TONES.get(obj.state, ""))


class PageChangeList(ChangeList):
    """A list whose rows get extra facts in one go, see `AnnotatesPage.annotate_page`."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        self.model_admin.annotate_page(self.result_list)  # type: ignore[attr-defined]


class AnnotatesPage(Base[M]):
    """Counts of related rows for the page that is shown, never for the whole table."""

    def annotate_page(self, rows: Sequence[Any]) -> None:
        raise NotImplementedError

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PageChangeList


# -- drawing ----------------------------------------------------------------------------------------------------------
def picture(image: ImageAsset | None, side: int = 96) -> SafeString | str:
    """The thumbnail; its file name is the alternative text. Unreadable files have none."""
    if image is None or not image.sha256 or image.state == ImageAsset.State.ERROR:
        return "–"
    url = reverse("tagging:thumb", args=[image.sha256, 320 if side <= 320 else 1024])
    return format_html(
        '<img class="iw-thumb{}" src="{}" alt="{}" width="{}" height="{}" loading="lazy">',
        " iw-picture" if side > 200 else "",
        url,
        image.name,
        side,
        side,
    )


def link(obj: Model | None, text: str = "") -> SafeString | str:
    """To the object's admin page."""
    if obj is None:
        return "–"
    name = f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change"
    return format_html('<a href="{}">{}</a>', reverse(name, args=[obj.pk]), text or str(obj))


def list_link(model: type[Model], text: str, **query: Any) -> SafeString:
    """To a list in the admin, narrowed."""
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist", query=query)
    return format_html('<a href="{}">{}</a>', url, text)


def bar(probability: float | None) -> SafeString | str:
    """A probability as a bar with its number."""
    if probability is None:
        return "–"
    return format_html(
        '<span class="iw-bar"><meter min="0" max="1" value="{}" aria-label="probability {}"></meter> {}</span>',
        f"{probability:.4f}", f"{probability:.2f}", f"{probability:.2f}",
    )  # fmt: skip


def mark(text: str, tone: str = "") -> SafeString:
    """A state as a word in a frame; the tone is ok, warning, error or empty."""
    return format_html('<span class="iw-mark" data-tone="{}">{}</span>', tone, text)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str, empty: str = "None.") -> SafeString | str:
    """A plain table. Cells are escaped unless they are safe already."""
    body = [format_html("<tr>{}</tr>", format_html_join("", "<td>{}</td>", ((c,) for c in row))) for row in rows]
    if not body:
        return empty
    return format_html(
        '<div class="iw-scroll" tabindex="0" role="region" aria-label="{}"><table class="iw-table">'
        "<caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>",
        caption,
        caption,
        format_html_join("", '<th scope="col">{}</th>', ((h,) for h in head)),
        format_html_join("", "{}", ((row,) for row in body)),
    )


def as_json(value: Any) -> SafeString | str:
    """JSON as people read it."""
    return pre(json.dumps(value, indent=2, ensure_ascii=False))


def pre(text: str) -> SafeString | str:
    return format_html('<pre class="iw-pre" tabindex="0">{}</pre>', text) if text else "–"


# -- actions that ask first -------------------------------------------------------------------------------------------
def confirmed(
    *,
    title: str,
    question: str,
    button: str,
    permission: str = "change",
    form: type[forms.Form] | None = None,
    danger: bool = False,
) -> Callable[[Callable[..., str | None]], Callable[..., HttpResponse | None]]:
    """An action with a page between that lists what will be done to what.

    The decorated method gets (request, queryset, cleaned data) and returns what to tell the person. ValidationError is
    shown beside the form.
    """

    def decorate(act: Callable[..., str | None]) -> Callable[..., HttpResponse | None]:
        @admin.action(description=title, permissions=[permission])
        def action(self: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
            asked = "confirmed" in request.POST
            bound = form(request.POST if asked else None) if form else None
            if asked and (bound is None or bound.is_valid()):
                try:
                    said = act(self, request, queryset, bound.cleaned_data if bound else {})
                except ValidationError as e:
                    if bound is None:
                        self.message_user(request, " ".join(e.messages), messages.ERROR)
                        return None
                    for name, lines in _by_field(e).items():
                        for line in lines:
                            bound.add_error(name if name in bound.fields else None, line)
                else:
                    if said:
                        self.message_user(request, said, messages.SUCCESS)
                    return None
            return _ask(self, request, queryset, title, question, button, danger, bound, action.__name__)

        action.__name__ = act.__name__
        action.__doc__ = act.__doc__
        return action

    return decorate


def _ask(
    self: Any,
    request: HttpRequest,
    queryset: QuerySet[Any],
    title: str,
    question: str,
    button: str,
    danger: bool,
    form: forms.Form | None,
    name: str,
) -> TemplateResponse:
    total = queryset.count()
    rows = list(queryset[:SHOWN])
    context = {
        **self.admin_site.each_context(request),
        "title": title,
        "question": question,
        "button": button,
        "danger": danger,
        "form": form,
        "total": total,
        "rows": [(row, picture(row) if isinstance(row, ImageAsset) else "") for row in rows],
        "more": total - len(rows),
        "selected": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME),
        "across": request.POST.get("select_across", "0"),
        "action": name,
        "checkbox": helpers.ACTION_CHECKBOX_NAME,
        "opts": self.opts,
        "media": self.media + (form.media if form else forms.Media()),
    }
    return TemplateResponse(request, "admin/iwtag_confirm.html", context)


def _by_field(error: ValidationError) -> dict[str, list[str]]:
    return error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
