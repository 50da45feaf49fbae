"""Judges, verdicts, jobs, gates and calibrations: pages to read. They are changed on their own pages, by actions."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString

from tagging.admin.common import BigAdmin, ReadOnly, as_json, bar, link, list_link, mark, picture, table

from ..actions.calibrating import badge_of
from ..models import (
    Calibration,
    Gate,
    GateOutcome,
    InboxAnswer,
    JudgedTag,
    JudgeJob,
    JudgeProfile,
    JudgeProfileVersion,
    JudgeVerdict,
    SecondLook,
    replies_of,
)

TONES = {"trusted": "ok", "advisory": "warning", "off": ""}


@admin.register(JudgeProfile)
class JudgeProfileAdmin(ReadOnly[JudgeProfile]):
    list_display = ("slug", "name", "kind", "enabled", "current", "badge")
    list_filter = ("kind", "enabled")
    list_select_related = ("current__profile",)
    search_fields = ("slug", "name")
    search_help_text = "Name"
    fields = ("slug", "name", "kind", "enabled", "current", "badge", "note", "versions", "verdicts")
    readonly_fields = ("badge", "versions", "verdicts")

    @admin.display(description="badge")
    def badge(self, obj: JudgeProfile) -> SafeString:
        badge = badge_of(obj.current)
        return mark(badge, TONES[badge])

    @admin.display(description="versions")
    def versions(self, obj: JudgeProfile) -> SafeString | str:
        rows = obj.versions.select_related("adapter", "prompt_version__prompt", "profile")[:50]
        return table(
            ("version", "model", "prompt", "what changed", "made"),
            ((link(v), v.adapter or "–", v.prompt_version or "–", v.message, str(v.created_at)[:16]) for v in rows),
            "Versions, newest first",
        )

    @admin.display(description="verdicts")
    def verdicts(self, obj: JudgeProfile) -> SafeString:
        return list_link(JudgeVerdict, "Verdicts", version__profile__id__exact=obj.pk)


@admin.register(JudgeProfileVersion)
class JudgeProfileVersionAdmin(ReadOnly[JudgeProfileVersion]):
    list_display = ("__str__", "adapter", "message", "created_by", "created_at")
    list_filter = ("profile",)
    list_select_related = ("profile", "adapter", "created_by")
    search_fields = ("profile__slug", "message")
    search_help_text = "Judge, or what changed"
    fields = (
        ("profile", "number", "digest"),
        ("adapter", "prompt_version"),
        "settings",
        "rubric",
        "decision_rules",
        "shown_examples",
        "message",
        ("created_by", "created_at"),
    )
    readonly_fields = ("settings", "decision_rules", "shown_examples")

    @admin.display(description="model")
    def settings(self, obj: JudgeProfileVersion) -> SafeString | str:
        return as_json({**obj.adapter_config, "options": obj.options}) if obj.adapter_config else "–"

    @admin.display(description="decision rules")
    def decision_rules(self, obj: JudgeProfileVersion) -> SafeString | str:
        return as_json(obj.rules)

    @admin.display(description="examples")
    def shown_examples(self, obj: JudgeProfileVersion) -> SafeString | str:
        return as_json(obj.examples) if obj.examples else "–"


class Big(BigAdmin[JudgeVerdict], ReadOnly[JudgeVerdict]):
    """A large table to read."""


@admin.register(JudgeVerdict)
class JudgeVerdictAdmin(Big):
    list_display = ("id", "thumb", "version", "state", "overall_bar", "outcome", "flip", "created_at")
    list_filter = ("kind", "state", "flip", ("version__profile", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("version__profile", "image__collection")
    search_fields = ("image__path", "key")
    search_help_text = "Path of the image, or the verdict's key"
    fields = (
        ("version", "kind", "state", "problem"),
        ("image", "image_sha256", "sample"),
        "thumb",
        ("overall_bar", "weight", "outcome", "flip"),
        "said",
        "judged",
        "came_of_it",
        "shown_flags",
        "replies",
        ("tokens_in", "tokens_out", "seconds", "created_at"),
        "key",
    )
    readonly_fields = ("thumb", "overall_bar", "said", "judged", "came_of_it", "shown_flags", "replies")

    @admin.display(description="image")
    def thumb(self, obj: JudgeVerdict) -> SafeString | str:
        return picture(obj.image)

    @admin.display(description="overall", ordering="overall")
    def overall_bar(self, obj: JudgeVerdict) -> SafeString | str:
        return bar(obj.overall)

    @admin.display(description="tags")
    def said(self, obj: JudgeVerdict) -> SafeString | str:
        rows = obj.tags.order_by("role", "name")
        return table(
            ("tag", "role", "verdict", "p", "evidence"),
            ((t.name, t.get_role_display(), t.get_word_display(), bar(t.p_ok), t.evidence) for t in rows),
            "What was said of each tag",
        )

    @admin.display(description="judged")
    def judged(self, obj: JudgeVerdict) -> SafeString | str:
        return as_json(obj.subject)

    @admin.display(description="result")
    def came_of_it(self, obj: JudgeVerdict) -> SafeString | str:
        return as_json(obj.result) if obj.result else "–"

    @admin.display(description="flags")
    def shown_flags(self, obj: JudgeVerdict) -> str:
        return ", ".join(obj.flags) or "–"

    @admin.display(description="replies")
    def replies(self, obj: JudgeVerdict) -> SafeString | str:
        found = replies_of([obj])
        return table(
            ("reply", "text"), ((link(r), r.text[:2000]) for r in found.values()), "The model's words, as they came"
        )


@admin.register(JudgeJob)
class JudgeJobAdmin(ReadOnly[JudgeJob]):
    list_display = ("id", "version", "subject", "state", "n_done", "n_total", "n_invalid", "n_error", "created_at")
    list_filter = ("state", "subject")
    list_select_related = ("version__profile",)
    search_fields = ("version__profile__slug", "error")
    search_help_text = "Judge, or text of the error"


@admin.register(Gate)
class GateAdmin(ReadOnly[Gate]):
    list_display = ("collection", "version", "enabled", "accept_at", "reject_at", "closed_why", "changed_at")
    list_select_related = ("collection", "version__profile")
    search_fields = ("collection__name", "profile__slug")
    search_help_text = "Collection or judge"


@admin.register(GateOutcome)
class GateOutcomeAdmin(BigAdmin[GateOutcome], ReadOnly[GateOutcome]):
    list_display = ("image", "band", "audit", "why", "worth", "version", "at")
    list_filter = ("band", "audit")
    list_select_related = ("image", "version__profile")
    search_fields = ("image__path",)
    search_help_text = "Path of the image"


@admin.register(Calibration)
class CalibrationAdmin(ReadOnly[Calibration]):
    list_display = ("version", "category", "shown_badge", "kappa", "decisions", "at")
    list_filter = ("badge",)
    list_select_related = ("version__profile",)
    search_fields = ("version__profile__slug", "category")
    search_help_text = "Judge or category"
    fields = ("version", "category", "shown_badge", "why", "decisions", "images", "kappa", "all_figures", "at")
    readonly_fields = ("shown_badge", "all_figures")

    @admin.display(description="badge", ordering="badge")
    def shown_badge(self, obj: Calibration) -> SafeString:
        return mark(obj.get_badge_display(), TONES[obj.badge])

    @admin.display(description="figures")
    def all_figures(self, obj: Calibration) -> SafeString | str:
        shown = {k: v for k, v in obj.figures.items() if k not in ("curve", "settled")}
        return as_json({"matrix": obj.matrix, **shown})


@admin.register(InboxAnswer)
class InboxAnswerAdmin(ReadOnly[InboxAnswer]):
    list_display = ("judged", "answer", "note", "used_in", "by", "at")
    list_filter = ("answer",)
    list_select_related = ("judged", "used_in__profile", "by")
    search_fields = ("judged__name", "note")
    search_help_text = "Tag, or the note"


@admin.register(JudgedTag)
class JudgedTagAdmin(BigAdmin[JudgedTag], ReadOnly[JudgedTag]):
    list_display = ("name", "category", "role", "word", "p_ok", "version")
    list_filter = ("role", "word")
    list_select_related = ("version__profile",)
    search_fields = ("name",)
    search_help_text = "Tag"


@admin.register(SecondLook)
class SecondLookAdmin(BigAdmin[SecondLook], ReadOnly[SecondLook]):
    list_display = ("image", "tag", "category", "first_right", "right", "first_by", "by", "at")
    list_filter = ("first_right", "right")
    list_select_related = ("image", "tag", "first_by", "by")
    search_fields = ("image__path", "tag__name")
    search_help_text = "Path of the image, or tag"
