"""Lists of a server's models: asked for in the web process, fetched by a worker, chosen from by an administrator."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.utils import timezone

from .. import queue
from ..adapters.base import AdapterError
from ..models import ModelAdapter, ModelListing

TASK = "tagging.tasks.list_models"
State = ModelListing.State


def ask_for_models(adapter: ModelAdapter) -> ModelListing:
    """Have a worker fetch the list; what is known of the last one stays until then. ValidationError for an adapter
    whose models are not behind a server."""
    if not adapter.adapter_class.lists_models:
        raise ValidationError({"kind": f"{adapter.label} is no endpoint: it has no list of models."})
    row, _ = ModelListing.objects.update_or_create(
        adapter=adapter, defaults={"state": State.ASKED, "error": "", "asked_at": timezone.now()}
    )
    queue.defer(TASK, adapter.pk, cluster=queue.IO)
    return row


def fetch_models(adapter_id: int) -> None:
    """In a worker: ask the server, which has a few seconds, and keep what it says. A second ring does no harm."""
    adapter = ModelAdapter.objects.filter(pk=adapter_id).first()
    if adapter is None:
        return
    try:
        found, error = adapter.build().models(), ""
    except AdapterError as e:
        found, error = [], e.message
    except Exception as e:  # whatever a server or a third-party adapter does, the asker gets an answer
        found, error = [], f"{type(e).__name__}: {e}"
    values = {"state": State.FAILED, "error": error} if error else {"state": State.THERE, "error": "", "found": found}
    ModelListing.objects.filter(adapter=adapter).update(**values, answered_at=timezone.now())


def choose_model(adapter: ModelAdapter, name: str) -> None:
    """The adapter's model is this one from now on. ValidationError when the server's last list does not have it."""
    listing = ModelListing.objects.filter(adapter=adapter).first()
    if listing is None or name not in {m["id"] for m in listing.found}:
        raise ValidationError({"model": f"The server's list has no model {name!r}."})
    adapter.options = {**adapter.options, "model": name}
    adapter.full_clean()
    adapter.save(update_fields=["options"])
