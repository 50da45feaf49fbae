"""Files that come through the browser or the API: stored under the collection's prefix, zips unpacked by the job."""

from __future__ import annotations

import re
import stat
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage

from ..engine import process
from ..imaging import kinds, storing
from ..ingest.jobs import Interrupted, Ledger
from ..models import Collection

#: Bounds of a zip, before and while it is unpacked. Photographs hardly compress: a ratio of 20 is generous, but a zip
#: that stays below RATIO_FREE bytes may be as dense as it likes (plain drawings are).
MAX_UNPACKED = 256 * 1024**3
MAX_ENTRIES = 500_000
RATIO, RATIO_FREE = 20, 2 * 1024**3
MAX_PATH = 900
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Upload:
    """What became of one uploaded file. `path` is where it lies in the collection, empty when it was skipped."""

    name: str
    state: str  # "stored", "archive" or "skipped"
    path: str = ""
    message: str = ""


class BadArchive(ValidationError):
    """A zip that cannot be unpacked at all."""


# -- receiving -------------------------------------------------------------------------------------------------------
def add_uploads(collection: Collection, files: Iterable[Any], by: AbstractBaseUser | None = None) -> list[Upload]:
    """Store pictures and zips (Django's UploadedFile or File: `name`, `chunks()`), then queue their indexing.

    A taken name becomes "name (2).jpg". Other files are skipped, with the reason in the result. ValidationError when
    the collection does not hold uploads.
    """
    from . import ingest

    if collection.kind != Collection.Kind.UPLOAD:
        raise ValidationError({"collection": f"{collection} indexes a folder: put the files there."})
    results: list[Upload] = []
    for file in files:
        results.append(_receive(collection, file, by))
    if any(r.state == "stored" for r in results):
        ingest.follow_up(collection, by=by)
    return results


def _receive(collection: Collection, file: Any, by: AbstractBaseUser | None) -> Upload:
    from . import ingest

    given = str(file.name or "")
    if given.lower().endswith(".zip"):
        name = storing.add(default_storage, f"archives/{collection.pk}/{uuid.uuid4().hex}.zip", file.chunks())
        ingest.start_ingest(collection, by=by, archive=name)
        return Upload(given, "archive", message="The zip is unpacked in the background.")
    try:
        path = safe_path(given.replace("\\", "/").rpartition("/")[2])
    except ValueError as error:
        return Upload(given, "skipped", message=str(error))
    if not kinds.has_image_extension(path):
        return Upload(given, "skipped", message="Not a picture or a zip, going by its extension.")
    name = storing.add(default_storage, f"{collection.upload_prefix}/{path}", file.chunks())
    return Upload(given, "stored", name.removeprefix(collection.upload_prefix + "/"))


