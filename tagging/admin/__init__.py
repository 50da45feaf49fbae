"""The admin pages. Importing the modules registers them."""

from __future__ import annotations

from . import access, adapters, collections, images, labels, presets, recipes, runs, tags, workers

__all__ = ["access", "adapters", "collections", "images", "labels", "presets", "recipes", "runs", "tags", "workers"]
