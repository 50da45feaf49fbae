"""Sources by name, opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from django.core.files.storage import default_storage

from tagging.models import Collection

from ..import_models import ImportJob
from .base import ImportOptions, ImportProblem, Reader
from .embedded import EmbeddedOptions, EmbeddedReader
from .imageworks import JsonlOptions, JsonlReader
from .sidecars import SidecarImportOptions, SidecarReader
from .tables import CsvOptions, CsvReader
from .texts import TextImportOptions, TextReader
from .tree import FolderTree, Tree, ZipTree

Source = ImportJob.Source
OPTIONS: dict[str, type[ImportOptions]] = {
    Source.SIDECARS: SidecarImportOptions,
    Source.EMBEDDED: EmbeddedOptions,
    Source.TXT: TextImportOptions,
    Source.CSV: CsvOptions,
    Source.JSONL: JsonlOptions,
}
#: Sources that are an uploaded file; the others are files of the collection, or an uploaded zip of such.
TABLES = (Source.CSV, Source.JSONL)


@contextlib.contextmanager
def reading(job: ImportJob) -> Iterator[Reader]:
    """The job's source, opened. ImportProblem where it cannot be read as a whole."""
    options = OPTIONS[job.source].model_validate(job.options)
    with contextlib.ExitStack() as stack:
        stream: BinaryIO | None = None
        if job.file:
            try:
                stored = stack.enter_context(default_storage.open(job.file, "rb"))
            except OSError:
                raise ImportProblem("The uploaded file is gone; upload it again.") from None
            stream = cast(BinaryIO, getattr(stored, "file", None) or stored)
        yield _reader(job, options, stream)


def _reader(job: ImportJob, options: Any, stream: BinaryIO | None) -> Reader:
    if job.source == Source.EMBEDDED:
        return EmbeddedReader(job.collection, options)
    if job.source in TABLES:
        if stream is None:
            raise ImportProblem("file: Choose the file to import.")
        return CsvReader(stream, options) if job.source == Source.CSV else JsonlReader(stream, options)
    tree: Tree = ZipTree(stream) if stream is not None else FolderTree(job.folder or _folder(job.collection))
    return SidecarReader(tree, options) if job.source == Source.SIDECARS else TextReader(tree, options)


def _folder(collection: Collection) -> str:
    if collection.kind != Collection.Kind.FOLDER:
        raise ImportProblem(
            f"file: {collection} holds uploads: there is no folder beside its images. Upload the files as a zip."
        )
    return collection.root
