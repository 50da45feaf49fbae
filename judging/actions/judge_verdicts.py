"""Verdicts written: once each, with what was said of every tag, what run they are of, and the votes of pairs."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import IntegrityError, transaction

from tagging.models import Run, Tag
from tagging.policy.text import tag_key

from ..judges.family import kin
from ..judges.verifier import TagVerdict
from ..models import JudgedTag, JudgeJob, JudgeProfileVersion, JudgeVerdict, RunVerdict, Vote
from .judge_work import Draft, swapped

Role = JudgedTag.Role
WORDS = {
    "correct": JudgedTag.Word.CORRECT,
    "wrong": JudgedTag.Word.WRONG,
    "too_general": JudgedTag.Word.TOO_GENERAL,
    "unverifiable": JudgedTag.Word.UNVERIFIABLE,
}


def write(version: JudgeProfileVersion, drafts: Sequence[Draft], *, sample: int = 0) -> dict[str, JudgeVerdict]:
    """The verdicts of the drafts by their keys, those of others who were faster included. Within the caller's
    transaction. What has an error or nothing to judge is passed over."""
    found = {d.known.key: d.known for d in drafts if d.known}
    new = {d.key: d for d in drafts if d.key and not (d.known or d.error or d.nothing) and _filled(d)}
    for key in sorted(new):
        draft = new[key]
        verdict = _row(version, draft, sample)
        try:
            with transaction.atomic():
                verdict.save(force_insert=True)
        except IntegrityError:
            known = JudgeVerdict.objects.filter(key=key).first()
            if known is None:  # its image was deleted meanwhile
                verdict.image = None
                verdict.pk = None
                verdict.save(force_insert=True)
            else:
                found[key] = known
                continue
        found[key] = verdict
        _write_tags(version, verdict, draft)
    return found


def _filled(draft: Draft) -> bool:
    return bool(draft.state == JudgeVerdict.State.INVALID or draft.tags or draft.result or draft.outcome)


def _row(version: JudgeProfileVersion, draft: Draft, sample: int) -> JudgeVerdict:
    decided = [seat for seat in draft.seats if seat != "tie"]
    return JudgeVerdict(
        key=draft.key,
        version=version,
        image=draft.subject.image,
        image_sha256=draft.subject.image.sha256,
        kind=version.profile.kind,
        sample=sample,
        state=draft.state,
        problem=draft.problem[:300],
        subject=draft.content,
        result=draft.result,
        overall=draft.overall,
        weight=draft.weight,
        flags=list(dict.fromkeys(draft.flags)),
        outcome=draft.outcome,
        flip=draft.flip,
        first_seats=decided.count("first"),
        seats=len(decided),
        predictions=[reply.pk for reply in draft.replies],
        tokens_in=sum(reply.tokens_in or 0 for reply in draft.replies),
        tokens_out=sum(reply.tokens_out or 0 for reply in draft.replies),
        seconds=round(sum(reply.seconds for reply in draft.replies), 4),
    )


def _role(tag: TagVerdict) -> Role:
    if tag.role == "absent":
        return Role.ABSENT
    if tag.role == "present":
        return Role.PRESENT if tag.sure else Role.PRESUMED
    return Role.CANDIDATE


def _write_tags(version: JudgeProfileVersion, verdict: JudgeVerdict, draft: Draft) -> None:
    ids = dict(draft.subject.tag_ids)
    unknown = {tag_key(t.name) for t in draft.tags} - ids.keys()
    if unknown:
        ids.update(Tag.objects.filter(key__in=unknown).values_list("key", "pk"))
    JudgedTag.objects.bulk_create(
        [
            JudgedTag(
                verdict=verdict,
                version=version,
                image=verdict.image,
                tag_id=ids.get(tag_key(tag.name)),
                name=tag.name[:200],
                category=tag.category[:40],
                role=_role(tag),
                word=WORDS[tag.word],
                p_ok=tag.p_ok,
                certainty=round(abs(2 * tag.p_ok - 1), 4),
                evidence=tag.evidence[:320],
            )
            for tag in draft.tags
        ]
    )


def link(job: JudgeJob, version: JudgeProfileVersion, drafts: Sequence[Draft], found: dict[str, JudgeVerdict]) -> None:
    """Say of which run each verdict is, and write the votes of pairs. Again is harmless: what stands, stands."""
    families = version.families()
    rows, votes = [], []
    for draft in drafts:
        verdict = found.get(draft.key)
        if verdict is None:
            continue
        related = bool(kin(families, draft.subject.families))
        if draft.subject.run_id and job.subject == JudgeJob.Subject.PROPOSALS:
            image = draft.subject.image
            rows.append(
                RunVerdict(
                    run_id=draft.subject.run_id, image=image, version=version, verdict=verdict, own_family=related
                )
            )
        if job.subject == JudgeJob.Subject.PAIRS and not related and verdict.state == JudgeVerdict.State.OK:
            votes.append((draft, verdict))
    RunVerdict.objects.bulk_create(rows, ignore_conflicts=True)
    _vote(job, version, votes)


def _vote(job: JudgeJob, version: JudgeProfileVersion, pairs: Sequence[tuple[Draft, JudgeVerdict]]) -> None:
    """A vote for each pair that has none of this judge yet. A judge of a side's own family has no vote."""
    if not pairs:
        return
    run_ids = {d.subject.run_id for d, _ in pairs} | {d.subject.other_run_id for d, _ in pairs}
    recipes = dict(Run.objects.filter(pk__in=[i for i in run_ids if i]).values_list("pk", "recipe_id"))
    name = str(version)[:120]
    images = [draft.subject.image.pk for draft, _ in pairs]
    before = Vote.objects.filter(experiment=job.experiment_id, judge=name, image__in=images)
    have = set(before.values_list("image_id", "a_id", "b_id"))
    made = []
    for draft, verdict in pairs:
        subject = draft.subject
        mine, other = recipes[subject.run_id or 0], recipes[subject.other_run_id or 0]
        low, high = min(mine, other), max(mine, other)
        if low == high or (subject.image.pk, low, high) in have:
            continue
        have.add((subject.image.pk, low, high))
        # side a of the verdict is the set that comes first by content; side a of the vote the recipe made first
        winner = verdict.outcome or Vote.Winner.TIE
        if winner != Vote.Winner.TIE and swapped(subject) != (mine > other):
            winner = Vote.Winner.B if winner == Vote.Winner.A else Vote.Winner.A
        counts = {mine: len(subject.names), other: len(subject.other or ())}
        made.append(
            Vote(
                experiment=job.experiment,
                image=subject.image,
                a_id=low,
                b_id=high,
                winner=winner,
                first="b" if swapped(subject) != (mine > other) else "a",
                flipped=verdict.flip,
                judge=name,
                tags_a=counts[low],
                tags_b=counts[high],
                seconds=verdict.seconds,
            )
        )
    Vote.objects.bulk_create(made, ignore_conflicts=True)  # another job of this judge may be as far
