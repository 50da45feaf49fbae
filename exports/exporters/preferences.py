"""Preference pairs: what a person made of it against what the models said, for direct preference optimisation.

Chosen: the tags a person left in force, or the caption a person wrote. Rejected: the tags and captions that runs
proposed for the same image where they differ, and captions a person replaced by hand. On request also what won against
what lost in the comparisons of the judging room. The two shapes are those of TRL's
DPO trainer (https://huggingface.co/docs/trl/dataset_formats#preference).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from django.db.models import Exists, OuterRef, Q
from pydantic import Field, model_validator

from tagging.models import ImageAsset, ImageTag, Proposal, TagEdit

from .base import Exporter, Plan
from .captions import CaptionOptions, Captions
from .counting import left_out
from .of_run import IN_PROPOSAL
from .reading import TAG_SHIFT, DetailedRecord, ImageRow, Record, Source, TagRow
from .texts import TextTag
from .votes import Answer, Which, decided, votes_on

State = ImageTag.State
PROPOSALS_AT_ONCE = 200  # images: a proposal with its reasons is a few kilobytes


class PreferenceOptions(CaptionOptions):
    about: Literal["both", "tags", "captions"] = Field("both", title="Pairs of")
    shape: Literal["plain", "chat"] = Field(
        "plain",
        title="Shape",
        description="chat: messages with an image, as vision-language trainers take them.",
        json_schema_extra={"labels": {"plain": "plain texts", "chat": "chat messages with the image"}},
    )
    other_runs: bool = Field(
        False,
        title="Accepted captions win too",
        description="A caption accepted as it was, against the captions that other runs proposed.",
    )
    votes: Which = Field(
        "none",
        title="Also from votes",
        description="Of two recipes' answers for an image, the one that won the comparison and the other; also of "
        "images that are not reviewed.",
        json_schema_extra={"labels": {"none": "no", "people": "of people", "all": "of people and judges"}},
    )
    per_image: int = Field(4, ge=1, le=100, title="At most so many pairs an image", description="Of each kind.")
    tags_prompt: str = Field("List the tags of this image.", max_length=2000, title="Prompt for tags")
    caption_prompt: str = Field("Describe this image.", max_length=2000, title="Prompt for captions")
    template: str = Field(
        "{tags}",
        max_length=2000,
        title="Template of the tags",
        description="Of {trigger}, {caption}, {tags}, {rating} and {name}; what is empty takes its comma with it.",
    )

    @model_validator(mode="after")
    def _needs_decisions(self) -> PreferenceOptions:
        if self.proposed or self.proposed_by:
            raise ValueError("Preference pairs need what a person decided: they leave out what is only proposed.")
        return self


class Said(NamedTuple):
    """What a run proposed for an image, or a person replaced."""

    image_id: int
    run_id: int | None
    tags: list[list[Any]] | None
    caption: str


class PreferenceExporter(Exporter[PreferenceOptions]):
    """`{"image", "sha256", "kind": "tags" | "caption", "source", "prompt", "chosen", "rejected"}` a line."""

    identifier = "preferences"
    label = "Preference pairs (DPO)"
    description = "Chosen and rejected texts from what people corrected, for preference training."
    extension = "jsonl"
    content_type = "application/x-ndjson; charset=utf-8"
    Options = PreferenceOptions

    @property
    def _source(self) -> Source:
        return Source(self.selection, self.options, rejected=True)

    def plan(self) -> Plan:
        """`rows` counts the images and votes that may give pairs; how many pairs shows when texts are compared."""
        source = self._source
        images = source.images.count()
        skipped, warnings = left_out(self.selection, self.options, images)
        changed = ImageTag.objects.filter(image=OuterRef("pk"), state__in=(State.REJECTED, State.ADDED))
        wanted = Q()
        if self.options.about != "captions":
            wanted |= Q(Exists(changed))
        if self.options.about != "tags":
            wanted |= Q(caption_state__in=self._caption_states)
        rows = source.images.filter(wanted).count()
        if self.options.votes != "none":
            rows += votes_on(self.selection.images, self.options.votes).count()
        if images and not rows:
            warnings.append(
                "Nobody has rejected or added a tag or edited a caption in these images: there are no pairs."
            )
        return Plan(images=images, rows=rows, skipped=skipped, warnings=warnings)

    @property
    def _caption_states(self) -> list[str]:
        edited = [ImageAsset.CaptionState.EDITED.value]
        return [*edited, ImageAsset.CaptionState.ACCEPTED.value] if self.options.other_runs else edited

    def stream(self) -> Iterator[bytes]:
        source = self._source
        captions = Captions(self.options, source.names)
        for page in source.detailed():
            for at in range(0, len(page), PROPOSALS_AT_ONCE):
                part = page[at : at + PROPOSALS_AT_ONCE]
                said = self._said(part)
                lines = [line for record in part for line in self._lines(source, captions, record, said)]
                self.rows += len(part)
                if lines:
                    yield "".join(lines).encode(errors="replace")
        if self.options.votes != "none":
            yield from self._voted(source, captions, self.options.votes)

    def _voted(self, source: Source, captions: Captions, which: Which) -> Iterator[bytes]:
        """What won against what lost, of each kind that both answered."""
        for page in decided(self.selection.images, which):
            images = source.image_rows([vote.image_id for vote in page])
            lines = []
            for vote in page:
                image = images.get(vote.image_id)
                if image is None:
                    continue
                sides = {}
                if self.options.about != "captions":
                    sides["tags"] = [self._text_of(captions, image, one) for one in (vote.chosen, vote.rejected)]
                if self.options.about != "tags":
                    sides["caption"] = [vote.chosen.caption.strip(), vote.rejected.caption.strip()]
                for kind, (chosen, rejected) in sides.items():
                    if chosen and rejected and chosen != rejected:
                        row = self._row(image, kind, vote.said_by, chosen, rejected)
                        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
            self.rows += len(page)
            yield "".join(lines).encode(errors="replace")

    def _text_of(self, captions: Captions, image: ImageRow, answer: Answer) -> str:
        tags = [TextTag(t[0], t[1], t[2]) for t in answer.tags if t[3] in IN_PROPOSAL]
        return captions.written(Record(image, []), captions.only(tags), answer.caption) if tags else ""

    def _said(self, page: Sequence[DetailedRecord]) -> dict[int, list[Said]]:
        """Image → what runs proposed, newest first, then what people replaced: two queries."""
        ids = [record.image.id for record in page]
        found: dict[int, list[Said]] = {}
        rows = Proposal.objects.filter(image__in=ids, state=Proposal.State.OK).order_by("-id")
        for row in rows.values_list("image_id", "run_id", "tags", "caption"):
            found.setdefault(row[0], []).append(Said(*row))
        if self.options.about != "tags":
            edits = TagEdit.objects.filter(image__in=ids, kind=TagEdit.Kind.CAPTION).order_by("-id")
            for image_id, before in edits.values_list("image_id", "before"):
                text = (before or {}).get("text", "")
                if text:
                    found.setdefault(image_id, []).append(Said(image_id, None, None, text))
        return found

    def _lines(
        self, source: Source, captions: Captions, record: DetailedRecord, said: dict[int, list[Said]]
    ) -> Iterator[str]:
        own = said.get(record.image.id, [])
        if self.options.about != "captions":
            yield from self._tag_pairs(source, captions, record, own)
        if self.options.about != "tags" and record.image.caption_state in self._caption_states:
            chosen = record.image.caption.strip()
            others = [(s.caption.strip(), s.run_id) for s in own]
            yield from self._pairs(source, record, "caption", chosen, others)

    def _tag_pairs(
        self, source: Source, captions: Captions, record: DetailedRecord, own: Sequence[Said]
    ) -> Iterator[str]:
        """Against each run's list; where no proposal is kept, against the truth with its rejected tags and without its
        added ones, which is what the person saw."""
        if not any(row.state in (State.REJECTED, State.ADDED) for row in record.tags):
            return
        plain = Record(record.image, [])

        def text(rows: Sequence[TagRow]) -> str:
            return captions.text(plain, [(r.rank << TAG_SHIFT) | r.tag_id for r in rows], record.image.caption)

        chosen = text([row for row in record.tags if row.state in ImageTag.POSITIVE])
        others = []
        for one in own:
            if one.tags is not None:
                tags = [TextTag(t[0], t[1], t[2]) for t in one.tags if t[3] in IN_PROPOSAL]
                others.append((captions.written(plain, captions.only(tags), record.image.caption), one.run_id))
        if not others:
            others = [(text([row for row in record.tags if row.state != State.ADDED]), None)]
        yield from self._pairs(source, record, "tags", chosen, others)

    def _pairs(
        self, source: Source, record: DetailedRecord, kind: str, chosen: str, others: Sequence[tuple[str, int | None]]
    ) -> Iterator[str]:
        seen = {chosen, ""}
        for rejected, run_id in others:
            if not chosen or rejected in seen or len(seen) - 2 >= self.options.per_image:
                continue
            seen.add(rejected)
            run, adapters = source.names.run(run_id)
            said_by = adapters or run or "before the edit"
            yield json.dumps(self._row(record.image, kind, said_by, chosen, rejected), ensure_ascii=False) + "\n"

    def _row(self, image: ImageRow, kind: str, said_by: str, chosen: str, rejected: str) -> dict[str, Any]:
        prompt = self.options.tags_prompt if kind == "tags" else self.options.caption_prompt
        head = {"image": image.path, "sha256": image.sha256, "kind": kind, "source": said_by}
        if self.options.shape == "plain":
            return {**head, "prompt": prompt, "chosen": chosen, "rejected": rejected}
        asked = [{"type": "image"}, {"type": "text", "text": prompt}]
        return {
            **head,
            "images": [image.path],
            "prompt": [{"role": "user", "content": asked}],
            "chosen": _answer(chosen),
            "rejected": _answer(rejected),
        }


def _answer(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]
