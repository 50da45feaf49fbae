"""Policies: every change is a checked, immutable version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from pydantic import ValidationError as SpecInvalid

from prompts.models import Wordlist, WordlistVersion, digest
from prompts.wordlists import first_error

from ..models import Policy, PolicyVersion
from ..policy.pipeline import CompiledPolicy, compile_policy
from ..policy.spec import PolicyError, PolicySpec, WordList

_ATTEMPTS = 5


def create_policy(*, slug: str, name: str = "", note: str = "") -> Policy:
    """A policy without a version yet. ValidationError with the field's name."""
    policy = Policy(slug=slug, name=name or slug, note=note)
    policy.full_clean()
    policy.save()
    return policy


def check_spec(spec: Mapping[str, Any]) -> PolicySpec:
    """The rules, validated. ValidationError keyed by "spec", each message naming its field."""
    try:
        return PolicySpec.model_validate(dict(spec))
    except SpecInvalid as error:
        messages = [_message(e) for e in error.errors(include_url=False)] or [first_error(error)]
        raise ValidationError({"spec": messages}) from None


def _message(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def as_lists(versions: Iterable[WordlistVersion]) -> list[WordList]:
    """Versions of wordlists as the pipeline takes them, in the order of their lists' slugs."""
    return [
        WordList(v.wordlist.slug, v.wordlist.kind, v.entries)
        for v in sorted(versions, key=lambda v: (v.wordlist.slug, -v.number))
    ]


def compile_checked(spec: Mapping[str, Any], versions: Iterable[WordlistVersion]) -> CompiledPolicy:
    """Rules and lists compiled together. ValidationError keyed by "spec" or "wordlists"."""
    checked, lists = check_spec(spec), list(versions)
    twice = [v.wordlist.slug for v in lists]
    if repeated := sorted({slug for slug in twice if twice.count(slug) > 1}):
        raise ValidationError({"wordlists": f"{repeated[0]} stands twice: a policy uses one version of a list."})
    try:
        return compile_policy(checked, as_lists(lists))
    except PolicyError as error:
        raise ValidationError({"wordlists" if str(error).startswith("list ") else "spec": str(error)}) from None


def find_policy_version(text: str) -> PolicyVersion:
    """By what a person writes: "slug" is the newest version, "slug@3" the third. ValidationError under "policy"."""
    slug, _, number = text.strip().partition("@")
    policy = Policy.objects.filter(slug=slug).first()
    if policy is None:
        known = ", ".join(Policy.objects.values_list("slug", flat=True)[:20]) or "none yet"
        raise ValidationError({"policy": f"There is no policy {slug!r}; there are: {known}."})
    found = policy.current
    if number:
        found = policy.versions.filter(number=int(number[:9])).first() if number.isdecimal() else None
    if found is None:
        raise ValidationError({"policy": f"The policy {slug!r} has no version {number or 'yet'}."})
    return found


def spec_json(spec: PolicySpec) -> dict[str, Any]:
    """What is stored: only what differs from the defaults, so that equal rules have equal digests."""
    return spec.model_dump(mode="json", exclude_defaults=True)


def policy_digest(spec: Mapping[str, Any], versions: Iterable[WordlistVersion]) -> str:
    """Hash of the rules and of the content of the lists."""
    return digest([spec, [v.digest for v in sorted(versions, key=lambda v: v.wordlist.slug)]])


def current_versions(slugs: Sequence[str]) -> list[WordlistVersion]:
    """The newest version of each list, by slug. ValidationError under "wordlists" for an unknown or empty one."""
    found: list[WordlistVersion] = []
    for slug in slugs:
        wordlist = Wordlist.objects.filter(slug=slug).first()
        if wordlist is None:
            known = ", ".join(Wordlist.objects.values_list("slug", flat=True)[:20]) or "none yet"
            raise ValidationError({"wordlists": f"There is no wordlist {slug!r}; there are: {known}."})
        version = wordlist.current
        if version is None:
            raise ValidationError({"wordlists": f"The wordlist {slug!r} has no words yet."})
        found.append(version)
    return found


def create_policy_version(
    policy: Policy,
    spec: Mapping[str, Any],
    wordlists: Iterable[WordlistVersion] = (),
    *,
    message: str = "",
    base: int | None = None,
    by: AbstractBaseUser | None = None,
) -> PolicyVersion:
    """The next version of a policy; the current one where nothing changed.

    `base`: the number of the version that was edited; where somebody saved a newer one meanwhile, this is refused.
    ValidationError keyed by field: spec, wordlists, message, base.
    """
    message = " ".join(message.split())
    if len(message) > 200:
        raise ValidationError({"message": "At most 200 characters."})
    lists = list(wordlists)
    stored = spec_json(compile_checked(spec, lists).spec)
    hashed = policy_digest(stored, lists)
    for attempt in range(_ATTEMPTS):
        current = policy.current
        number = current.number if current else 0
        if base is not None and base != number:
            raise ValidationError({"base": f"Version {number} was saved meanwhile: look at it, then save again."})
        if current is not None and current.digest == hashed:
            return current
        try:
            with transaction.atomic():
                version = PolicyVersion.objects.create(
                    policy=policy,
                    number=number + 1,
                    spec=stored,
                    digest=hashed,
                    message=message,
                    created_by=by,  # type: ignore[misc]
                )
                version.wordlists.set(lists)
            return version
        except IntegrityError:  # two saved at once: the second looks again
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("not reached")


def with_current_lists(version: PolicyVersion, *, by: AbstractBaseUser | None = None) -> PolicyVersion:
    """The same rules with the newest versions of the same lists; the same version where they are the newest."""
    slugs = version.wordlists.values_list("wordlist__slug", flat=True)
    lists = current_versions(sorted(slugs))
    return create_policy_version(version.policy, version.spec, lists, message="The newest versions of its lists", by=by)
