"""The export step of a watched collection: what people decided is exported by itself, as a stored configuration says.

It follows the edits: when the newest one that has settled is newer than the last export, and the watch's interval has
passed, a job is queued as by hand. Reviewed truth is what leaves, unless the options say otherwise; what a judge
accepted leaves with the option `judged`, and only then do its decisions set off an export.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.conf import settings as site
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.db.models import QuerySet
from django.http import QueryDict
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString

from prompts.models import digest
from tagging.actions.ingest import check_root
from tagging.actions.settle import DOOR as JUDGED
from tagging.forms import SchemaForm
from tagging.imaging.storing import pieces
from tagging.models import Collection, TagEdit, Watch
from tagging.watching import Step, StepForm

from . import actions, in_place
from .exporters import registry
from .exporters.base import ExportError, ExportOptions
from .models import ExportJob
from .whole_file import write_whole

State = ExportJob.State
_KNOWN = ("enabled", "format", "options", "filter", "target")


def formats() -> list[tuple[str, str]]:
    """(identifier, label): what writes beside the images, then what makes a file."""
    return [*registry.IN_PLACE.items(), *((n, label) for n, label in registry.choices() if n not in registry.IN_PLACE)]


def options_of(format: str) -> type[ExportOptions]:
    return in_place.options_of(format) if format in registry.IN_PLACE else registry.exporter_class(format).Options


class ExportStep(Step):
    name = "export"
    label = "Export what was reviewed"
    legend = "Export"

    # -- settings -------------------------------------------------------------------------------------------------
    def check(self, collection: Collection, given: Mapping[str, Any]) -> dict[str, Any]:
        """{"enabled", "format", "options", "filter", "target"}; the target is a folder that gets the finished file,
        besides the page of exports. ValidationError keyed by these names or the option's."""
        if unknown := [name for name in given if name not in _KNOWN]:
            raise ValidationError({unknown[0]: f"There is no {unknown[0]!r} here; known: {', '.join(_KNOWN)}."})
        format, target = str(given.get("format") or "csv"), str(given.get("target") or "").strip()
        make = in_place.get_exporter if format in registry.IN_PLACE else actions.get_exporter
        exporter = make(collection, format, given.get("options") or {}, given.get("filter") or {})
        if target and format in registry.IN_PLACE:
            raise ValidationError({"target": "This format writes beside the images: leave the folder empty."})
        return {
            "enabled": bool(given.get("enabled")),
            "format": format,
            "options": exporter.options.model_dump(mode="json"),
            "filter": actions.filter_as_json(actions.parse_filter(given.get("filter"))),
            "target": str(_check_target(target)) if target else "",
        }

    def form(self, watch: Watch, data: QueryDict | None) -> StepForm:
        return ExportForm(watch, data)

    # -- work -----------------------------------------------------------------------------------------------------
    def run(self, watch: Watch, settings: Mapping[str, Any], last: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """Queue an export when decisions were made since the last one; put its file into the target when it is done."""
        try:
            return self._run(watch, settings, dict(last), force)
        except ExportError as e:
            raise ValidationError(str(e)) from None

    def _run(self, watch: Watch, settings: Mapping[str, Any], last: dict[str, Any], force: bool) -> dict[str, Any]:
        jobs = ExportJob.objects.filter(collection=watch.collection)
        working = jobs.filter(state__in=actions.OPEN, format=settings["format"]).order_by("pk").first()
        if working is not None:
            return {**last, "text": f"export {working.pk} is at work", "error": last.get("error", "")}
        job = jobs.filter(pk=last.get("job") or 0).first()
        if job is not None and job.state == State.DONE:
            last = _deliver(job, settings, last)
        now, wanted = timezone.now(), digest(dict(settings))
        failed = job is not None and job.state == State.FAILED
        upto = _newest_edit(now - timedelta(seconds=0 if force else watch.settle_seconds))
        changed = last.get("job") and last.get("settings") != wanted
        if not (failed or changed or _edits(watch, settings, last.get("upto", 0), upto).exists()):
            return {**last, "upto": max(upto, last.get("upto", 0)), "text": _told(job), "error": ""}
        if not (force or failed or _due(watch, last, now)):
            return {**last, "text": "new decisions wait for the next export", "error": ""}
        error = job.error if job is not None and failed else ""
        new = _queue(watch, settings)
        if job is not None and failed:
            with contextlib.suppress(ExportError):  # it wrote files: it stays, as what can undo them
                actions.delete_export(job)
        kept = {"delivered": last.get("delivered", {}), "upto": upto, "settings": wanted, "started": now.isoformat()}
        return {**kept, "job": new.pk, "text": f"export {new.pk} is at work", "error": error}


def _queue(watch: Watch, settings: Mapping[str, Any]) -> ExportJob:
    given = (watch.collection, settings["format"], settings["options"], settings["filter"])
    if settings["format"] in registry.IN_PLACE:
        return in_place.create(*given, write=True, by=watch.changed_by)
    return actions.create_export(*given, by=watch.changed_by)


def _edits(watch: Watch, settings: Mapping[str, Any], after: int, upto: int) -> QuerySet[TagEdit]:
    """The decisions in between that this export shows."""
    found = TagEdit.objects.filter(pk__gt=after, pk__lte=upto, image__collection=watch.collection)
    options = settings["options"]
    return found if options.get("judged") or options.get("proposed") else found.exclude(door=JUDGED)


def _newest_edit(before: datetime) -> int:
    """Somebody may be in the middle of it: decisions count once they have settled, as files do."""
    return TagEdit.objects.filter(at__lte=before).order_by("-pk").values_list("pk", flat=True).first() or 0


def _due(watch: Watch, last: Mapping[str, Any], now: datetime) -> bool:
    started = last.get("started")
    return not started or datetime.fromisoformat(started) + timedelta(seconds=watch.interval_seconds) <= now


def _told(job: ExportJob | None) -> str:
    if job is None:
        return "nothing reviewed yet"
    return f"export {job.pk} is {job.get_state_display()}"


# -- the target -------------------------------------------------------------------------------------------------------
def _check_target(text: str) -> Path:
    """A folder that may be written to, under the rules for folders of collections."""
    try:
        folder = check_root(text)
    except ValidationError as e:
        raise ValidationError({"target": e.messages}) from None
    if folder.is_relative_to(site.DATA_DIR):
        raise ValidationError({"target": f"{folder} is where iwtag keeps its own files."})
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValidationError({"target": f"The folder {folder} cannot be written to."})
    return folder


def _deliver(job: ExportJob, settings: Mapping[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """Put the finished file into the target folder, once. Only a file that was put there before is replaced."""
    target, done = settings.get("target"), last.get("delivered") or {}
    if not target or not job.file or done.get("job") == job.pk:
        return last
    path = Path(target) / job.file.rpartition("/")[2]
    _only_ours(path, done)
    with default_storage.open(job.file, "rb") as stream:
        written = write_whole(path, pieces(cast(BinaryIO, stream)), force=True)
    return {**last, "delivered": {"job": job.pk, "path": str(path), "sha256": written.sha256}}


def _only_ours(path: Path, done: Mapping[str, Any]) -> None:
    """ExportError when something lies there that is not what the last export put there."""
    if not os.path.lexists(path):
        return
    if done.get("path") == str(path):
        with contextlib.suppress(OSError), path.open("rb") as f:
            if hashlib.file_digest(f, "sha256").hexdigest() == done["sha256"]:
                return
    raise ExportError(f"{path} is there and is not what iwtag wrote: move it away, or name another folder.")


# -- the form ---------------------------------------------------------------------------------------------------------
class ExportForm(StepForm):
    """Format, its options and the target. The options that are drawn belong to one format; when another was chosen,
    they are those of that one."""

    def __init__(self, watch: Watch, data: QueryDict | None) -> None:
        stored = watch.steps.get(ExportStep.name, {})
        asked = (data.get("export-format") if data is not None else stored.get("format")) or "csv"
        self.formats = formats()
        self.format = asked if asked in dict(self.formats) else self.formats[0][0]
        self.filter = stored.get("filter", {})
        self.enabled = bool(stored.get("enabled")) if data is None else "export-enabled" in data
        self.target = stored.get("target", "") if data is None else data.get("export-target", "")
        same = data is not None and data.get("export-options-of") == self.format
        initial = stored.get("options") if stored.get("format") == self.format else None
        self.options = SchemaForm(
            options_of(self.format), data=data if same else None, initial=initial, prefix="export-options-"
        )
        self.asked = asked

    def settings(self) -> dict[str, Any]:
        """ValidationError keyed by "options" when they are wrong; the fields say what is."""
        if self.asked != self.format:
            raise ValidationError({"format": f"There is no format {self.asked!r}."})
        if self.options.is_bound and not self.options.is_valid():
            raise ValidationError({"options": "Look at the options of the export."})
        options = self.options.cleaned if self.options.is_bound else dict(self.options.initial)
        return {
            "enabled": self.enabled,
            "format": self.format,
            "options": options,
            "filter": self.filter,
            "target": self.target,
        }

    def render(self, errors: Mapping[str, list[str]]) -> SafeString:
        return render_to_string("exports/watch_step.html", {"form": self, "errors": errors})
