"""Who may do what: four roles as Django groups, asked for by verb."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, Permission

Verb = Literal["read", "review", "curate", "administer"]

#: The permission that stands for each verb. Asking for permissions, not groups, lets a site make its own groups.
VERBS: Mapping[Verb, str] = {
    "read": "tagging.view_imageasset",
    "review": "tagging.add_tagedit",
    "curate": "tagging.add_run",
    "administer": "tagging.change_modeladapter",
}

_PROMPTS = ("prompt", "promptversion", "wordlist", "wordlistversion")
_SEEN = (
    *(f"tagging.{m}" for m in ("collection", "imageasset", "ingestjob", "tag", "tagalias", "imagetag", "tagcount")),
    *(f"tagging.{m}" for m in ("tagedit", "run", "chunk", "proposal", "prediction", "recipe", "channel", "policy")),
    *(
        f"tagging.{m}"
        for m in ("policyversion", "modeladapter", "storedlabelset", "worker", "optionpreset", "modeldownload")
    ),
    *(f"tagging.{m}" for m in ("label", "labelevent", "watch")),
    *(f"prompts.{m}" for m in _PROMPTS),
    "exports.exportjob",
    *(f"judging.{m}" for m in ("experiment", "experimentrecipe", "experimentrun", "vote")),
    *(f"judging.{m}" for m in ("judgeprofile", "judgeprofileversion", "judgeverdict", "judgedtag", "runverdict")),
    *(f"judging.{m}" for m in ("judgejob", "gate", "gateoutcome", "calibration", "inboxanswer")),
)
_CURATED = (
    *(f"tagging.{m}" for m in ("collection", "ingestjob", "tag", "tagalias", "policy", "policyversion", "recipe")),
    *(f"tagging.{m}" for m in ("channel", "run", "label", "watch", "optionpreset")),
    *(f"prompts.{m}" for m in _PROMPTS),
    "exports.exportjob",
    *(f"judging.{m}" for m in ("experiment", "experimentrecipe", "experimentrun")),
    *(f"judging.{m}" for m in ("judgeprofile", "judgejob", "gate")),
)
_OUR_APPS = ("tagging", "prompts", "judging", "exports")


def may(user: AbstractBaseUser | AnonymousUser | None, verb: Verb) -> bool:
    """True when `user` may do `verb`. Nobody and people without a role may do nothing; superusers everything."""
    return user is not None and user.has_perm(VERBS[verb])  # type: ignore[union-attr]


def _codes(models: Iterable[str], *actions: str) -> set[str]:
    return {f"{app}.{action}_{model}" for app, _, model in (m.partition(".") for m in models) for action in actions}


def role_permissions() -> dict[str, set[str]]:
    """Role → permissions as "app.codename", each role with those of the roles below it. The administrator has all
    permissions of our apps besides; those are found in the database."""
    viewer = _codes(_SEEN, "view")
    reviewer = viewer | {"tagging.add_tagedit", "tagging.add_tag", "judging.add_vote"}
    curator = reviewer | _codes(_CURATED, "add", "change", "delete")
    curator |= {"tagging.change_imageasset", "judging.promote_experiment"}
    administrator = curator | _codes(("auth.user", "auth.group"), "view", "add", "change", "delete")
    return {"viewer": viewer, "reviewer": reviewer, "curator": curator, "administrator": administrator}


def sync_roles(using: str = "default", **kwargs: Any) -> None:
    """Make the four groups and give them what they lack. Runs after every migration; never takes anything away, so
    that what a site granted on top stays."""
    known = {
        f"{app}.{code}": pk
        for pk, app, code in Permission.objects.using(using).values_list("pk", "content_type__app_label", "codename")
    }
    for role, codes in role_permissions().items():
        wanted = {known[code] for code in codes if code in known}
        if role == "administrator":
            wanted |= {pk for code, pk in known.items() if code.partition(".")[0] in _OUR_APPS}
        group, _ = Group.objects.using(using).get_or_create(name=role)
        group.permissions.add(*wanted)
