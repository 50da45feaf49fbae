"""Folder collections with files, and what stands in their sidecars."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from exports import actions, in_place
from exports.models import ExportJob
from exports.xmp import fields
from exports.xmp.packet import Packet
from tagging.models import Collection, ImageAsset, ImageTag, Tag

from .truth import image, tag

SIDECARS = Path(__file__).parent / "sidecars"
SAMPLES = tuple(sorted(SIDECARS.glob("*.xmp")))
OURS = (fields.SUBJECT, fields.HIERARCHY, fields.TAGS_LIST)


def folder(root: Path, names: Sequence[str], tags: Sequence[str] = ("dog", "beach"), **more: object) -> Collection:
    """A collection of reviewed images with these accepted tags; "dog" stands below "animal"."""
    tag("dog", parent=tag("animal"))
    c = Collection.objects.create(name=root.name, slug=root.name.replace("_", "-"), kind="folder", root=str(root))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"an image " + name.encode())
        image(c, name, [(t, ImageTag.State.ACCEPTED, 0.9) for t in tags], **more)
    return c


def planned(c: Collection, format: str = "xmp", **options: object) -> ExportJob:
    return run(in_place.create(c, format, options, ring=False))


def written(c: Collection, format: str = "xmp", **options: object) -> ExportJob:
    return run(in_place.create(c, format, options, write=True, ring=False))


def applied(job: ExportJob) -> ExportJob:
    return run(in_place.apply(job, ring=False))


def undone(job: ExportJob, **more: object) -> ExportJob:
    return run(in_place.undo(job, ring=False, **more))


def run(job: ExportJob) -> ExportJob:
    actions.run_export(job.pk)
    job.refresh_from_db()
    return job


def add_tag(c: Collection, name: str) -> None:
    for one in ImageAsset.objects.filter(collection=c):
        ImageTag.objects.create(image=one, tag=tag(name), state=ImageTag.State.ADDED)


def take_tag(c: Collection, name: str) -> None:
    ImageTag.objects.filter(image__collection=c, tag=Tag.objects.get(name=name)).delete()


def hashes(root: Path) -> dict[str, str]:
    """Every file below the folder → SHA-256."""
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def words(path: Path) -> list[str]:
    return Packet(path.read_bytes()).values(fields.SUBJECT) or []


def rewrite(path: Path, drop: Sequence[str] = (), add: Sequence[str] = (), only: Sequence[object] = OURS) -> None:
    """Edit the keyword lists as another program would."""
    packet = Packet(path.read_bytes())
    for prop in OURS:
        if prop in only:
            left = [w for w in packet.values(prop) or [] if w.split("|")[-1].split("/")[-1] not in drop]
            packet.set_array(prop, left + list(add), "Seq" if prop == fields.TAGS_LIST else "Bag")
    path.write_bytes(packet.to_bytes())
