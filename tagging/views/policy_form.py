"""The form of a policy, drawn from PolicySpec in groups, and its rules in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.core.exceptions import ValidationError
from django.http import QueryDict

from prompts.models import Wordlist, WordlistVersion

from ..form_fields import SchemaField, shown
from ..forms import SchemaForm
from ..models import PolicyVersion
from ..policy.spec import CaptionRules, PolicySpec

#: (title, fields, kinds of lists that belong there, fields of the caption rules)
GROUPS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Reading and spelling", ("parse", "case", "underscores", "hyphens"), ("replacement",)),
    ("Words", ("banned", "forced", "triggers", "trigger_position"), ("banned", "forced", "trigger")),
    ("Vocabulary", ("vocabulary", "inflections", "similarity"), ("vocabulary",)),
    ("Thresholds", ("thresholds", "tag_thresholds", "hidden_categories"), ()),
    ("Limits", ("max_tags", "min_tags", "parents", "exclusive", "min_chars", "max_words"), ()),
    ("Order", ("order", "category_order"), ()),
)
KINDS = dict(Wordlist.Kind.choices)


@dataclass(frozen=True)
class ListChoice:
    """A wordlist that can be ticked. `used` is the version in the policy, `newest` the one that saving takes."""

    wordlist: Wordlist
    newest: WordlistVersion
    used: WordlistVersion | None
    ticked: bool

    @property
    def outdated(self) -> bool:
        return self.used is not None and self.used.number != self.newest.number


@dataclass
class Group:
    title: str
    fields: list[SchemaField]
    lists: list[tuple[str, list[ListChoice]]] = field(default_factory=list)

    @property
    def touched(self) -> bool:
        """Something in it is not as it is by default: it is drawn open."""
        defaults = PolicySpec()
        for one in self.fields:
            default = getattr(defaults, one.name, None)
            if default is None and "caption-" in one.html_name:
                default = getattr(defaults.caption, one.name)
            if one.errors or str(shown(default, one.kind)) != str(one.value):
                return True
        return any(choice.ticked for _, choices in self.lists for choice in choices)


class PolicyForm:
    """`version` is what the form begins with (None: the defaults); `data` what was posted; `prefix` goes before every
    input's name, where several are on a page."""

    def __init__(self, version: PolicyVersion | None, data: QueryDict | None = None, *, prefix: str = "") -> None:
        self.prefix = prefix
        spec = dict(version.spec) if version else {}
        self.version = version
        self.data = data
        self.rules = SchemaForm(PolicySpec, data=data, initial=spec, prefix=f"{prefix}rule-", start_word="saved")
        self.caption = SchemaForm(
            CaptionRules,
            data=data,
            initial=spec.get("caption") or {},
            prefix=f"{prefix}caption-",
            start_word="saved",
        )
        self.errors: dict[str, list[str]] = {}

    @cached_property
    def lists(self) -> list[ListChoice]:
        used = {v.wordlist_id: v for v in self.version.wordlists.all()} if self.version else {}
        wanted = set(self.data.getlist(f"{self.prefix}lists")) if self.data is not None else {str(pk) for pk in used}
        newest: dict[int, WordlistVersion] = {}
        rows = WordlistVersion.objects.select_related("wordlist").defer("entries").order_by("wordlist__slug", "number")
        for row in rows:
            newest[row.wordlist_id] = row
        return [ListChoice(v.wordlist, v, used.get(pk), str(pk) in wanted) for pk, v in newest.items()]

    @property
    def groups(self) -> list[Group]:
        found = []
        for title, names, kinds in GROUPS:
            lists = [(KINDS[kind], [c for c in self.lists if c.wordlist.kind == kind]) for kind in kinds]
            found.append(Group(title, [self.rules[name] for name in names], [(k, c) for k, c in lists if c]))
        found.append(Group("Caption", list(self.caption.fields)))
        return found

    def is_valid(self) -> bool:
        valid = self.rules.is_valid()
        return self.caption.is_valid() and valid

    @property
    def spec(self) -> dict[str, Any]:
        """The rules, JSON-ready. ValueError before a successful `is_valid()`."""
        return {**self.rules.cleaned, "caption": self.caption.cleaned}

    def chosen(self) -> list[WordlistVersion]:
        """The newest versions of the ticked lists, with their entries."""
        ids = [choice.newest.pk for choice in self.lists if choice.ticked]
        return list(WordlistVersion.objects.filter(pk__in=ids).select_related("wordlist"))

    @property
    def all_errors(self) -> list[str]:
        lines = [line for found in self.errors.values() for line in found]
        for form in (self.rules, self.caption):
            for name, found in form.errors.items():
                title = form[name].title if name in form.properties else ""
                lines += [f"{title}: {line}" if title else line for line in found]
        return lines

    def refuse(self, error: ValidationError) -> None:
        """Keep what an action refused: it concerns several fields together."""
        found = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        for name, lines in found.items():
            self.errors.setdefault(name, []).extend(lines)


# -- rules in words ----------------------------------------------------------------------------------------------------
def _titles() -> dict[str, SchemaField]:
    forms = (SchemaForm(PolicySpec), SchemaForm(CaptionRules, prefix="caption-"))
    found = {one.name: one for one in forms[0].fields if one.name != "caption"}
    return found | {f"caption.{one.name}": one for one in forms[1].fields}


def flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A stored spec with its defaults filled in, the caption's rules as caption.name."""
    whole = PolicySpec.model_validate(dict(spec)).model_dump(mode="json")
    caption = whole.pop("caption")
    return {**whole, **{f"caption.{name}": value for name, value in caption.items()}}


@dataclass(frozen=True)
class RuleChange:
    title: str
    old: str
    new: str


def rule_changes(old: PolicyVersion | None, new: PolicyVersion) -> list[RuleChange]:
    """What a version changed since another (None: since the defaults), a line a rule and a list."""
    titles = _titles()
    before, after = flat(old.spec if old else {}), flat(new.spec)
    found = []
    for name, one in titles.items():
        if before[name] != after[name]:
            found.append(RuleChange(_title(name, one), _words(one, before[name]), _words(one, after[name])))
    lists_before = _by_slug(old.wordlists.all() if old else ())
    lists_after = _by_slug(new.wordlists.all())
    for slug in sorted(lists_before.keys() | lists_after.keys()):
        a, b = lists_before.get(slug), lists_after.get(slug)
        if a != b:
            found.append(RuleChange(f"List {slug}", f"v{a}" if a else "not used", f"v{b}" if b else "not used"))
    return found


def _title(name: str, one: SchemaField) -> str:
    return f"Caption: {one.title}" if name.startswith("caption.") else one.title


def _by_slug(versions: Iterable[WordlistVersion]) -> dict[str, int]:
    return {v.wordlist.slug: v.number for v in versions}


def _words(one: SchemaField, value: Any) -> str:
    if value in (None, "", [], {}, ()):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if one.kind == "choice":
        return str(one.labels.get(value, value))
    return str(shown(value, one.kind)).replace("\n", "; ")
