"""Label Studio: a JSON array of tasks, reviewed truth as annotations, proposals as predictions.

Format: https://labelstud.io/guide/tasks and /guide/predictions; results refer to a labelling configuration such as

    <View><Image name="image" value="$image"/><Taxonomy …/> or
    <Choices name="tags" toName="image" choice="multiple" value="$choices"/>
    <TextArea name="caption" toName="image"/></View>
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from pydantic import Field

from tagging.models import ImageAsset, ImageTag

from .base import Exporter, ExportOptions, Plan
from .counting import left_out
from .reading import SCALE, DetailedRecord, Source, TagRow

State = ImageTag.State


class LabelStudioOptions(ExportOptions):
    address: str = Field(
        "/data/local-files/?d=",
        max_length=500,
        title="Address of an image",
        description="What stands before the image's path: local storage of Label Studio, or the address of a bucket.",
    )
    tags_name: str = Field(
        "tags", min_length=1, max_length=80, title="Name of the choices", json_schema_extra={"advanced": True}
    )
    caption_name: str = Field(
        "caption", min_length=1, max_length=80, title="Name of the text area", json_schema_extra={"advanced": True}
    )
    image_name: str = Field(
        "image", min_length=1, max_length=80, title="Name of the image", json_schema_extra={"advanced": True}
    )


class LabelStudioExporter(Exporter[LabelStudioOptions]):
    """One task per image: `data` with the image's address and our id, path and hash; `annotations` where a person
    reviewed it; `predictions` (one for each model) with what is only proposed."""

    identifier = "label_studio"
    label = "Label Studio"
    description = "Tasks with annotations and predictions, for Label Studio's import."
    extension = "json"
    content_type = "application/json"
    Options = LabelStudioOptions

    def plan(self) -> Plan:
        images = Source(self.selection, self.options).images.count()
        skipped, warnings = left_out(self.selection, self.options, images)
        return Plan(images=images, rows=images, skipped=skipped, warnings=warnings)

    def stream(self) -> Iterator[bytes]:
        yield b"["
        source = Source(self.selection, self.options)
        before = "\n"
        for page in source.detailed():
            pieces = []
            for record in page:
                pieces.append(before + json.dumps(self._task(source, record), ensure_ascii=False))
                before = ",\n"
            self.rows += len(page)
            yield "".join(pieces).encode(errors="replace")
        yield b"\n]\n"

    def _task(self, source: Source, record: DetailedRecord) -> dict[str, Any]:
        image = record.image
        task: dict[str, Any] = {
            "data": {
                self.options.image_name: self.options.address + quote(image.path, errors="replace"),
                "iwtag_id": image.id,
                "path": image.path,
                "sha256": image.sha256,
            }
        }
        truth = [row for row in record.tags if row.state in ImageTag.POSITIVE]
        proposed = [row for row in record.tags if row.state == State.PROPOSED]
        written = image.caption_state in (ImageAsset.CaptionState.ACCEPTED, ImageAsset.CaptionState.EDITED)
        if image.review_state == ImageAsset.Review.REVIEWED:
            task["annotations"] = [{"result": self._result(source, truth, image.caption if written else "")}]
        else:
            proposed = truth + proposed
        task["predictions"] = self._predictions(source, proposed, "" if written else image.caption)
        return task

    def _predictions(self, source: Source, rows: list[TagRow], caption: str) -> list[dict[str, Any]]:
        by_model: dict[str, list[TagRow]] = {}
        for row in rows:
            by_model.setdefault(source.names.run(row.run_id)[1] or "iwtag", []).append(row)
        if caption and not by_model:
            by_model["iwtag"] = []
        found = []
        for version, own in by_model.items():
            result = self._result(source, own, caption)
            caption = ""  # said once
            scores = [-row.rank / SCALE for row in own if row.rank <= 0 and row.rank >= -SCALE]
            found.append(
                {
                    "model_version": version,
                    "score": round(sum(scores) / len(scores), 4) if scores else 0,
                    "result": result,
                }
            )
        return found

    def _result(self, source: Source, rows: list[TagRow], caption: str) -> list[dict[str, Any]]:
        to = {"to_name": self.options.image_name}
        found: list[dict[str, Any]] = []
        if rows:
            choices = [source.names.tags[row.tag_id].name for row in rows]
            found.append({"from_name": self.options.tags_name, **to, "type": "choices", "value": {"choices": choices}})
        if caption:
            found.append(
                {"from_name": self.options.caption_name, **to, "type": "textarea", "value": {"text": [caption]}}
            )
        return found
