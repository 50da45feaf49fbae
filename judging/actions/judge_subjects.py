"""What is put before a judge: images with tags, captions or pairs, and the decoys that fit each; a query for each kind
of thing, none for an image."""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from django.db.models import F, Max, Min, QuerySet

from tagging.models import Channel, ImageAsset, ImageTag, Proposal, Tag, TagCount
from tagging.policy.text import tag_key

from ..judges.content import seeded
from ..judges.rules import Proposed
from ..judges.verifier import Named
from ..models import JudgeJob, family_of

#: words of the collection that decoys are drawn from
POOL = 2000
#: how many of them are handed to the verifier for one image
DECOYS = 24
#: words of images that look alike are done without where so many others are left
FEWEST = 4
#: images of a collection that are compared with each one, and how many of their 64 bits the hashes have to differ in
SAMPLE, DIFFERENT = 48, 22
#: things of which a photograph shows hardly any, for collections with few words of their own
STRANGE = (
    "accordion",
    "anvil",
    "bagpipes",
    "chandelier",
    "chess board",
    "combine harvester",
    "dentist chair",
    "flamingo",
    "grand piano",
    "hot air balloon",
    "hourglass",
    "igloo",
    "jellyfish",
    "lighthouse",
    "microscope",
    "oil rig",
    "parachute",
    "periscope",
    "rocking horse",
    "saxophone",
    "sphinx",
    "submarine",
    "typewriter",
    "windmill",
)


@dataclass(slots=True)
class Subject:
    """One thing to judge. `place` is the cursor after it; `families` those of the models whose work it is."""

    image: ImageAsset
    place: int
    run_id: int | None = None
    proposed: Proposed = field(default_factory=lambda: Proposed(()))
    caption: str = ""
    reference: str = ""
    other: tuple[str, ...] | None = None  # of a pair: the second set of tags
    other_run_id: int | None = None
    tag_ids: dict[str, int] = field(default_factory=dict)  # by key
    given: set[str] = field(default_factory=set)  # keys of all tags that anybody gave this image
    truth: dict[str, int] = field(default_factory=dict)  # key → state, of people
    said_by: list[frozenset[str]] = field(default_factory=list)  # what each run proposed
    absent: list[Named] = field(default_factory=list)
    present: list[Named] = field(default_factory=list)
    families: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.proposed.tags]


def next_subjects(job: JudgeJob, n: int) -> list[Subject]:
    """The next `n` subjects of a job after its cursor, decoys and all."""
    if job.subject == JudgeJob.Subject.REVIEWED:
        subjects = _reviewed(job, n)
    else:
        subjects = _proposals(job, n)
        if job.subject == JudgeJob.Subject.PAIRS:
            _pair_up(job, subjects)
    if subjects:
        _surroundings(subjects)
        _decoys(subjects)
    return subjects


def count_subjects(job: JudgeJob) -> int:
    rows: QuerySet[Any] = _reviewed_images(job) if job.subject == JudgeJob.Subject.REVIEWED else _of_runs(job)
    return rows.count()


def _of_runs(job: JudgeJob) -> QuerySet[Proposal]:
    return Proposal.objects.filter(run__in=job.runs)


def _reviewed_images(job: JudgeJob) -> QuerySet[ImageAsset]:
    return ImageAsset.objects.filter(collection=job.collection_id).usable().decided_by_people()


def _proposals(job: JudgeJob, n: int) -> list[Subject]:
    rows = _of_runs(job).filter(pk__gt=job.cursor).order_by("pk").select_related("image__collection")[:n]
    found: list[Subject] = []
    for row in rows:
        kept = [(t[0], t[1], t[2]) for t in row.tags if t[3] != "dropped"]
        banned = [t[6] or t[0] for t in row.tags if t[3] == "dropped" and str(t[4]).startswith("banned")]
        proposed = Proposed(kept, row.state, tuple(row.flags), "", banned, row.caption)
        found.append(Subject(row.image, row.pk, row.run_id, proposed, row.caption, _reference(row.image)))
    families = families_of_runs({row.run_id for row in rows})
    for subject in found:
        subject.families = families.get(subject.run_id or 0, frozenset())
    return found


def _reference(image: ImageAsset) -> str:
    """The text a person approved."""
    states = ImageAsset.CaptionState
    return image.caption if image.caption_state in (states.ACCEPTED, states.EDITED) else ""


def families_of_runs(run_ids: Iterable[int]) -> dict[int, frozenset[str]]:
    """Whose models made each run. One query."""
    found: dict[int, set[str]] = {}
    rows = Channel.objects.filter(recipe__runs__in=list(run_ids))
    for run_id, config, options in rows.values_list("recipe__runs", "adapter_config", "options"):
        found.setdefault(run_id, set()).add(family_of(config, options))
    return {run_id: frozenset(names) for run_id, names in found.items()}


