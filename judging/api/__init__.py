"""The routers of comparison and judging, one module each; `iwtag_site.api` hangs them up."""

from __future__ import annotations
