"""Thumbnails and originals: who gets them, how long they are kept, what is never served."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse

from tagging.models import Collection, ImageAsset
from tagging.models.collections import thumbnail_name

pytestmark = pytest.mark.django_db


def person(name: str, role: str = "") -> Client:
    user = User.objects.create_user(name)
    if role:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def viewer() -> Client:
    return person("vera", "viewer")


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    root = tmp_path / "photos"
    root.mkdir()
    return Collection.objects.create(name="Holiday", slug="holiday", root=str(root))


@pytest.fixture
def image(collection: Collection) -> ImageAsset:
    """Its file is not there yet."""
    return ImageAsset.objects.create(collection=collection, path="0.jpg", sha256="0" * 64, format="JPEG")


def original(image: ImageAsset) -> str:
    return reverse("tagging:original", args=[image.pk])


def test_thumbnails_are_kept_for_ever_by_their_hash(viewer: Client) -> None:
    sha256 = hashlib.sha256(b"picture").hexdigest()
    default_storage.save(thumbnail_name(sha256, 320), ContentFile(b"RIFFwebp"))
    response = viewer.get(f"/media/thumb/{sha256}/320.webp")
    assert b"".join(response.streaming_content) == b"RIFFwebp"
    assert response["Content-Type"] == "image/webp"
    assert response["Cache-Control"] == "private, max-age=31536000, immutable"
    assert response["X-Content-Type-Options"] == "nosniff"
    again = viewer.get(f"/media/thumb/{sha256}/320.webp", HTTP_IF_NONE_MATCH=response["ETag"])
    assert again.status_code == 304


@pytest.mark.parametrize(
    "name", ["f" * 64 + "/320.webp", "f" * 64 + "/321.webp", "../../db.sqlite3/320.webp", "F/320.webp"]
)
def test_a_thumbnail_that_is_not_there_is_a_drawing(viewer: Client, name: str) -> None:
    response = viewer.get(f"/media/thumb/{name}")
    assert response.status_code == 404
    assert "immutable" not in response.get("Cache-Control", "")


def test_pictures_are_for_people_with_a_role(client: Client, image: ImageAsset) -> None:
    thumb = f"/media/thumb/{'0' * 64}/320.webp"
    assert client.get(thumb, HTTP_ACCEPT="image/*").status_code == 401
    assert person("nora").get(thumb).status_code == 403


def test_originals_are_shown_as_what_they_are(viewer: Client, image: ImageAsset, collection: Collection) -> None:
    Path(collection.root, "0.jpg").write_bytes(b"\xff\xd8 picture")
    response = viewer.get(original(image))
    assert b"".join(response.streaming_content) == b"\xff\xd8 picture"
    assert response["Content-Type"] == "image/jpeg"
    assert response["Content-Disposition"] == 'inline; filename="0.jpg"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert viewer.get(original(image), HTTP_IF_NONE_MATCH=response["ETag"]).status_code == 304


def test_formats_that_browsers_do_not_draw_are_downloads(
    viewer: Client, image: ImageAsset, collection: Collection
) -> None:
    Path(collection.root, "0.jpg").write_bytes(b"II*")
    for stored, media_type in (("TIFF", "image/tiff"), ("DNG", "application/octet-stream")):
        ImageAsset.objects.filter(pk=image.pk).update(format=stored)
        response = viewer.get(original(image))
        assert response["Content-Type"] == media_type
        assert response["Content-Disposition"].startswith("attachment")
        assert b"".join(response.streaming_content) == b"II*"


def test_an_original_that_is_gone_is_a_drawing(viewer: Client, image: ImageAsset) -> None:
    response = viewer.get(original(image))
    assert response.status_code == 404
    assert response["Content-Type"] == "image/svg+xml"


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/hostname", "a/../../secret.jpg", "link.jpg"])
def test_no_path_leads_out_of_the_collection(
    viewer: Client, image: ImageAsset, collection: Collection, path: str
) -> None:
    root = Path(collection.root)
    (root.parent / "secret.jpg").write_bytes(b"secret")
    (root / "link.jpg").symlink_to(root.parent / "secret.jpg")
    ImageAsset.objects.filter(pk=image.pk).update(path=path)
    response = viewer.get(original(image))
    assert response.status_code == 404
    assert b"secret" not in response.content


@pytest.mark.parametrize("stored", ["SVG", ""])
def test_what_is_no_image_is_not_served(viewer: Client, image: ImageAsset, collection: Collection, stored: str) -> None:
    Path(collection.root, "0.jpg").write_bytes(b"<svg onload=alert(1)>")
    ImageAsset.objects.filter(pk=image.pk).update(format=stored)
    response = viewer.get(original(image))
    assert response.status_code == 404
    assert b"alert" not in response.content


def test_uploads_come_from_the_storage(viewer: Client) -> None:
    uploads = Collection.objects.create(name="Uploads", slug="uploads", kind="upload")
    default_storage.save(f"{uploads.upload_prefix}/a/b.png", ContentFile(b"\x89PNG"))
    image = ImageAsset.objects.create(collection=uploads, path="a/b.png", sha256="1" * 64, format="PNG")
    response = viewer.get(original(image))
    assert b"".join(response.streaming_content) == b"\x89PNG"
    assert response["Content-Type"] == "image/png"
    ImageAsset.objects.filter(pk=image.pk).update(path="../../db.sqlite3")
    assert viewer.get(original(image)).status_code == 404
