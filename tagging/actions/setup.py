"""What a fresh installation needs before it is of use. Each step does nothing where its result is already there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model

from ..models import Collection, ImageAsset, IngestJob, ModelAdapter, Run
from .ingest import create_collection, run_ingest, start_ingest
from .recipes import ChannelSpec, get_recipe
from .runs import start_run

ADMIN = "admin"
SAMPLES = "Samples"
DEFAULT_ADAPTER = "photo-lite"


def ensure_administrator() -> tuple[str, bool] | None:
    """Make the first superuser. Returns (password, whether it was generated), or None when there already is one.

    The password is IWTAG_ADMIN_PASSWORD, else a random one of 80 bits that is not stored anywhere in clear.
    """
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return None
    given = os.environ.get("IWTAG_ADMIN_PASSWORD", "")
    password = given or secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, password=password)
    return password, not given


def ensure_default_adapter() -> ModelAdapter:
    """The embedded model's row."""
    row, _ = ModelAdapter.objects.get_or_create(
        slug=DEFAULT_ADAPTER,
        defaults={
            "label": "photo-lite",
            "kind": "photo-lite",
            "note": "The embedded default: objects, animals and food of 1,000 classes. It does not know people.",
        },
    )
    return row


def ensure_samples(folder: Path | None = None) -> tuple[Collection, IngestJob | None]:
    """The collection of sample photographs, indexed. The job is None when the collection was already there.

    Removing the collection later is respected only as far as this: it is made again only while there is no
    collection at all.
    """
    folder = folder or Path(settings.BASE_DIR) / "samples"
    found = Collection.objects.filter(kind=Collection.Kind.FOLDER, root=str(folder)).first()
    if found and found.indexed_at:
        return found, None
    collection = found or create_collection(name=SAMPLES, kind="folder", root=str(folder))
    return collection, run_ingest(start_ingest(collection).pk)


def ensure_first_run(collection: Collection) -> Run | None:
    """Start the embedded model on the collection, unless it ever had a run or has nothing to show."""
    if collection.runs.exists() or not ImageAsset.objects.filter(collection=collection).usable().exists():
        return None
    recipe = get_recipe([ChannelSpec(adapter=ensure_default_adapter())], name="photo-lite")
    return start_run(recipe, collection=collection, name="First run")