def _reviewed(job: JudgeJob, n: int) -> list[Subject]:
    """Images that a person reviewed, with every tag that was decided on, right or wrong."""
    images = list(_reviewed_images(job).filter(pk__gt=job.cursor).order_by("pk").select_related("collection")[:n])
    decided: dict[int, list[tuple[str, str, float | None]]] = {image.pk: [] for image in images}
    rows = ImageTag.objects.filter(image__in=images, state__in=ImageTag.TRUTH).order_by("tag__key")
    for image_id, name, category, score in rows.values_list("image_id", "tag__name", "tag__category", "score"):
        decided[image_id].append((name, category, score))
    families = families_of_runs({i.proposed_by_id for i in images if i.proposed_by_id})
    return [
        Subject(
            image,
            image.pk,
            None,
            Proposed(decided[image.pk], caption=image.caption),
            image.caption,
            _reference(image),
            families=families.get(image.proposed_by_id or 0, frozenset()),
        )
        for image in images
    ]


def _pair_up(job: JudgeJob, subjects: list[Subject]) -> None:
    """The other side of each pair: the newest proposal of the other runs on the same image; without one, no pair."""
    others: dict[int, Proposal] = {}
    rows = Proposal.objects.filter(run__in=job.others, image__in=[s.image.pk for s in subjects]).order_by("pk")
    for row in rows.exclude(state=Proposal.State.ERROR):
        others[row.image_id] = row
    families = families_of_runs(job.others)
    for subject in subjects:
        other = others.get(subject.image.pk)
        if other is not None and subject.proposed.state != Proposal.State.ERROR:
            subject.other = tuple(t[0] for t in other.tags if t[3] != "dropped")
            subject.other_run_id = other.run_id
            subject.families |= families.get(other.run_id, frozenset())


def _surroundings(subjects: list[Subject]) -> None:
    """Everything that anybody said of the images, and the ids of the judged tags."""
    by_image: dict[int, list[Subject]] = {}
    for subject in subjects:
        by_image.setdefault(subject.image.pk, []).append(subject)
        subject.given |= {tag_key(name) for name in [*subject.names, *(subject.other or ())]}
    rows = ImageTag.objects.filter(image__in=list(by_image))
    for image_id, key, state in rows.values_list("image_id", "tag__key", "state"):
        for subject in by_image[image_id]:
            subject.given.add(key)
            if state in ImageTag.TRUTH and subject.image.review_state == ImageAsset.Review.REVIEWED:
                subject.truth[key] = state
    said: dict[tuple[int, int], frozenset[str]] = {}
    proposals = Proposal.objects.filter(image__in=list(by_image)).exclude(state=Proposal.State.ERROR)
    for image_id, run_id, tags in proposals.values_list("image_id", "run_id", "tags"):
        said[image_id, run_id] = frozenset(tag_key(t[0]) for t in tags if t[3] != "dropped")
        everything = {tag_key(name) for t in tags for name in (t[0], t[6]) if name}
        for subject in by_image[image_id]:
            subject.given |= everything
    for (image_id, _), keys in said.items():
        for subject in by_image[image_id]:
            subject.said_by.append(keys)
    wanted = {tag_key(name) for subject in subjects for name in subject.names}
    ids = dict(Tag.objects.filter(key__in=wanted).values_list("key", "pk"))
    for subject in subjects:
        subject.tag_ids = {key: ids[key] for name in subject.names if (key := tag_key(name)) in ids}


# -- decoys -----------------------------------------------------------------------------------------------------------
def _decoys(subjects: list[Subject]) -> None:
    collections = {subject.image.collection_id for subject in subjects}
    pools = {pk: _pool(pk) for pk in collections}
    others = {pk: _others(pk) for pk in collections}
    names = dict(Tag.objects.filter(key__in={key for s in subjects for key in s.truth}).values_list("key", "name"))
    for subject in subjects:
        categories = {category for _, category, _ in subject.proposed.tags}
        pk = subject.image.collection_id
        subject.absent = absent_decoys(subject, pools[pk], categories, _unlike(subject.image, others[pk]))
        subject.present = _present(subject, names)


def _pool(collection_id: int) -> list[tuple[str, str, str, str]]:
    """The collection's most frequent words: (key, name, category, key of the parent)."""
    rows = (
        TagCount.objects.filter(collection=collection_id)
        .annotate(n=F("proposed") + F("accepted") + F("added"))
        .filter(n__gt=0)
        .order_by("-n", "tag_id")
    )
    return list(rows.values_list("tag__key", "tag__name", "tag__category", "tag__parent__key")[:POOL])


