"""Pictures: thumbnails by content hash, and originals."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from django.core.files.storage import default_storage
from django.http import FileResponse, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.shortcuts import get_object_or_404

from ..models import Collection, ImageAsset
from ..models.collections import thumbnail_name
from .guard import Request, needs

SIDES = (320, 1024)

#: Formats as Pillow names them → media type. SVG is not an image format here: it can carry scripts.
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
    "HEIC": "image/heic",
    "TIFF": "image/tiff",
}
#: Those that every current browser draws.
SHOWN_BY_BROWSERS = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "AVIF"}

_PLACEHOLDER = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240" role="img" aria-label="No picture">'
    '<rect width="320" height="240" fill="#8884"/><g fill="none" stroke="#888" stroke-width="3">'
    '<rect x="110" y="80" width="100" height="72" rx="6"/><circle cx="136" cy="104" r="8"/>'
    '<path d="m112 144 32-26 22 16 20-14 22 20M100 168 220 64"/></g></svg>'
)


def placeholder() -> HttpResponse:
    """What an <img> shows in place of a file that is not there: 404 for programs, a quiet drawing for people."""
    response = HttpResponse(_PLACEHOLDER, status=404, content_type="image/svg+xml")
    response["Cache-Control"] = "no-store"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


@needs("read")
def thumb(request: Request, sha256: str, side: int) -> HttpResponseBase:
    """The WebP rendition of a content hash. It can never change, so browsers keep it for a year."""
    if side not in SIDES or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        return placeholder()
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "ETag": f'"{sha256}-{side}"'}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return HttpResponseNotModified(headers=headers)
    try:
        stream = default_storage.open(thumbnail_name(sha256, side), "rb")
    except OSError:
        return placeholder()
    return FileResponse(stream, content_type="image/webp", headers=headers)


@needs("read")
def original(request: Request, pk: int) -> HttpResponseBase:
    """The file as it is: shown by the browser where it can draw the format, else offered as a download."""
    image = get_object_or_404(ImageAsset.objects.select_related("collection"), pk=pk)
    if not image.format or image.format.upper() == "SVG" or not inside(image):
        return placeholder()
    headers = {
        "Cache-Control": "private, max-age=3600",
        "ETag": f'"{image.sha256}"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    if image.sha256 and request.headers.get("If-None-Match") == headers["ETag"]:
        return HttpResponseNotModified(headers=headers)
    try:
        stream = image.open()
    except OSError:
        return placeholder()
    media_type = MEDIA_TYPES.get(image.format.upper(), "application/octet-stream")  # RAW files, for instance
    download = image.format.upper() not in SHOWN_BY_BROWSERS
    return FileResponse(stream, as_attachment=download, filename=image.name, content_type=media_type, headers=headers)


def inside(image: ImageAsset) -> bool:
    """Whether the file lies in its collection, whatever its stored path or a link in the folder says."""
    if posixpath.isabs(image.path) or ".." in image.path.split("/") or "\0" in image.path:
        return False
    if image.collection.kind == Collection.Kind.UPLOAD:
        return True  # the storage joins safely
    root = Path(image.collection.root).resolve()
    return (root / image.path).resolve().is_relative_to(root)
