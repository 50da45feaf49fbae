"""Models on this machine: where one is loaded, having it unloaded, and making rows of what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from ..adapters import registry
from ..adapters.base import AdapterError, Problem
from ..models import ModelAdapter, UnloadRequest, Worker


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is in the memory of a living worker, as its last sign of life said."""

    slug: str
    key: str
    owner: str
    host: str
    queue: str
    place: str
    provider: str
    load_seconds: float
    in_use: bool
    leaving: bool  # it was asked to be unloaded

    @property
    def where(self) -> str:
        """For people: the place, and the host where there are several."""
        return self.place or self.provider or "remote"


def loaded(seconds: float = 30) -> list[Loaded]:
    """All loaded models of workers heard from within `seconds`. Two queries."""
    workers = list(Worker.objects.alive(seconds))
    asked = set(UnloadRequest.objects.filter(owner__in=[w.owner for w in workers]).values_list("owner", "model_key"))
    found = []
    for worker in workers:
        for model in worker.resident:
            if not isinstance(model, dict):
                continue
            key = str(model.get("key", ""))
            found.append(
                Loaded(
                    slug=str(model.get("slug", "")),
                    key=key,
                    owner=worker.owner,
                    host=worker.host,
                    queue=worker.queue,
                    place=str(model.get("place", "")),
                    provider=str(model.get("provider", "")),
                    load_seconds=_number(model.get("load_seconds")),
                    in_use=bool(model.get("in_use")),
                    leaving=(worker.owner, key) in asked or (worker.owner, "") in asked,
                )
            )
    return found


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def unload(slugs: Iterable[str] | None = None) -> int:
    """Ask the workers to unload these models (None: all); how many workers were asked. Each obeys within about two
    seconds once nothing uses the model; a run that needs it loads it again."""
    wanted = None if slugs is None else set(slugs)
    chosen = {(m.owner, m.key) for m in loaded() if wanted is None or m.slug in wanted}
    UnloadRequest.objects.bulk_create(
        [UnloadRequest(owner=owner, model_key=key) for owner, key in sorted(chosen)], ignore_conflicts=True
    )
    return len({owner for owner, _ in chosen})


def problems(row: ModelAdapter) -> list[Problem]:
    """What would keep a model from working, found without loading it. Never raises."""
    try:
        return list(row.build().check())
    except registry.UnknownAdapter as e:
        return [Problem(str(e), "Choose another kind, or install the package that brings it.")]
    except ImportError as e:
        return [Problem(f"The code of this kind cannot be loaded: {e}.", "Install what it needs.")]
    except AdapterError as e:
        return [Problem(e.message, "See the message.")]
    except Exception as e:  # third-party adapters: an error in their check is a finding too
        return [Problem(f"The check itself failed: {type(e).__name__}: {e}", "Report it to whoever wrote the adapter.")]


def configure(
    kind: str,
    source: str,
    *,
    label: str = "",
    revision: str = "",
    options: Mapping[str, Any] | None = None,
    by: AbstractBaseUser | None = None,
) -> ModelAdapter:
    """A model row for what is on disk or was downloaded; the one there is where kind, source and revision are the same.

    ValidationError keyed by kind or source.
    """
    row = ModelAdapter.objects.filter(kind=kind, source=source, revision=revision).order_by("pk").first()
    if row is not None:
        return row
    if not source:
        raise ValidationError({"source": "Name what is to be used."})
    name = label or source.rstrip("/").rpartition("/")[2].replace("--", "/").rpartition("/")[2]
    for _ in range(20):
        row = ModelAdapter(
            slug=_free_slug(name),
            label=name[:120],
            kind=kind,
            source=source,
            revision=revision,
            options=dict(options or {}),
        )
        row.full_clean(validate_unique=False)
        try:
            with transaction.atomic():
                row.save()
            return row
        except IntegrityError:  # somebody took the slug in this moment
            continue
    raise ValidationError({"source": f"No free name for {name!r} was found."})


def _free_slug(name: str) -> str:
    base = slugify(name)[:70] or "model"
    taken = set(ModelAdapter.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    return next(slug for n in range(1, len(taken) + 2) if (slug := base if n == 1 else f"{base}-{n}") not in taken)
