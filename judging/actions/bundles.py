"""An experiment from a file that another installation wrote (`judging.bundles`).

Recipes that are not here are made, with models that are switched off: they can be compared, not run. Answers become
runs that are done; their cost and time come along, the replies do not, so that nothing is taken for an answer of a
model here. Decisions become truth where nobody has decided here; what was decided here stays.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, User
from django.core.exceptions import ValidationError
from django.db import DataError, transaction
from django.utils import timezone

from prompts.models import digest
from tagging.actions.many import Wish, decide_many
from tagging.actions.tags import resolve_tags
from tagging.models import Chunk, Collection, ImageAsset, ImageTag, Prediction, Proposal, Recipe, Run, Tag, TagAlias

from ..bundles import FORMAT, PREDICTION, VERSION
from ..images import MAX_IMAGES
from ..models import Experiment, ExperimentRecipe, ExperimentRun
from ..models.experiments import pack
from .bundle_recipes import recipe_of

DOOR = "import"
_STEP = 200


@dataclass(slots=True)
class Imported:
    """What came of a file. `kept_decisions`: decisions of the file that stand otherwise here, which stays."""

    experiment: Experiment
    images: int
    missing: int
    decisions: int
    kept_decisions: int
    recipes: list[Recipe] = field(default_factory=list)


def import_bundle(
    text: Iterable[str], collection: Collection, *, partial: bool = False, by: AbstractBaseUser | None = None
) -> Imported:
    """Read the lines of a bundle onto the images of a collection with the same content.

    One transaction: all of it or nothing. ValidationError under "file" for what is no bundle, and where images are not
    here; with `partial` the others are compared.
    """
    reader = _lines(text)
    header = next(reader, None)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValidationError({"file": "This is no experiment that iwtag wrote."})
    if header.get("version") != VERSION:
        raise ValidationError({"file": f"Version {header.get('version')!r} of the format is not known here."})
    try:
        with transaction.atomic():
            return _import(header, reader, collection, partial, by)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError, DataError) as e:
        raise ValidationError({"file": f"The file is damaged: {e!r}."}) from None


def _lines(text: Iterable[str]) -> Iterator[Any]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as e:
            raise ValidationError({"file": f"Line {number} is no JSON: {e}."}) from None


def _import(
    header: Mapping[str, Any],
    reader: Iterator[Any],
    collection: Collection,
    partial: bool,
    by: AbstractBaseUser | None,
) -> Imported:
    images = []
    for one in reader:
        images.append(one)
        if len(images) > MAX_IMAGES:
            raise ValidationError({"file": f"More than {MAX_IMAGES:,} images."})
    there = _matched([one["sha256"] for one in images], collection)
    found = [one for one in images if one["sha256"] in there]
    if len(found) < len(images) and (not partial or not found):
        first = next(one["path"] or one["sha256"][:12] for one in images if one["sha256"] not in there)
        raise ValidationError(
            {"file": f"{len(images) - len(found)} of {len(images)} images are not in {collection}, {first} for one: "
             "index the folder with them first."}
        )  # fmt: skip
    user = by if isinstance(by, User) and by.is_authenticated else None
    _vocabulary(header["words"])
    recipes = [recipe_of(row["recipe"], user) for row in header["rows"]]
    experiment = _experiment(header, collection, recipes, found, there, user)
    rows = _rows(experiment, header["rows"], recipes)
    _runs(experiment, rows, found, there, user)
    decided, kept = _decisions(found, there, by)
    return Imported(experiment, len(found), len(images) - len(found), decided, kept, recipes)


def _matched(digests: Sequence[str], collection: Collection) -> dict[str, int]:
    """sha256 → primary key of an image of the collection with that content."""
    found: dict[str, int] = {}
    for at in range(0, len(digests), 500):
        rows = ImageAsset.objects.filter(collection=collection, sha256__in=digests[at : at + 500]).order_by("-pk")
        found |= dict(rows.values_list("sha256", "pk"))
    return found


def _vocabulary(words: Mapping[str, Any]) -> None:
    """Tags and aliases that the words need to mean the same here; those that are here stay as they are."""
    by_category: dict[str, list[str]] = {}
    for name, category in words["tags"].values():
        by_category.setdefault(str(category), []).append(str(name))
    tags: dict[str, Any] = {}
    for category, names in by_category.items():
        for name, tag in resolve_tags(names, field="file", category=category).items():
            tags[name] = tag
    written = {key: pair[0] for key, pair in words["tags"].items()}
    for alias, key in words["aliases"].items():
        if key in written and not TagAlias.objects.filter(key=alias).exists() and not _is_tag(alias):
            TagAlias.objects.create(tag=tags[written[key]], name=alias)


def _is_tag(key: str) -> bool:
    return Tag.objects.filter(key=key).exists()


# -- the experiment and its runs --------------------------------------------------------------------------------------
def _experiment(
    header: Mapping[str, Any],
    collection: Collection,
    recipes: Sequence[Recipe],
    images: Sequence[Mapping[str, Any]],
    there: Mapping[str, int],
    by: User | None,
) -> Experiment:
    given = header["experiment"]
    plain = ("name", "question", "filter", "seed", "sample", "notices", "samples", "margin", "stage", "racing", "log")
    base = given["baseline"]
    by_position = {row["position"]: recipe for row, recipe in zip(header["rows"], recipes, strict=True)}
    experiment = Experiment(
        **{name: given[name] for name in plain},
        axes={"mode": "linked", "recipes": [recipe.pk for recipe in recipes]},
        collection=collection,
        baseline=by_position.get(base) if base is not None else None,
        state=Experiment.State.DONE,
        reached=min(int(given["reached"]), len(images)),
        finished_at=timezone.now(),
        created_by=by,
    )
    held = [at for at, one in enumerate(images) if one["held_out"]]
    experiment.freeze([(there[one["sha256"]], one["sha256"]) for one in images], held)
    experiment.save()
    return experiment


def _rows(
    experiment: Experiment, given: Sequence[Mapping[str, Any]], recipes: Sequence[Recipe]
) -> dict[int, ExperimentRecipe]:
    names = ("position", "name", "values", "dropped_at", "dropped_why")
    return {
        row["position"]: ExperimentRecipe.objects.create(
            experiment=experiment, recipe=recipe, **{name: row[name] for name in names}
        )
        for row, recipe in zip(given, recipes, strict=True)
    }


def _runs(
    experiment: Experiment,
    rows: Mapping[int, ExperimentRecipe],
    images: Sequence[Mapping[str, Any]],
    there: Mapping[str, int],
    by: User | None,
) -> None:
    """One run for each recipe and sample, done."""
    now = timezone.now()
    runs: dict[tuple[int, int], Run] = {}
    waiting: list[tuple[Run, int, str, Mapping[str, Any]]] = []
    for one in images:
        for cell in one["cells"]:
            key = (cell["row"], cell["sample"])
            if key not in runs:
                row = rows[key[0]]
                runs[key] = Run.objects.create(
                    recipe=row.recipe,
                    collection=experiment.collection,
                    name=f"{experiment} · {row.name}"[:160],
                    state=Run.State.DONE,
                    purpose=Run.Purpose.EXPERIMENT,
                    sample=key[1],
                    shown=False,
                    provider="import",
                    created_by=by,
                    started_at=now,
                    finished_at=now,
                )
                ExperimentRun.objects.create(row=row, run=runs[key], sample=key[1])
            waiting.append((runs[key], there[one["sha256"]], one["sha256"], cell))
        if len(waiting) >= 2000:
            _store(waiting)
            waiting = []
    _store(waiting)
    for run in runs.values():
        _close(run)


def _store(cells: Sequence[tuple[Run, int, str, Mapping[str, Any]]]) -> None:
    """Proposals, with what their answers took. The key of such a prediction is not that of an answer: a model here is
    never spared a question by a file."""
    took: dict[str, Prediction] = {}
    keys: list[str] = []
    for run, image, sha256, cell in cells:
        key = ""
        if cell["predictions"]:
            key = digest(["bundle", run.pk, image, sorted(str(one["key"]) for one in cell["predictions"])])
            took[key] = _took(key, sha256, run, cell["predictions"])
        keys.append(key)
    Prediction.objects.bulk_create(took.values(), ignore_conflicts=True, batch_size=500)
    there: dict[str, int] = {}
    wanted = list(took)
    for at in range(0, len(wanted), 500):
        there |= dict(Prediction.objects.filter(key__in=wanted[at : at + 500]).values_list("key", "pk"))
    Proposal.objects.bulk_create(
        [
            Proposal(
                run=run,
                image_id=image,
                state=cell["state"],
                tags=cell["tags"],
                caption=cell["caption"],
                error=cell["error"],
                prediction_id=there.get(key),
            )
            for (run, image, _, cell), key in zip(cells, keys, strict=True)
        ],
        batch_size=500,
        ignore_conflicts=True,
    )


def _took(key: str, sha256: str, run: Run, given: Sequence[Mapping[str, Any]]) -> Prediction:
    """Sums over the channels."""

    def total(name: str) -> Any:
        values = [one[name] for one in given if one[name] is not None]
        return sum(values) if values else None

    flags = sorted({str(flag) for one in given for flag in one["flags"] or ()})
    assert set(PREDICTION) <= set(given[0])
    return Prediction(
        key=key,
        image_sha256=sha256,
        run=run,
        seconds=total("seconds") or 0,
        tokens_in=total("tokens_in"),
        tokens_out=total("tokens_out"),
        cost=total("cost"),
        currency=next((one["currency"] for one in given if one["currency"]), ""),
        flags=flags,
        finish_reason=given[0]["finish_reason"],
    )


def _close(run: Run) -> None:
    """The one chunk that says which images it has, as every run's do."""
    rows = list(Proposal.objects.filter(run=run).order_by("image_id").values_list("image_id", "state"))
    states = [state for _, state in rows]
    Chunk.objects.create(
        run=run,
        queue="io",
        model_key="",
        lo=0,
        hi=len(rows),
        image_ids=pack(pk for pk, _ in rows),
        state=Chunk.State.DONE,
        n_ok=states.count("ok"),
        n_empty=states.count("empty"),
        n_error=states.count("error"),
        n_cached=len(rows) - states.count("error"),
        touched_at=timezone.now(),
    )
    Run.objects.filter(pk=run.pk).update(n_total=len(rows))


