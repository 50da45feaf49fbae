"""A small reviewed-by-nobody collection with real photographs, as the engine and the indexing would leave it."""

from __future__ import annotations

import hashlib
import io
import shutil
from functools import cache
from pathlib import Path

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone
from PIL import Image, ImageOps

from tagging.actions.counts import rebuild
from tagging.models import (
    Channel,
    Collection,
    ImageAsset,
    ImageTag,
    ModelAdapter,
    Policy,
    PolicyVersion,
    Proposal,
    Recipe,
    Run,
    Tag,
)
from tagging.models.collections import thumbnail_name

# file → (tag, category, parent, score) …
PROPOSED: dict[str, list[tuple[str, str, str, float]]] = {
    "spaniels-at-the-window.jpg": [
        ("dog", "animal", "", 0.97),
        ("spaniel", "animal", "dog", 0.91),
        ("window", "place", "", 0.55),
        ("curtain", "object", "", 0.31),
    ],
    "pagoda.jpg": [("building", "place", "", 0.88), ("pagoda", "place", "building", 0.84), ("tree", "nature", "", 0.4)],
    "raccoon.jpg": [("raccoon", "animal", "", 0.993), ("wood", "object", "", 0.22)],
    "sunset-over-hills.jpg": [
        ("sunset", "nature", "sky", 0.93),
        ("sky", "nature", "", 0.9),
        ("dog", "animal", "", 0.2),
    ],
    "honey-bee.jpg": [("bee", "animal", "insect", 0.95), ("flower", "nature", "", 0.87)],
    "autumn-hills.jpg": [],
}


def tag(name: str, category: str = "general", parent: str = "") -> Tag:
    above = tag(parent, category) if parent else None
    found, _ = Tag.objects.get_or_create(key=name, defaults={"name": name, "category": category, "parent": above})
    return found


def make_run(collection: Collection, name: str = "First run", state: str = Run.State.DONE) -> Run:
    adapter, _ = ModelAdapter.objects.get_or_create(
        slug="photo-lite", defaults={"label": "photo-lite", "kind": "photo-lite"}
    )
    policy, _ = Policy.objects.get_or_create(slug="default", defaults={"name": "Default"})
    version = policy.current or PolicyVersion.objects.create(policy=policy, number=1, digest="0")
    recipe, made = Recipe.objects.get_or_create(key="k", defaults={"name": "photo-lite", "policy_version": version})
    if made:
        Channel.objects.create(recipe=recipe, adapter=adapter)
    finished = None if state in Run.OPEN else timezone.now()
    return Run.objects.create(
        recipe=recipe,
        collection=collection,
        name=name,
        state=state,
        finished_at=finished,
        provider="CPUExecutionProvider",
    )


@cache
def _renditions(source: Path) -> tuple[str, tuple[int, int], dict[int, bytes]]:
    """Format, size as seen and WebP files by side; encoded once in a test session."""
    with Image.open(source) as opened:
        kind = opened.format or ""
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    files: dict[int, bytes] = {}
    for side in (320, 1024):
        small = picture.copy()
        small.thumbnail((side, side))
        stream = io.BytesIO()
        small.save(stream, "WEBP", quality=80)
        files[side] = stream.getvalue()
    return kind, picture.size, files


def add_image(collection: Collection, source: Path) -> ImageAsset:
    target = Path(collection.root, source.name)
    shutil.copy(source, target)
    sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
    kind, size, renditions = _renditions(source)
    for side, data in renditions.items():
        name = thumbnail_name(sha256, side)
        if not default_storage.exists(name):
            default_storage.save(name, ContentFile(data))
    return ImageAsset.objects.create(
        collection=collection,
        path=source.name,
        sha256=sha256,
        size=target.stat().st_size,
        format=kind,
        width=size[0],
        height=size[1],
    )


def propose(image: ImageAsset, run: Run, tags: list[tuple[str, str, str, float]], caption: str = "") -> None:
    for name, category, parent, score in tags:
        ImageTag.objects.create(
            image=image, tag=tag(name, category, parent), state=ImageTag.State.PROPOSED, run=run, score=score
        )
    state = Proposal.State.OK if tags else Proposal.State.EMPTY
    Proposal.objects.create(
        run=run,
        image=image,
        state=state,
        caption=caption,
        tags=[[name, category, score, "kept", "", ""] for name, category, _, score in tags],
    )
    image.proposed_by, image.proposal_state = run, state
    image.top_score = max((score for *_, score in tags), default=None)
    if caption:
        image.caption, image.caption_state = caption, ImageAsset.CaptionState.PROPOSED
    image.save()


def make_collection(samples: Path, root: Path, name: str = "Holiday") -> Collection:
    root.mkdir(parents=True, exist_ok=True)
    collection = Collection.objects.create(name=name, slug=name.lower(), root=str(root), indexed_at=timezone.now())
    run = make_run(collection)
    for file, tags in PROPOSED.items():
        caption = "Two spaniels look out of a window." if "spaniel" in file else ""
        propose(add_image(collection, samples / file), run, tags, caption)
    rebuild(collection)
    return collection
