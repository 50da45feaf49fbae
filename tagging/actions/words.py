"""What a chip offers: ban a word everywhere, add it to a vocabulary, make it an alias, replace it. One new version of a
list each, carried on to the policy that uses it; everything can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import transaction

from prompts import actions as lists
from prompts.models import Wordlist, WordlistVersion
from prompts.wordlists import Entry, check_entries

from ..models import Policy, PolicyVersion, Run
from .lists import current_policy_versions, policies_using, policy_in_force, use_in_policy
from .recipes import default_policy_version

Kind = Wordlist.Kind
#: verb → kind of the list it writes to
VERBS = {
    "ban": Kind.BANNED,
    "vocabulary": Kind.VOCABULARY,
    "alias": Kind.VOCABULARY,
    "replace": Kind.REPLACEMENT,
}
#: slug and name of the list that is made where a verb has none to write to
FIRST_LISTS = {
    Kind.BANNED: ("banned", "Banned words"),
    Kind.VOCABULARY: ("vocabulary", "Vocabulary"),
    Kind.REPLACEMENT: ("replacements", "Replacements"),
}


@dataclass(frozen=True)
class WordChange:
    """A word that went into a list. `policies` are the versions that follow from it; `before` the list's version number
    it was made from (0: the list was empty)."""

    version: WordlistVersion
    before: int
    policies: list[PolicyVersion]

    @property
    def changed(self) -> bool:
        return self.version.number != self.before


@dataclass(frozen=True)
class Choice:
    """A list that a verb can write to."""

    wordlist: Wordlist
    used: bool  # by the policy in question


def policy_of(run: Run | None) -> PolicyVersion:
    """The newest version of the policy in force on the run; of the default policy without one."""
    if run is None:
        return default_policy_version()
    return policy_in_force([run])[run.pk].policy.current or default_policy_version()


def choices(verb: str, policy: PolicyVersion) -> list[Choice]:
    """The lists of the verb's kind: those that the policy uses first."""
    used = set(policy.wordlists.values_list("wordlist_id", flat=True))
    rows = [Choice(row, row.pk in used) for row in Wordlist.objects.filter(kind=VERBS[verb])]
    return sorted(rows, key=lambda choice: (not choice.used, choice.wordlist.slug))


def changed_entries(
    verb: str, entries: list[Entry], word: str, target: str = "", *, inside: bool = False
) -> list[Entry]:
    """The entries of a list after the verb; equal to what they were where it is there already.

    `target`: of an alias the term, of a replacement the new word (may be empty: the word goes). `inside`: of a banned
    word, also where it is part of other tags, and in captions. ValidationError keyed by "word" or "target".
    """
    word, target = " ".join(word.split()), " ".join(target.split())
    if not word:
        raise ValidationError({"word": "Which word?"})
    same = word.casefold()
    if verb == "ban":
        wide = ("word",) if inside else ("exact", "word")
        if any(e.text.casefold() == same and e.match in wide and e.case == "ignore" for e in entries):
            return entries
        narrower = [e for e in entries if not (inside and e.text.casefold() == same and e.match == "exact")]
        return [*narrower, Entry(text=word, match="word" if inside else "exact")]
    if verb == "vocabulary":
        known = any(same in (e.text.casefold(), *(a.casefold() for a in e.aliases)) for e in entries)
        return entries if known else [*entries, Entry(text=word)]
    if verb == "replace":
        if target.casefold() == same and target == word:
            raise ValidationError({"target": "That is the same word."})
        new = Entry(text=word, match="exact", replacement=target)
        rest = [e for e in entries if not (e.text.casefold() == same and e.match == "exact")]
        return [*rest, new] if new not in entries else entries
    return _aliased(entries, word, target)


def _aliased(entries: list[Entry], word: str, target: str) -> list[Entry]:
    if not target:
        raise ValidationError({"target": "An alias of which term?"})
    if target.casefold() == word.casefold():
        raise ValidationError({"target": f"{word!r} cannot be an alias of itself."})
    found = [e for e in entries if not (e.text.casefold() == word.casefold() and not e.aliases and e.match == "word")]
    at = next((i for i, e in enumerate(found) if e.text.casefold() == target.casefold()), None)
    if at is None:
        return [*found, Entry(text=target, aliases=(word,))]
    term = found[at]
    if word.casefold() not in (a.casefold() for a in term.aliases):
        found[at] = Entry.model_validate({**term.model_dump(), "aliases": (*term.aliases, word)})
    return found


