"""Entries of a wordlist and the text that people write them in, one entry a line (docs/wordlists.md).

    cat                          the word wherever it stands: also "black cat", never "cattle"
    =mood                        the whole tag only: not "mood lighting"
    *_hair   colou?r             wildcards, against the whole tag: * any characters, ? one
    /^\\d+girls?$/                a regular expression, searched in the tag
    colour -> color              a replacement ("colour ->" removes the word)
    dog = doggo, pup < animal @fauna !case # a note
                                 aliases, parent, category, upper and lower case count, note
    "=_="                        quoted: taken as it is

This module knows neither Django nor the database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import regex
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Kind = Literal["banned", "forced", "vocabulary", "replacement", "trigger"]
Match = Literal["word", "exact", "wildcard", "regex"]
MAX_TEXT = 500
MAX_ENTRIES = 500_000


class Entry(BaseModel):
    """One line of a list.

    `match` says how `text` finds tags: as whole words inside a tag, as the whole tag, as a wildcard pattern against the
    whole tag, or as a regular expression searched in it. Lists whose words are only ever written out (forced, trigger)
    ignore it. `case` "match" makes upper and lower case count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1, max_length=MAX_TEXT)
    match: Match = "word"
    case: Literal["ignore", "match"] = "ignore"
    aliases: tuple[str, ...] = ()
    parent: str = Field(default="", max_length=200)
    category: str = Field(default="", max_length=40)
    note: str = Field(default="", max_length=500)
    replacement: str | None = Field(default=None, max_length=MAX_TEXT)

    @field_validator("text", "parent", "category", "note", "replacement", mode="before")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        """Line breaks and tabs become spaces: an entry is one line."""
        return " ".join(value.split()) if isinstance(value, str) else value

    @field_validator("aliases", mode="before")
    @classmethod
    def _aliases(cls, value: Any) -> Any:
        """A comma-separated string is welcome; empty names and repetitions go."""
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(dict.fromkeys(name for v in value if (name := " ".join(v.split()))))
        return value

    @model_validator(mode="after")
    def _pattern(self) -> Entry:
        if self.match == "regex":
            try:
                regex.compile(self.text)
            except regex.error as error:
                raise ValueError(f"the regular expression does not compile: {error}") from None
        return self

    def as_json(self) -> dict[str, Any]:
        """What is stored: only what differs from the defaults, so that a list of plain words stays small."""
        return self.model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True, slots=True)
