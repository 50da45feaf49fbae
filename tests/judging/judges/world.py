"""A collection with a run, a truth, and a scripted judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from judging.actions.judges import change, make_ready, set_enabled
from judging.models import JudgeProfile
from tagging.actions import review
from tagging.actions.counts import Deltas
from tagging.models import (
    Channel,
    Collection,
    ImageAsset,
    ImageTag,
    ModelAdapter,
    Policy,
    PolicyVersion,
    Proposal,
    Recipe,
    Run,
    Tag,
)

NOTHING_SHOWN = {"absent": 2, "present": 1}


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def image(collection: Collection, name: str, **more: Any) -> ImageAsset:
    return ImageAsset.objects.create(collection=collection, path=name, sha256=sha(name), format="JPEG", **more)


def adapter(slug: str = "judge-model", **options: Any) -> ModelAdapter:
    return ModelAdapter.objects.create(slug=slug, label=slug, kind="scripted", options=options)


def recipe(slug: str = "wd", config: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe of one channel; by default a tagger's."""
    policy, _ = Policy.objects.get_or_create(slug="p", defaults={"name": "p"})
    version, _ = PolicyVersion.objects.get_or_create(policy=policy, number=1, defaults={"digest": "d"})
    made = Recipe.objects.create(key=sha(slug), policy_version=version, combine={"rule": "single"}, name=slug)
    row, _ = ModelAdapter.objects.get_or_create(slug=f"{slug}-model", defaults={"label": slug, "kind": "wd"})
    Channel.objects.create(recipe=made, name=slug, adapter=row, adapter_config=config or {"kind": "wd", "source": slug})
    return made


def run(
    collection: Collection,
    proposed: Mapping[str, Iterable[str]],
    *,
    of: Recipe | None = None,
    shown: bool = True,
    captions: Mapping[str, str] | None = None,
) -> Run:
    """A run that is done and proposed these tags (and captions) for the images of these names."""
    made = Run.objects.create(recipe=of or recipe(), collection=collection, shown=shown, n_total=len(proposed))
    deltas = Deltas()
    for name, tags in proposed.items():
        picture = ImageAsset.objects.filter(collection=collection, path=name).first() or image(collection, name)
        rows = [[tag, "general", 0.9, "kept", "", "wd", tag] for tag in tags]
        text = (captions or {}).get(name, "")
        state = "ok" if rows or text else "empty"
        Proposal.objects.create(run=made, image=picture, state=state, tags=rows, caption=text)
        if shown:
            ImageAsset.objects.filter(pk=picture.pk).update(proposed_by=made)
            for tag in tags:
                term, _ = Tag.objects.get_or_create(key=tag.casefold(), defaults={"name": tag})
                _, new = ImageTag.objects.get_or_create(
                    image=picture, tag=term, defaults={"state": ImageTag.State.PROPOSED, "run": made, "score": 0.9}
                )
                if new:
                    deltas.move(collection.pk, term.pk, None, ImageTag.State.PROPOSED)
    deltas.apply()
    return made


def judge(slug: str = "tag-verifier", rules: Mapping[str, Any] | None = None, **options: Any) -> JudgeProfile:
    """One of the judges that come with iwtag, asked of the scripted model."""
    make_ready()
    profile = JudgeProfile.objects.get(slug=slug)
    fields: dict[str, Any] = {"rules": dict(rules)} if rules is not None else {}
    change(profile, adapter=adapter(f"judge-model-{ModelAdapter.objects.count()}", **options), **fields)
    set_enabled(profile, True)
    return profile


def decide(collection: Collection, truth: Mapping[str, Iterable[str]], by: Any) -> None:
    """A person reviews the images: proposed tags that are in the truth are right, the others wrong."""
    for name, good in truth.items():
        picture = ImageAsset.objects.get(collection=collection, path=name)
        keys = {tag.casefold() for tag in good}
        rows = list(ImageTag.objects.filter(image=picture).select_related("tag"))
        review.decide(
            picture.pk,
            by=by,
            door="review",
            accept=[r.tag_id for r in rows if r.tag.key in keys],
            reject=[r.tag_id for r in rows if r.tag.key not in keys],
            review="reviewed",
        )