def safe_path(name: str) -> str:
    """A relative path with forward slashes that stays below its folder on every system. ValueError says why not."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise ValueError("the path is absolute")
    parts = [_CONTROLS.sub("", p).strip() for p in name.split("/")]
    parts = [p for p in parts if p not in ("", ".")]
    if ".." in parts:
        raise ValueError("the path leads out of its folder")
    if not parts:
        raise ValueError("the name is empty")
    # a leading dot would hide the file; the rest is what Windows does not allow in names
    parts = [re.sub(r'[<>:"|?*]', "_", p).lstrip(".").rstrip(". ") or "_" for p in parts]
    path = "/".join(parts)
    if len(path) > MAX_PATH or any(len(p.encode("utf-8", "replace")) > 200 for p in parts):
        raise ValueError("the path is too long")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError("the name is not valid UTF-8") from None
    return path


# -- unpacking -------------------------------------------------------------------------------------------------------
def unpack(ledger: Ledger) -> None:
    """Unpack the job's zip into the collection, then forget it. A second try skips what the first one unpacked.

    Raises BadArchive with a text for people; then nothing, or only whole pictures, have been unpacked.
    """
    job = ledger.job
    ledger.beat()
    if not default_storage.exists(job.archive):
        raise BadArchive("The uploaded zip is no longer in the storage. Upload it again.")
    try:
        with default_storage.open(job.archive, "rb") as stream, zipfile.ZipFile(cast(BinaryIO, stream)) as archive:
            _check(archive, default_storage.size(job.archive))
            unpacked, left_out = _unpack_entries(archive, ledger)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, zlib.error) as error:
        _forget(ledger)
        raise BadArchive(f"The zip is damaged or of an unknown kind ({str(error)[:200] or 'it ends early'}).") from None
    except BadArchive:
        _forget(ledger)
        raise
    name = job.archive
    if left_out and not unpacked:
        _forget(ledger)
        raise BadArchive(f"The zip holds no picture that could be unpacked: {ledger.notes[0] if ledger.notes else ''}")
    ledger.tally.skipped += left_out
    ledger.write(archive="", cursor=ledger.checkpoint())
    default_storage.delete(name)


def _forget(ledger: Ledger) -> None:
    name = ledger.job.archive
    ledger.write(archive="")
    default_storage.delete(name)


def _check(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse bombs by what the directory says; what is written is held to it later."""
    entries = archive.infolist()
    if len(entries) > getattr(settings, "IWTAG_ZIP_MAX_ENTRIES", MAX_ENTRIES):
        raise BadArchive(f"The zip has {len(entries):,} entries; the limit is {MAX_ENTRIES:,}. Split it.")
    total = sum(e.file_size for e in entries)
    limit = getattr(settings, "IWTAG_ZIP_MAX_BYTES", MAX_UNPACKED)
    if total > limit:
        raise BadArchive(f"The zip unpacks to {total / 1e9:,.1f} GB; the limit is {limit / 1e9:,.1f} GB. Split it.")
    if total > RATIO_FREE and total > RATIO * size:
        raise BadArchive(
            f"The zip unpacks to {total / 1e9:,.1f} GB from {size / 1e6:,.1f} MB, as zip bombs do. "
            "Upload the pictures themselves."
        )


def _unpack_entries(archive: zipfile.ZipFile, ledger: Ledger) -> tuple[int, int]:
    """How many pictures are there now, and how many entries were left out (folders and system files do not count)."""
    unpacked = left_out = others = 0
    for entry in archive.infolist():
        if process.stopping():
            raise Interrupted
        if entry.is_dir() or _is_litter(entry.filename):
            continue
        try:
            _place(archive, entry, ledger)
            unpacked += 1
        except _NotAPicture:
            others += 1
        except (ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            left_out += 1
            ledger.note(f"{_shown(entry.filename)}: left out, {_reason(error)}.")
        ledger.beat()
    if others:
        ledger.note(f"{others:,} file{'s' if others > 1 else ''} of the zip left out: not pictures by their extension.")
    return unpacked, left_out + others


class _NotAPicture(Exception):
    pass


def _place(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, ledger: Ledger) -> None:
    """Write one entry below the collection's prefix, unless the same content lies there under its name already."""
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ValueError("it is a symbolic link")
    path = safe_path(entry.filename)
    if not kinds.has_image_extension(path):
        raise _NotAPicture
    if entry.flag_bits & 0x1:
        raise ValueError("it is encrypted")
    name = f"{ledger.job.collection.upload_prefix}/{path}"
    if default_storage.exists(name) and default_storage.size(name) == entry.file_size and _crc(name) == entry.CRC:
        return
    with archive.open(entry) as stream:
        storing.add(default_storage, name, _beating(cast(BinaryIO, stream), entry.file_size, ledger))


def _beating(stream: BinaryIO, promised: int, ledger: Ledger) -> Iterator[bytes]:
    """The entry's bytes, keeping the job alive; never more than the directory promised."""
    for piece in storing.pieces(stream):
        promised -= len(piece)
        if promised < 0:
            raise ValueError("it holds more than the directory of the zip says")
        ledger.beat()
        yield piece


def _crc(name: str) -> int:
    value = 0
    with default_storage.open(name, "rb") as stream:
        for piece in storing.pieces(cast(BinaryIO, stream)):
            value = zlib.crc32(piece, value)
    return value


def _is_litter(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    hidden = any(p.startswith(".") and p not in (".", "..") for p in parts)
    return hidden or "__MACOSX" in parts or parts[-1] in ("Thumbs.db", "desktop.ini")


def _shown(name: str) -> str:
    return _CONTROLS.sub("?", name)[:120].encode("utf-8", "replace").decode()


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, NotImplementedError):
        return "its compression is not supported"
    return "its data is damaged"