def ban_everywhere(
    word: str,
    *,
    inside: bool = False,
    wordlist: Wordlist | None = None,
    run: Run | None = None,
    by: AbstractBaseUser | None = None,
) -> WordChange:
    """The tag never again. `inside`: also as a part of other tags ("mood lighting" where "mood" is banned) and in
    captions. Without a list the one that the run's policy uses, else a new one that it then uses."""
    return _change("ban", word, "", wordlist, run, by, f"Banned {word}", inside=inside)


def add_to_vocabulary(
    word: str, *, wordlist: Wordlist | None = None, run: Run | None = None, by: AbstractBaseUser | None = None
) -> WordChange:
    return _change("vocabulary", word, "", wordlist, run, by, f"Added {word}")


def make_alias(
    word: str,
    of: str,
    *,
    wordlist: Wordlist | None = None,
    run: Run | None = None,
    by: AbstractBaseUser | None = None,
) -> WordChange:
    """The word becomes another name of the term `of`, which is added where the list lacks it."""
    return _change("alias", word, of, wordlist, run, by, f"{word} means {of}")


def replace_by(
    word: str,
    new: str,
    *,
    wordlist: Wordlist | None = None,
    run: Run | None = None,
    by: AbstractBaseUser | None = None,
) -> WordChange:
    """The whole tag becomes another word; an empty one takes it out."""
    return _change("replace", word, new, wordlist, run, by, f"{word} becomes {new}" if new else f"{word} goes")


def undo_word(version: WordlistVersion, *, by: AbstractBaseUser | None = None) -> WordChange:
    """Take back what made this version of a list: the words of the version before it, as a new version.

    ValidationError under "version" when somebody saved a newer one since.
    """
    wordlist = version.wordlist
    current = wordlist.current
    if current is None or current.pk != version.pk:
        raise ValidationError({"version": f"{wordlist} was changed again since: go back on its own page."})
    before = wordlist.versions.filter(number__lt=version.number).order_by("-number").first()

    def save() -> WordlistVersion:
        message = f"Took back: {version.message}"[:200]
        return lists.save_wordlist(
            wordlist, before.entries if before else [], message=message, base=version.number, by=by
        )

    return _saved(save, wordlist, version.number, None, by)


def _change(
    verb: str,
    word: str,
    target: str,
    wordlist: Wordlist | None,
    run: Run | None,
    by: AbstractBaseUser | None,
    message: str,
    *,
    inside: bool = False,
) -> WordChange:
    kind = VERBS[verb]
    policy = policy_of(run)
    with transaction.atomic():
        wordlist = wordlist or _default_list(verb, policy)
        if wordlist.kind != kind:
            raise ValidationError({"wordlist": f"{wordlist.slug} is a {wordlist.kind} list, not a {kind} one."})
        current = wordlist.current
        entries = check_entries(current.entries if current else [], wordlist.kind)
        changed = changed_entries(verb, entries, word, target, inside=inside)
        number = current.number if current else 0

        def save() -> WordlistVersion:
            return lists.save_wordlist(wordlist, changed, message=" ".join(message.split())[:200], base=number, by=by)

        return _saved(save, wordlist, number, policy.policy, by)


def _default_list(verb: str, policy: PolicyVersion) -> Wordlist:
    found = choices(verb, policy)
    if found:
        return found[0].wordlist
    slug, name = FIRST_LISTS[VERBS[verb]]
    if Wordlist.objects.filter(slug=slug).exists():  # of another kind
        slug = f"{slug}-{VERBS[verb]}"
    return lists.create_wordlist(slug=slug, name=name, kind=VERBS[verb])


def _saved(
    save: Callable[[], WordlistVersion],
    wordlist: Wordlist,
    before: int,
    policy: Policy | None,
    by: AbstractBaseUser | None,
) -> WordChange:
    """The list's new version, and with it new versions of the policies that use it and of the one in question. All or
    nothing: a word that a policy cannot have is refused."""
    with transaction.atomic():
        version = save()
        follow = {v.policy_id: v for v in policies_using(wordlist)}
        if policy is not None and policy.pk not in follow:
            newest = current_policy_versions().get(policy.pk)
            if newest is not None:
                follow[policy.pk] = newest
        made = [use_in_policy(v, version, message=version.message, by=by) for v in follow.values()]
    return WordChange(version, before, [v for v in made if v.pk not in {f.pk for f in follow.values()}])