# -- decisions --------------------------------------------------------------------------------------------------------
def _decisions(
    images: Sequence[Mapping[str, Any]], there: Mapping[str, int], by: AbstractBaseUser | None
) -> tuple[int, int]:
    """(made, left as they are here). One batch: undone together."""
    batch = uuid.uuid4()
    made = kept = 0
    for at in range(0, len(images), _STEP):
        part = images[at : at + _STEP]
        names = {str(name) for one in part for name, _, _ in one["truth"]}
        tags = {name: tag.pk for name, tag in resolve_tags(names, field="file").items()}
        pks = [there[one["sha256"]] for one in part]
        captions = dict(ImageAsset.objects.filter(pk__in=pks).values_list("pk", "caption"))
        decided = _decided(pks)
        wishes = {}
        for one in part:
            pk = there[one["sha256"]]
            accept = {tags[name] for name, _, right in one["truth"] if right}
            reject = {tags[name] for name, _, right in one["truth"] if not right}
            kept += sum(1 for tag in accept if decided.get((pk, tag)) is False)
            kept += sum(1 for tag in reject if decided.get((pk, tag)) is True)
            reject = {tag for tag in reject if decided.get((pk, tag)) is not True}
            caption = (captions.get(pk, ""), one["caption"]) if one["caption"] and not captions.get(pk) else None
            wishes[pk] = Wish(accept=accept, reject=reject, caption=caption, reviewed=bool(one["reviewed"]))
        made += sum(granted.edits for granted in decide_many(wishes, by=by, door=DOOR, batch=batch).values())
    return made, kept


def _decided(images: Sequence[int]) -> dict[tuple[int, int], bool]:
    """(image, tag) → how people decided here."""
    rows = ImageTag.objects.decided_by_people().filter(image__in=images)
    return {(i, t): s in ImageTag.POSITIVE for i, t, s in rows.values_list("image_id", "tag_id", "state")}
