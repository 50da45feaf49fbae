"""What of a collection to look at, as it stands in an address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import ValidationError

from .models import ImageAsset

SORTS = ("queue", "id", "-id", "score", "-score")
TEXT_LENGTH = 200
MAX_TAGS = 20


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """What of a collection to look at, as it stands in an address.

    review: unreviewed, skipped or reviewed. run: images of that run. tag, not_tag: names in force (proposed, accepted,
    added), all of the first and none of the second. min_score, max_score: of the named tags, else of the image's top
    score. rating. errors: unreadable files and failed proposals (of the run, if one is named). missing: vanished files,
    which are left out otherwise. q: text in the path. sort: queue (priority; means unreviewed when `review` is empty),
    id, -id, score (highest first), -score; without it the queue's order where `review` is given, else id.
    """

    review: str = ""
    run: int | None = None
    tag: tuple[str, ...] = ()
    not_tag: tuple[str, ...] = ()
    min_score: float | None = None
    max_score: float | None = None
    rating: str = ""
    errors: bool = False
    missing: bool = False
    q: str = ""
    sort: str = ""

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> ImageFilter:
        """From a QueryDict or a plain dict. Names it does not know are left to the caller; empty values count as not
        given. ValidationError keyed by the parameter."""

        def one(name: str) -> str:
            value = params.get(name)
            return "" if value is None else str(value).strip()

        review = _choice("review", one("review"), ImageAsset.Review.values)
        sort = _choice("sort", one("sort"), SORTS)
        scores = {name: _score(name, one(name)) for name in ("min_score", "max_score")}
        low, high = scores["min_score"], scores["max_score"]
        if low is not None and high is not None and low > high:
            raise ValidationError({"max_score": "The highest score lies below the lowest."})
        return cls(
            review=review or (ImageAsset.Review.UNREVIEWED.value if sort == "queue" else ""),
            run=_number("run", one("run")),
            tag=_names(params, "tag"),
            not_tag=_names(params, "not_tag"),
            min_score=low,
            max_score=high,
            rating=_text("rating", one("rating"), 32),
            errors=_flag("errors", one("errors")),
            missing=_flag("missing", one("missing")),
            q=_text("q", one("q"), TEXT_LENGTH),
            sort=sort,
        )

    @property
    def order(self) -> str:
        """The sort that is in effect."""
        return self.sort or ("queue" if self.review else "id")

    @property
    def active(self) -> bool:
        """Something is filtered; the order alone does not count."""
        return replace(self, sort="") != ImageFilter()

    def params(self, **changes: Any) -> list[tuple[str, str]]:
        """(name, value) pairs for an address, with `changes` applied; what is not set is left out."""
        pairs: list[tuple[str, str]] = []
        for name, value in asdict(replace(self, **changes)).items():
            if isinstance(value, (tuple, list)):
                pairs += [(name, str(v)) for v in value]
            elif value is True:
                pairs.append((name, "1"))
            elif value not in (None, "", False):
                pairs.append((name, str(value)))
            elif isinstance(value, float):
                pairs.append((name, f"{value:g}"))
        return pairs

    def query_string(self, **changes: Any) -> str:
        """For an address, without the question mark."""
        return urlencode(self.params(**changes))


def _choice(name: str, value: str, choices: Iterable[str]) -> str:
    if value and value not in choices:
        raise ValidationError({name: f"{value!r} is none of {', '.join(choices)}."})
    return value


def _text(name: str, value: str, length: int) -> str:
    if len(value) > length or "\x00" in value:
        raise ValidationError({name: f"At most {length} characters, none of them NUL."})
    return value


def _flag(name: str, value: str) -> bool:
    if (lower := value.lower()) in ("", "0", "false", "no", "off"):
        return False
    if lower in ("1", "true", "yes", "on"):
        return True
    raise ValidationError({name: f"{value!r} is neither true nor false."})


def _number(name: str, value: str) -> int | None:
    if not value:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise ValidationError({name: f"{value[:40]!r} is not a number of a {name}."})
    return int(value)


def _score(name: str, value: str) -> float | None:
    if not value:
        return None
    try:
        score = float(value)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ValidationError({name: f"{value[:40]!r} is not a score between 0 and 1."})
    return score


def _names(params: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = params.getlist(name) if hasattr(params, "getlist") else params.get(name) or ()
    given = [found] if isinstance(found, str) else found
    names = tuple(dict.fromkeys(text for v in given if (text := str(v).strip())))
    if len(names) > MAX_TAGS:
        raise ValidationError({name: f"At most {MAX_TAGS} tags at once."})
    for text in names:
        _text(name, text, TEXT_LENGTH)
    return names
