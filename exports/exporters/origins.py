"""Where each tag of an image comes from, as sidecars say it in iwtag's own namespace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tagging.models import ImageTag, Run

from ..xmp.fields import Detail
from .lookups import Names
from .reading import NO_SCORE, SCALE, ImageRow, TagRow


class Origins:
    """Runs and reviewers by their names, each read once."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._recipes: dict[int, str] = {}

    def details(self, image: ImageRow, tags: Sequence[TagRow], name_of: Callable[[int], str]) -> tuple[Detail, ...]:
        """One for each tag. Model and recipe are empty where a person added it, the reviewer where nobody decided."""
        reviewer = self._names.person(image.reviewed_by)
        found = []
        for row in tags:
            model = self._names.run(row.run_id)[1]
            score = "" if row.rank == NO_SCORE else f"{-row.rank / SCALE:.4f}"
            decided = reviewer if row.state != ImageTag.State.PROPOSED else ""
            found.append(Detail(name_of(row.tag_id), model, self._recipe(row.run_id), score, decided))
        return tuple(found)

    def _recipe(self, run_id: int | None) -> str:
        """The beginning of the recipe's key, which is a hash of all that it does."""
        if run_id is None:
            return ""
        if run_id not in self._recipes:
            key = Run.objects.filter(pk=run_id).values_list("recipe__key", flat=True).first()
            self._recipes[run_id] = (key or "")[:16]
        return self._recipes[run_id]
