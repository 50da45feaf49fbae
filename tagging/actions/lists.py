"""Wordlists and the policies that use them: a new version of a list, carried on to rules and runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db.models import Max, OuterRef, Prefetch, Subquery

from prompts.actions import save_wordlist
from prompts.models import Wordlist, WordlistVersion

from ..models import Policy, PolicyVersion, RecomputeJob, Run
from .policies import create_policy_version
from .recompute import start_recompute
from .runs import NotNow

#: runs that are looked through for those whose policy uses a list, and that a page offers
SEARCHED, OFFERED = 60, 8


def light_lists() -> Prefetch:
    """The lists of policy versions without their words, which may be hundreds of thousands: those that are used are
    loaded when they are read."""
    return Prefetch("wordlists", WordlistVersion.objects.select_related("wordlist").defer("entries"))


def current_policy_versions() -> dict[int, PolicyVersion]:
    """Policy id → its newest version, with the versions of lists it uses. Two queries."""
    newest = PolicyVersion.objects.values("policy").annotate(pk_=Max("pk")).values("pk_")
    rows = PolicyVersion.objects.filter(pk__in=newest).select_related("policy")
    return {row.policy_id: row for row in rows.prefetch_related(light_lists())}


def policies_using(wordlist: Wordlist) -> list[PolicyVersion]:
    """The newest versions of policies that use any version of the list."""
    return [
        version
        for version in current_policy_versions().values()
        if any(used.wordlist_id == wordlist.pk for used in version.wordlists.all())
    ]


def policy_in_force(runs: Sequence[Run]) -> dict[int, PolicyVersion]:
    """Run id → the policy version that made what the run proposes now: that of its latest finished recompute, else its
    recipe's. The runs need `recipe` selected. Two queries."""
    latest = RecomputeJob.objects.filter(run=OuterRef("pk"), state=RecomputeJob.State.DONE).order_by("-pk")
    applied = dict(
        Run.objects.filter(pk__in=[run.pk for run in runs])
        .annotate(applied=Subquery(latest.values("policy_version")[:1]))
        .values_list("pk", "applied")
    )
    wanted = {run.pk: applied.get(run.pk) or run.recipe.policy_version_id for run in runs}
    rows = PolicyVersion.objects.filter(pk__in=set(wanted.values())).select_related("policy")
    versions = {row.pk: row for row in rows.prefetch_related(light_lists())}
    return {run_id: versions[pk] for run_id, pk in wanted.items()}


@dataclass(frozen=True)
class UsedRun:
    """A run with the newest version of its policy, and whether that uses the list in question."""

    run: Run
    policy: PolicyVersion
    uses: bool


def recent_runs() -> list[Run]:
    """The latest runs that a policy can be applied to: hidden and running ones are left out."""
    runs = Run.objects.listed().exclude(state=Run.State.RUNNING)
    runs = runs.select_related("recipe", "collection").order_by("-pk")
    return list(runs[:SEARCHED])


def runs_for(wordlist: Wordlist) -> list[UsedRun]:
    """Runs to try a list on, newest first: those whose policy uses it, then the others."""
    runs = recent_runs()
    in_force, newest = policy_in_force(runs), current_policy_versions()
    found = []
    for run in runs:
        version = newest[in_force[run.pk].policy_id]
        found.append(UsedRun(run, version, any(v.wordlist_id == wordlist.pk for v in version.wordlists.all())))
    return sorted(found, key=lambda one: not one.uses)[:OFFERED]


def lists_with(version: PolicyVersion, list_version: WordlistVersion) -> list[WordlistVersion]:
    """The lists of a policy version, with this version of one of them; added where it was not among them."""
    others = [used for used in version.wordlists.all() if used.wordlist_id != list_version.wordlist_id]
    return [*others, list_version]


def use_in_policy(
    version: PolicyVersion, list_version: WordlistVersion, *, message: str = "", by: AbstractBaseUser | None = None
) -> PolicyVersion:
    """The policy's next version: the same rules with this version of the list, which is added where it was not used.

    ValidationError as `policies.create_policy_version` when the rules and the words contradict each other.
    """
    return create_policy_version(
        version.policy,
        version.spec,
        lists_with(version, list_version),
        message=message or f"With {list_version}"[:200],
        base=version.number,
        by=by,
    )


@dataclass
class Carried:
    """What followed from a new version of a list."""

    policies: list[PolicyVersion] = field(default_factory=list)
    jobs: list[RecomputeJob] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def carry_on(
    list_version: WordlistVersion,
    *,
    runs: Iterable[Run] = (),
    also: Iterable[Policy] = (),
    by: AbstractBaseUser | None = None,
) -> Carried:
    """New versions of the policies that use the list (and of those in `also`), then a recompute of `runs`.

    A run gets its own policy's new version. What cannot be done is said in `refused`; the rest is done.
    """
    done = Carried()
    newest = {v.policy_id: v for v in policies_using(list_version.wordlist)}
    current = current_policy_versions()
    newest |= {policy.pk: current[policy.pk] for policy in also if policy.pk in current}
    for policy_id, version in newest.items():
        try:
            newest[policy_id] = use_in_policy(version, list_version, by=by)
        except ValidationError as error:
            done.refused.append(f"{version.policy}: {' '.join(error.messages)}")
        else:
            if newest[policy_id] != version:
                done.policies.append(newest[policy_id])
    wanted = list(runs)
    in_force = policy_in_force(wanted) if wanted else {}
    for run in wanted:
        target = newest.get(in_force[run.pk].policy_id)
        if target is None:
            done.refused.append(
                f"{run}: its policy {in_force[run.pk].policy} does not use {list_version.wordlist.slug}."
            )
            continue
        try:
            done.jobs.append(start_recompute(run, target, by=by))
        except NotNow as error:
            done.refused.append(str(error))
    return done


def restore(wordlist: Wordlist, number: int, *, by: AbstractBaseUser | None = None) -> WordlistVersion:
    """A new version with the words of an older one. WordlistVersion.DoesNotExist."""
    old = wordlist.versions.get(number=number)
    return save_wordlist(wordlist, old.entries, message=f"Back to version {number}", by=by)