class LineProblem:
    """What is wrong with one line (counted from 1; 0: with the whole)."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


class WordlistError(ValueError):
    """A list cannot be used; `problems` names each line."""

    def __init__(self, problems: Sequence[LineProblem]) -> None:
        self.problems = list(problems)
        more = f" … and {len(self.problems) - 20} more" if len(self.problems) > 20 else ""
        super().__init__("; ".join(str(p) for p in self.problems[:20]) + more)


def check_entries(entries: Iterable[Entry | Mapping[str, Any] | str], kind: str) -> list[Entry]:
    """Validated entries for a list of `kind`, repetitions dropped. WordlistError counts entries from 1 as lines."""
    found: list[Entry] = []
    problems: list[LineProblem] = []
    for number, raw in enumerate(entries, 1):
        try:
            if isinstance(raw, str):
                raw = {"text": raw}
            entry = raw if isinstance(raw, Entry) else Entry.model_validate(raw)
        except ValidationError as error:
            problems.append(LineProblem(number, first_error(error)))
            continue
        if problem := _unfit(entry, kind):
            problems.append(LineProblem(number, problem))
        found.append(entry)
        if number > MAX_ENTRIES:
            problems.append(LineProblem(0, f"a list holds at most {MAX_ENTRIES:,} entries"))
            break
    if problems:
        raise WordlistError(problems)
    return list(dict.fromkeys(found))


def _unfit(entry: Entry, kind: str) -> str:
    """Why this entry makes no sense in a list of this kind, or nothing."""
    if kind == "replacement" and entry.replacement is None:
        return f"{entry.text!r} says no replacement: write `{entry.text} -> new text`"
    if kind != "replacement" and entry.replacement is not None:
        return f"{entry.text!r} has a replacement, but this is a {kind} list"
    if kind in ("forced", "trigger") and entry.match in ("wildcard", "regex"):
        return f"{entry.text!r} is a pattern; a {kind} word is written out"
    return ""


def first_error(error: ValidationError) -> str:
    """The first problem of a pydantic error as `field: message`."""
    item = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in item["loc"])
    text = re.sub(r"^Value error, ", "", item["msg"])
    return f"{where}: {text}" if where else text


# -- the text form ---------------------------------------------------------------------------------------------------
_QUOTED = re.compile(r'(?:(?<=^)|(?<=[\s,=@]))"((?:[^"\\]|\\.)*)"(?=[\s,]|$)')
_FIELD = re.compile(r"(?:^|\s)(?:(->|=|<|#)(?=\s|$)|(!case)(?=\s|$)|(@)(?=\S))")
_REGEX = re.compile(r"/(.+?)/(?=\s|$)")


def parse_entry(line: str, kind: str = "vocabulary") -> Entry:
    """One line of the text form as an Entry. ValueError says what is wrong with it.

    In lists whose words are only written out (forced, trigger) nothing is a pattern: `*` and `/` are themselves.
    """
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(match.group(1))
        return f"\x00{len(held) - 1}\x00"

    def plain(text: str, raw: bool = False) -> str:
        """The text with what stood in quotes put back (raw: quotes and all)."""

        def back(match: re.Match[str]) -> str:
            inner = held[int(match.group(1))]
            return f'"{inner}"' if raw else re.sub(r"\\(.)", r"\1", inner)

        return re.sub(r"\x00(\d+)\x00", back, text).strip()

    line = " ".join(line.replace("\x00", "").split())
    patterns = kind not in ("forced", "trigger")
    whole_regex = _REGEX.match(line) if patterns else None
    if whole_regex:
        text, rest, match = whole_regex.group(1), line[whole_regex.end() :], "regex"
        rest = _QUOTED.sub(hold, rest)
    else:
        rest = _QUOTED.sub(hold, line)
        first = _FIELD.search(rest, 1)
        head, rest = (rest[: first.start()], rest[first.start() :]) if first else (rest, "")
        exact = patterns and len(head) > 1 and head.startswith("=")
        head = head[1:] if exact else head
        text = plain(head)
        is_pattern = patterns and "\x00" not in head and not exact and ("*" in text or "?" in text)
        match = "wildcard" if is_pattern else "exact" if exact else "word"
    values = _fields(rest, plain)
    try:
        return Entry.model_validate({"text": text, "match": match, **values})
    except ValidationError as error:
        raise ValueError(first_error(error)) from None


def _fields(rest: str, plain: Callable[..., str]) -> dict[str, Any]:
    """Aliases, parent, category, replacement, case and note of what follows the word."""
    names = {"->": "replacement", "=": "aliases", "<": "parent", "@": "category", "#": "note"}
    values: dict[str, Any] = {}
    at = 0
    while (found := _FIELD.search(rest, at)) is not None:
        mark = found.group(1) or found.group(2) or found.group(3)
        if mark == "#":
            values["note"] = plain(rest[found.end() :], raw=True)
            break
        following = _FIELD.search(rest, found.end())
        value = rest[found.end() : following.start() if following else len(rest)]
        if mark == "!case":
            values["case"] = "match"
            if value.strip():
                raise ValueError(f"{plain(value)!r} after !case cannot be read")
        elif names[mark] in values:
            raise ValueError(f"`{mark}` stands twice")
        elif mark == "=":
            values["aliases"] = tuple(plain(part) for part in value.split(",") if part.strip())
        else:
            values[names[mark]] = plain(value)
        at = following.start() if following else len(rest)
    return values


def parse_text(text: str, kind: str = "vocabulary") -> list[Entry]:
    """All lines of the text form; empty lines and lines that begin with `# ` or `#` alone are comments.

    WordlistError names every line that cannot be read.
    """
    found: list[Entry] = []
    problems: list[LineProblem] = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        line = line.strip()
        if not line or line == "#" or line.startswith(("# ", "#\t")):
            continue
        try:
            entry = parse_entry(line, kind)
        except ValueError as error:
            problems.append(LineProblem(number, str(error)))
            continue
        if problem := _unfit(entry, kind):
            problems.append(LineProblem(number, problem))
        found.append(entry)
        if len(found) > MAX_ENTRIES:
            problems.append(LineProblem(0, f"a list holds at most {MAX_ENTRIES:,} entries"))
            break
    if problems:
        raise WordlistError(problems)
    return list(dict.fromkeys(found))


def format_entry(entry: Entry, kind: str = "vocabulary") -> str:
    """The line that `parse_entry` reads back as the same entry."""
    if kind in ("forced", "trigger"):
        parts = [_quoted(entry.text, first=True)]
    elif entry.match == "regex":
        parts = [f"/{_SLASH.sub(_slash, entry.text)}/"]
    elif entry.match == "wildcard" and ("*" in entry.text or "?" in entry.text):
        # a space matches an underscore, so the latter can stand for it
        parts = [entry.text.replace(" ", "_") if _FIELD.search(" " + entry.text) else entry.text]
    else:
        parts = [("" if entry.match == "word" else "=") + _quoted(entry.text, first=True)]
    if entry.aliases:
        parts.append("= " + ", ".join(_quoted(alias) for alias in entry.aliases))
    if entry.parent:
        parts.append("< " + _quoted(entry.parent))
    if entry.category:
        parts.append("@" + _quoted(entry.category))
    if entry.replacement is not None:
        parts.append(("-> " + _quoted(entry.replacement)).rstrip())
    if entry.case == "match":
        parts.append("!case")
    if entry.note:
        parts.append("# " + entry.note)
    return " ".join(parts)


def format_text(entries: Iterable[Entry], kind: str = "vocabulary") -> str:
    """The text form of a list, one entry a line."""
    return "".join(format_entry(entry, kind) + "\n" for entry in entries)


# a slash that would be read as the end of a regular expression; escapes are stepped over
_SLASH = re.compile(r"(\\.)|/(?=\s|$)")


def _slash(match: re.Match[str]) -> str:
    return match.group(1) if match.group(1) and match.group(1) != "\\/" else "\\x2f"


def _quoted(text: str, first: bool = False) -> str:
    """In quotes where the bare text would be read as something else."""
    unclear = any(sign in text for sign in '",\\') or _FIELD.search(" " + text) is not None
    if first:
        unclear = unclear or text[:1] in "=/#" or "*" in text or "?" in text
    else:
        unclear = unclear or text[:1] in "=<#@" or text.startswith(("->", "!case"))
    if not unclear or not text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
