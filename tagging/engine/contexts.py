"""What a prompt's template may use, for many images at once: a query for each kind of thing, none for an image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any, NamedTuple

from prompts.models import WordlistVersion
from prompts.values import ImageValues, RenderContext, TagValue

from ..imaging import load
from ..models import ImageAsset, ImageTag, Proposal, Run

#: variables whose value differs from image to image
PER_IMAGE = frozenset({"image", "exif", "tags", "caption"})


class Said(NamedTuple):
    """What a channel, a run or a person says of an image."""

    tags: tuple[TagValue, ...] = ()
    caption: str = ""


#: by image id; images without a word may be left out
Sayings = Mapping[int, Said]


class Contexts:
    """The contexts of some images. What the template does not use is not looked up; what another run or channel said is
    asked for all of them when the first one asks."""

    def __init__(
        self,
        images: Sequence[ImageAsset],
        names: Collection[str],
        *,
        lists: Mapping[str, int] | None = None,
        variables: Mapping[str, Any] | None = None,
        max_tags: int | None = None,
        channels: Mapping[str, Callable[[], Sayings]] | None = None,
        threads: Executor | None = None,
    ) -> None:
        """`names`: the variables that the template uses. `lists`: slug → id of the wordlist version that counts (the
        newest of those left out). `channels`: earlier channels of the recipe by name, in order; `caption` is that of
        the last which has one, else the reviewed one. `threads` read EXIF."""
        self._images = images
        self._lists, self._variables, self._max_tags = dict(lists or {}), dict(variables or {}), max_tags
        self._channels = dict(channels or {})
        self._sources: dict[str, Sayings] = {}
        self._tags = reviewed_tags(images) if "tags" in names else {}
        self._exif = exif_of(images, threads) if "exif" in names else {}
        self._asks_caption = "caption" in names

    def of(self, image: ImageAsset, variables: Mapping[str, Any] | None = None) -> RenderContext:
        """The context of one of the images; `variables`: free ones of its own."""
        captured = image.captured_at
        return RenderContext(
            image=ImageValues(
                name=image.name,
                folder=image.path.rpartition("/")[0],
                collection=image.collection.name,
                captured_at=captured.strftime("%Y-%m-%d %H:%M") if captured else "",
            ),
            exif=self._exif.get(image.pk, {}),
            tags=self._tags.get(image.pk, ()),
            tags_of=lambda source: self._said(source, image).tags,
            caption=self._caption(image) if self._asks_caption else "",
            caption_of=lambda source: self._said(source, image).caption,
            max_tags=self._max_tags,
            wordlist=self._words,
            variables={**self._variables, **(variables or {})},
        )

    def nothing(self) -> RenderContext:
        """For a template that uses nothing of an image."""
        return RenderContext(max_tags=self._max_tags, wordlist=self._words, variables=self._variables)

    def _said(self, source: str, image: ImageAsset) -> Said:
        found = self._sources.get(source)
        if found is None:
            ask = self._channels.get(source)
            found = self._sources[source] = ask() if ask else sayings_of_run(source, self._images)
        return found.get(image.pk, Said())

    def _caption(self, image: ImageAsset) -> str:
        for name in reversed(self._channels):
            if caption := self._said(name, image).caption:
                return caption
        reviewed = image.caption_state in (ImageAsset.CaptionState.ACCEPTED, ImageAsset.CaptionState.EDITED)
        return image.caption if reviewed else ""

    def _words(self, slug: str) -> Sequence[str]:
        if slug not in self._lists:
            self._lists.update(newest_lists([slug]))
        if slug not in self._lists:
            raise LookupError(f"there is no wordlist {slug!r}, or nothing in it yet")
        return words_of(self._lists[slug])


def newest_lists(slugs: Iterable[str]) -> dict[str, int]:
    """Slug → id of the newest version; lists that do not exist or have no version are left out."""
    rows = WordlistVersion.objects.filter(wordlist__slug__in=list(slugs)).order_by("number")
    return dict(rows.values_list("wordlist__slug", "pk"))


@lru_cache(maxsize=32)
def words_of(version_id: int) -> tuple[str, ...]:
    """The words of a list version, in its order; patterns that are no words are left out. Versions never change."""
    entries = WordlistVersion.objects.values_list("entries", flat=True).get(pk=version_id)
    return tuple(entry["text"] for entry in entries if entry.get("match") not in ("regex", "wildcard"))


def reviewed_tags(images: Sequence[ImageAsset]) -> dict[int, list[TagValue]]:
    """The tags that a person accepted or added, most probable first, then by name."""
    found: dict[int, list[TagValue]] = {}
    rows = ImageTag.objects.filter(image__in=[i.pk for i in images], state__in=ImageTag.POSITIVE)
    for image_id, name, score, category in rows.values_list("image_id", "tag__name", "score", "tag__category"):
        found.setdefault(image_id, []).append(TagValue(name, score, category))
    for tags in found.values():
        tags.sort(key=lambda tag: (-(tag.score or 0.0), tag.name))
    return found


def exif_of(images: Sequence[ImageAsset], threads: Executor | None = None) -> dict[int, dict[str, Any]]:
    """All EXIF fields of the images' files; a file that is away has none (the model's own look at it will say so)."""
    found = threads.map(_exif, images) if threads else map(_exif, images)
    return dict(zip([i.pk for i in images], found, strict=True))


def _exif(image: ImageAsset) -> dict[str, Any]:
    try:
        with image.open() as stream:
            return dict(load.exif_fields(stream))
    except OSError:
        return {}


def sayings_of_run(source: str, images: Sequence[ImageAsset]) -> Sayings:
    """What a run proposed, named by its number or its name (then the newest of that name). LookupError."""
    run = _run(source, images)
    if run is None:
        raise LookupError(f"there is no run or channel {source!r}")
    rows = Proposal.objects.filter(run=run, image__in=[i.pk for i in images])
    return {
        image_id: Said(tuple(TagValue(t[0], t[2], t[1]) for t in tags if t[3] != "dropped"), caption)
        for image_id, tags, caption in rows.values_list("image_id", "tags", "caption")
    }


def _run(source: str, images: Sequence[ImageAsset]) -> Run | None:
    if source.isascii() and source.isdigit() and len(source) < 19:
        return Run.objects.filter(pk=int(source)).first()
    collections = {image.collection_id for image in images}
    return Run.objects.filter(name=source, collection__in=collections).order_by("-pk").first()
