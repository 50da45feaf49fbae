"""The API, assembled from the routers of the apps."""

from __future__ import annotations

from ninja import NinjaAPI

api = NinjaAPI(title="iwtag", version="1", urls_namespace="api")
