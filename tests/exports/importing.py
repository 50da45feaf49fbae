"""Collections with files, and imports that are run at once, for the tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from exports import imports
from exports.import_models import ImportJob, ImportRow
from tagging.models import Collection, ImageAsset, ImageTag

POSITIVE = (ImageTag.State.ACCEPTED, ImageTag.State.ADDED)


def folder(root: Path, *paths: str, name: str = "Photos") -> Collection:
    """A collection of that folder with images of those paths, as indexing leaves them."""
    c = Collection.objects.create(name=name, slug=name.lower(), kind="folder", root=str(root))
    for number, path in enumerate(paths):
        add(c, path, number)
    return c


def add(c: Collection, path: str, number: int = 0, **fields: Any) -> ImageAsset:
    sha = f"{number + 1:064x}"
    return ImageAsset.objects.create(**{"collection": c, "path": path, "sha256": sha, "format": "JPEG", **fields})


def planned(
    c: Collection, source: str, data: bytes | str | None = None, *, target: str = "truth", **options: Any
) -> ImportJob:
    """An import that was read and compared."""
    by, name, where = options.pop("by", None), options.pop("name", f"a.{source}"), options.pop("folder", "")
    data = data.encode() if isinstance(data, str) else data
    file = None if data is None else io.BytesIO(data)
    job = imports.create_import(
        c, source, target=target, options=options, file=file, name=name if file else "", folder=where, by=by, ring=False
    )
    return imports.run_import(job.pk)


def applied(job: ImportJob, **choices: Any) -> ImportJob:
    imports.apply_import(job, ring=False, **choices)
    return imports.run_import(job.pk)


def undone(job: ImportJob) -> ImportJob:
    imports.undo_import(job, ring=False)
    return imports.run_import(job.pk)


def tags(image: ImageAsset | str, *states: int) -> set[str]:
    """Names of the tags of an image in these states; decided for it unless named."""
    rows = ImageTag.objects.filter(state__in=states or POSITIVE)
    rows = rows.filter(image=image) if isinstance(image, ImageAsset) else rows.filter(image__path=image)
    return set(rows.values_list("tag__name", flat=True))


def row(job: ImportJob, path: str) -> ImportRow:
    return ImportRow.objects.get(job=job, image__path=path)


def fates(row: ImportRow) -> dict[str, str]:
    return {w[0]: w[2] for w in row.words}
