"""Runs and what came of them: pages to read, and the verbs that a run knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Max, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..actions import runs
from ..adapters.base import PackedScores
from ..engine.progress import progress
from ..models import Chunk, ImageAsset, Prediction, Proposal, RecomputeJob, Run
from .common import (
    AnnotatesPage,
    BigAdmin,
    ReadOnly,
    Stated,
    as_json,
    bar,
    confirmed,
    link,
    list_link,
    mark,
    picture,
    pre,
    table,
)

SHOWN_SCORES = 60


def _verb(
    title: str, question: str, act: Callable[[Run], object], done: str, danger: bool = False
) -> Callable[..., HttpResponse | None]:
    """One verb of `actions.runs` on the chosen runs; those that are in no state for it are named."""

    def apply(self: RunAdmin, request: HttpRequest, queryset: QuerySet[Run], data: dict[str, Any]) -> str:
        n = 0
        for run in queryset:
            try:
                act(run)
                n += 1
            except runs.NotNow as e:
                self.message_user(request, str(e), messages.WARNING)
        return f"{n} {done}." if n else ""

    apply.__name__ = title.lower().replace(" ", "_")
    return confirmed(title=title, question=question, button=title, permission="steer", danger=danger)(apply)


@admin.register(Run)
class RunAdmin(Stated[Run], AnnotatesPage[Run], ReadOnly[Run]):
    list_display = ("__str__", "collection", "recipe", "shown_state", "done", "shown_by", "created_at")
    list_filter = ("state", "collection", "recipe__channels__adapter")
    list_select_related = ("collection", "recipe", "created_by")
    search_fields = ("name", "collection__name", "recipe__name", "error")
    search_help_text = "Name, collection, recipe, or text of the error"
    date_hierarchy = "created_at"
    fields = (
        "name", "collection", "recipe", "shown_state", "done", "priority", "shown", "phase", "provider", "load_seconds",
        "error", "chunks", "results", "created_by", "created_at", "started_at", "finished_at",
    )  # fmt: skip
    readonly_fields = ("shown_state", "done", "chunks", "results")
    actions = ("pause", "resume", "cancel", "retry_failed")

    pause = _verb("Pause", "Pause these runs? Workers stop within a second; nothing is lost.", runs.pause, "paused")
    resume = _verb("Resume", "Go on with these runs?", runs.resume, "resumed")
    cancel = _verb(
        "Cancel", "Cancel these runs? What was proposed so far stays.", runs.cancel, "cancelled", danger=True
    )
    retry_failed = _verb(
        "Retry failed", "Try the images again that failed in these runs?", runs.retry_failed, "started again"
    )

    def has_steer_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tagging.change_run")

    def annotate_page(self, rows: Sequence[Run]) -> None:
        found = progress(rows)
        for row in rows:
            row.at = found.get(row.pk)  # type: ignore[attr-defined]

    @admin.display(description="progress")
    def done(self, obj: Any) -> SafeString | str:
        at = getattr(obj, "at", None) or progress([obj]).get(obj.pk)
        if at is None:
            return "–"
        failed = f", {at.error:,} failed" if at.error else ""
        return format_html(
            '<progress max="{}" value="{}" aria-label="progress of {}"></progress> {} of {}{}',
            at.total or 1, at.done, obj, f"{at.done:,}", f"{at.total:,}", failed,
        )  # fmt: skip

    @admin.display(description="by", ordering="created_by")
    def shown_by(self, obj: Run) -> str:
        return str(obj.created_by or "–")

    @admin.display(description="chunks")
    def chunks(self, obj: Run) -> SafeString:
        rows = (
            Chunk.objects.filter(run=obj)
            .order_by("stage", "state")
            .values("stage", "queue", "state")
            .annotate(
                n=Count("pk"), ok=Sum("n_ok"), empty=Sum("n_empty"), error=Sum("n_error"), cached=Sum("n_cached"),
                attempts=Max("attempts"),
            )
        )  # fmt: skip
        summary = table(
            ("stage", "queue", "state", "chunks", "ok", "empty", "failed", "from the cache", "most attempts"),
            (
                (r["stage"], r["queue"], Chunk.State(r["state"]).label, r["n"], r["ok"], r["empty"], r["error"],
                 r["cached"], r["attempts"])
                for r in rows
            ),
            "The run's chunks by stage and state",
        )  # fmt: skip
        return format_html("{}<p>{}</p>", summary, list_link(Chunk, "All chunks", run__id__exact=obj.pk))

    @admin.display(description="results")
    def results(self, obj: Run) -> SafeString:
        return format_html(
            "{} · {}",
            list_link(Proposal, "All proposals", run__id__exact=obj.pk),
            list_link(Proposal, "Errors", run__id__exact=obj.pk, state__exact="error"),
        )


@admin.register(Chunk)
class ChunkAdmin(BigAdmin[Chunk], ReadOnly[Chunk]):
    list_display = (
        "pk",
        "run",
        "stage",
        "queue",
        "slice",
        "shown_state",
        "n_ok",
        "n_empty",
        "n_error",
        "attempts",
        "owner",
    )
    list_filter = ("state", "queue")
    list_select_related = ("run",)
    search_fields = ("=run__id", "owner")
    search_help_text = "Number of the run, or owner"
    ordering = ("-pk",)
    exclude = ("image_ids",)
    readonly_fields = ("images",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Chunk]:
        found = super().get_queryset(request)
        viewing = request.resolver_match and (request.resolver_match.url_name or "").endswith("_change")
        return found if viewing else found.defer("image_ids")

    @admin.display(description="images")
    def slice(self, obj: Chunk) -> str:
        return f"{obj.lo:,} to {obj.hi:,}"

    @admin.display(description="state", ordering="state")
    def shown_state(self, obj: Chunk) -> SafeString:
        return mark(obj.get_state_display(), "ok" if obj.state == Chunk.State.DONE else "")

    @admin.display(description="image numbers")
    def images(self, obj: Chunk) -> SafeString | str:
        return pre(", ".join(map(str, obj.images)))


@admin.register(Proposal)
class ProposalAdmin(Stated[Proposal], BigAdmin[Proposal], ReadOnly[Proposal]):
    list_display = ("thumbnail", "image", "run", "shown_state", "rating", "shown_caption", "created_at")
    list_display_links = ("thumbnail", "image")
    list_filter = ("state",)
    list_select_related = ("image__collection", "run")
    search_fields = ("=run__id", "=image__id", "image__path")
    search_help_text = "Number of the run or image, or part of the path"
    ordering = ("-pk",)
    fields = (
        "thumbnail_large", "image", "run", "shown_state", "error", "kept", "dropped", "caption", "rating",
        "rating_score", "raw", "prediction", "policy_version", "created_at",
    )  # fmt: skip
    readonly_fields = ("thumbnail_large", "shown_state", "kept", "dropped", "raw")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Proposal]:
        viewing = request.resolver_match and (request.resolver_match.url_name or "").endswith("_change")
        found = super().get_queryset(request)
        return found.select_related("image", "prediction") if viewing else found.defer("tags", "error")

    @admin.display(description="picture")
    def thumbnail(self, obj: Proposal) -> SafeString | str:
        return picture(obj.image, 72)

    @admin.display(description="picture")
    def thumbnail_large(self, obj: Proposal) -> SafeString | str:
        return picture(obj.image, 320)

    @admin.display(description="caption")
    def shown_caption(self, obj: Proposal) -> str:
        return obj.caption[:80]

    @admin.display(description="proposed tags")
    def kept(self, obj: Proposal) -> SafeString | str:
        return _fates([t for t in obj.tags if t[3] != "dropped"], "Tags that were proposed")

    @admin.display(description="dropped tags")
    def dropped(self, obj: Proposal) -> SafeString | str:
        return _fates([t for t in obj.tags if t[3] == "dropped"], "Tags that the policy dropped, and why")

    @admin.display(description="raw reply")
    def raw(self, obj: Proposal) -> SafeString | str:
        return pre(obj.prediction.text) if obj.prediction else "–"


def _fates(tags: list[list[Any]], caption: str) -> SafeString | str:
    return table(
        ("tag", "category", "probability", "fate", "why", "source"),
        (
            (
                name,
                category,
                bar(score),
                mark(state, "warning" if state == "dropped" else ""),
                reason or "–",
                source or "–",
            )
            for name, category, score, state, reason, source, *_ in tags
        ),
        caption,
    )


@admin.register(Prediction)
class PredictionAdmin(BigAdmin[Prediction], ReadOnly[Prediction]):
    list_display = ("__str__", "run", "source", "shown_caption", "finish_reason", "seconds", "tokens_out", "created_at")
    list_filter = ("source", "finish_reason")
    list_select_related = ("run",)
    search_fields = ("=key", "=image_sha256")
    search_help_text = "The whole key, or the image's whole SHA-256"
    ordering = ("-pk",)
    fields = (
        "thumbnail_large", "run", "all_scores", "all_tags", "caption", "rating", "rating_score", "raw", "tokens_in",
        "tokens_out", "finish_reason", "shown_flags", "seconds", "source", "key", "image_sha256", "created_at",
    )  # fmt: skip
    readonly_fields = ("thumbnail_large", "all_scores", "all_tags", "raw", "shown_flags")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prediction]:
        viewing = request.resolver_match and (request.resolver_match.url_name or "").endswith("_change")
        found = super().get_queryset(request)
        return found.select_related("labels") if viewing else found.defer("scores", "tags", "text")

    @admin.display(description="picture")
    def thumbnail_large(self, obj: Prediction) -> SafeString | str:
        image = ImageAsset.objects.filter(sha256=obj.image_sha256).first()
        return (
            format_html("{} {}", picture(image, 320), link(image)) if image else "No image has this content any more."
        )

    @admin.display(description="caption")
    def shown_caption(self, obj: Prediction) -> str:
        return obj.caption[:80]

    @admin.display(description="scores")
    def all_scores(self, obj: Prediction) -> SafeString | str:
        if obj.scores is None or obj.labels is None:
            return "This model gives no scores."
        packed = PackedScores.from_bytes(obj.scores)
        names, categories = obj.labels.names, obj.labels.categories
        best = list(zip(packed.labels.tolist(), packed.probabilities.tolist(), strict=True))[:SHOWN_SCORES]
        return table(
            ("label", "category", "probability"),
            ((names[label], categories[label], bar(score)) for label, score in best),
            f"The {len(best)} highest of {len(packed.labels)} stored scores",
        )

    @admin.display(description="tags as said")
    def all_tags(self, obj: Prediction) -> SafeString | str:
        return table(
            ("tag", "category", "probability"),
            ((name, category, bar(score)) for name, category, score, *_ in obj.tags or []),
            "Tags as the model said them",
        )

    @admin.display(description="raw reply")
    def raw(self, obj: Prediction) -> SafeString | str:
        return pre(obj.text)

    @admin.display(description="flags")
    def shown_flags(self, obj: Prediction) -> SafeString | str:
        return as_json(obj.flags) if obj.flags else "none"


@admin.register(RecomputeJob)
class RecomputeJobAdmin(Stated[RecomputeJob], ReadOnly[RecomputeJob]):
    list_display = ("__str__", "shown_state", "n_done", "n_total", "n_changed", "seconds", "created_by", "created_at")
    list_filter = ("state",)
    list_select_related = ("run__collection", "policy_version__policy", "created_by")
    search_fields = ("run__collection__name", "policy_version__policy__slug", "error")
    search_help_text = "Collection, policy, or text of the error"
    exclude = ("token",)