def _others(collection_id: int) -> list[tuple[int, frozenset[str]]]:
    """A sample of the collection's images, as (perceptual hash, keys of their tags). Begins at a place that follows
    from the collection alone: two short queries, whatever its size."""
    images = ImageAsset.objects.filter(collection=collection_id, phash__isnull=False).order_by("pk")
    ends = images.aggregate(first=Min("pk"), last=Max("pk"))
    if ends["first"] is None:
        return []
    source = seeded("unlike", collection_id)
    found: dict[int, int] = {}
    for _ in range(4):
        start = source.randint(ends["first"], ends["last"])
        found |= {
            pk: h for pk, h in images.filter(pk__gte=start).values_list("pk", "phash")[: SAMPLE // 4] if h is not None
        }
    if len(found) < SAMPLE // 2:
        found |= {pk: h for pk, h in images.values_list("pk", "phash")[:SAMPLE] if h is not None}
    given: dict[int, set[str]] = {pk: set() for pk in found}
    rows = ImageTag.objects.filter(image__in=list(found)).exclude(state=ImageTag.State.REJECTED)
    for pk, key in rows.values_list("image_id", "tag__key"):
        given[pk].add(key)
    return [(found[pk], frozenset(keys)) for pk, keys in sorted(given.items())]


def _unlike(image: ImageAsset, others: Sequence[tuple[int, frozenset[str]]]) -> dict[str, bool]:
    """Key → was it only on sampled images that look different? Of words on none of them nothing is known."""
    if image.phash is None:
        return {}
    found: dict[str, bool] = {}
    for phash, keys in others:
        far = ((image.phash ^ phash) & 0xFFFF_FFFF_FFFF_FFFF).bit_count() >= DIFFERENT
        for key in keys:
            found[key] = found.get(key, True) and far
    return found


def absent_decoys(
    subject: Subject,
    pool: Sequence[tuple[str, str, str, str | None]],
    categories: Names[str],
    unlike: Mapping[str, bool] = MappingProxyType({}),
) -> list[Named]:
    """Words of the collection that no model and no person gave this image, that share no word with one that was given,
    and that stand neither above nor below one; those of the judged categories first. Where the collection has too few,
    things that photographs hardly ever show.

    `unlike` tells of a word whether it was seen only on images that look different. Where enough words were, they alone
    are drawn from; else words of images that look alike are left out, as long as a few others are there: what is not
    tagged on one of a series may well be on it."""
    words = {word for key in subject.given for word in key.split() if len(word) > 2}
    parents = {parent for key, _, _, parent in pool if key in subject.given and parent}
    free = [
        Named(name, category)
        for key, name, category, parent in pool
        if key not in subject.given
        and key not in parents
        and (parent or "") not in subject.given
        and not words & set(key.split())
    ]
    source = seeded("absent", subject.image.sha256)
    apart = [tag for tag in free if unlike.get(tag_key(tag.name))]
    not_near = [tag for tag in free if unlike.get(tag_key(tag.name), True)]
    free = apart if len(apart) >= DECOYS else not_near if len(not_near) >= FEWEST else free
    same = [tag for tag in free if tag.category in categories]
    if len(same) < DECOYS:
        rest = [tag for tag in free if tag.category not in categories]
        same += source.sample(rest, min(len(rest), DECOYS - len(same)))
    if len(same) < DECOYS:
        taken = {tag_key(tag.name) for tag in same} | subject.given
        strange = [word for word in STRANGE if word not in taken and not words & set(word.split())]
        same += [Named(word) for word in source.sample(strange, min(len(strange), DECOYS - len(same)))]
    return source.sample(same, min(DECOYS, len(same)))


def _present(subject: Subject, names: dict[str, str]) -> list[Named]:
    """Tags that surely are in the image: those a person accepted; where there are none, those that all of several runs
    agree on (said so). The judged tags themselves can serve in another call than their own."""
    good = [k for k, state in subject.truth.items() if state in ImageTag.POSITIVE]
    if good:
        category = {tag_key(n): c for n, c, _ in subject.proposed.tags}
        return [Named(names.get(key, key), category.get(key, "general"), True) for key in sorted(good)]
    if len(subject.said_by) < 2:
        return []
    agreed = frozenset.intersection(*subject.said_by)
    shown = {tag_key(name): (name, category) for name, category, _ in subject.proposed.tags}
    return [Named(*shown.get(key, (key, "general")), False) for key in sorted(agreed)]
