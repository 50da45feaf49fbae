"""The API, assembled from the routers of the apps."""

from __future__ import annotations

from ninja import NinjaAPI

from tagging.api.auth import AUTH
from tagging.api.errors import install

DESCRIPTION = """Send an API key in the header `X-API-Key` (`manage.py create_api_key NAME --scopes read,write,run`), or
sign in: this page then uses your session. Errors are `{"detail": "…", "field": "…"}`. Lists come in pages with a
`next_cursor`. Nothing here waits for a model: runs are done by workers, ask for their progress."""

api = NinjaAPI(title="iwtag", version="1", description=DESCRIPTION, urls_namespace="api", auth=AUTH)
install(api)

ROUTERS = {
    "/health": "tagging.api.health.router",
    "/collections": "tagging.api.collections.router",
    "/collections/{slug}/watch": "tagging.api.watch.router",
    "/ingests": "tagging.api.collections.ingests",
    "/images": "tagging.api.images.router",
    "/tags": "tagging.api.tags.router",
    "/adapters": "tagging.api.adapters.router",
    "/models": "tagging.api.models.router",
    "/presets": "tagging.api.presets.router",
    "/words": "tagging.api.words.words",
    "/prompts": "tagging.api.prompts.router",
    "/wordlists": "tagging.api.wordlists.router",
    "/policies": "tagging.api.policies.policies",
    "/recipes": "tagging.api.policies.recipes",
    "/labels": "tagging.api.labels.router",
    "/recompute": "tagging.api.policies.recompute",
    "/runs": "tagging.api.runs.router",
    "/try": "tagging.api.trying.router",
    "/proposals": "tagging.api.proposals.router",
    "/experiments": "judging.api.comparing.router",
    "/experiments/{int:experiment_id}/votes": "judging.api.votes.router",
    "/overnight": "judging.api.overnight.router",
    "/judges": "judging.api.judges.router",
    "/verdicts": "judging.api.verdicts.router",
    "/collections/{slug}/gate": "judging.api.gates.router",
    "/collections/{slug}/second-looks": "judging.api.second_looks.router",
    "/exports": "exports.api.router",
    "/imports": "exports.import_api.router",
}
for prefix, router in ROUTERS.items():
    api.add_router(prefix, router)
