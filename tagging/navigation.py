"""The links of the header, as data: a new page is a line here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """`name` as `{% url %}` takes it; the link is marked on pages whose URL name or app is among `at`."""

    name: str
    label: str
    at: frozenset[str] = frozenset()


def link(name: str, label: str, *at: str) -> Link:
    return Link(name, label, frozenset(at or (name.partition(":")[2],)))


COLLECTIONS = (
    *("grid", "queue", "review", "collection_new", "collection_edit", "upload"),
    *("ingest_status", "watch", "gate", "bulk", "bulk_status"),
)
EXPERIMENTS = (
    *("experiments", "experiment", "experiment_new", "rest", "promote", "together"),
    *("matrix", "curves", "sides", "arena", "votes", "overnight", "overnight_new", "search"),
)
MAIN = (
    link("tagging:home", "Collections", "home", *COLLECTIONS),
    link("tagging:runs", "Runs", "runs", "run", "run_new", "recompute"),
    link("tagging:workbench", "Workbench"),
    link("judging:experiments", "Experiments", *EXPERIMENTS),
    link("exports:jobs", "Exports", "exports"),
)
#: what runs are made of: one menu, so that the header fits a phone
LIBRARY = (
    link("tagging:prompts", "Prompts", "prompts", "prompt", "prompt_new", "prompts_take", "trial"),
    link("tagging:wordlists", "Wordlists", "wordlists", "wordlist", "wordlist_new"),
    link("tagging:policies", "Policies", "policies", "policy", "policy_new"),
    link("tagging:recipes", "Recipes", "recipes", "recipe", "recipe_new"),
    link("tagging:tags", "Tags"),
    link("tagging:labels", "Labels"),
    link("tagging:models", "Models"),
    link("judging:judges", "Judges", "judges", "judge", "judge_job", "judge_new", "inbox"),
)
