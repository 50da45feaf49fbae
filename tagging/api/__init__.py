"""The HTTP API, a module for each resource. `iwtag_site.api` assembles the routers."""

from __future__ import annotations
