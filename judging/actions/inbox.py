"""Where a judge and people disagree: who was wrong? The judge's mistakes become its examples, ours are mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery

from tagging.actions import review
from tagging.actions.settle import DOOR
from tagging.models import ImageAsset, ImageTag, TagEdit

from ..judges.content import check_tag, check_text
from ..judges.statistics import in_holdout
from ..models import InboxAnswer, JudgedTag, JudgeProfile, JudgeProfileVersion
from .judges import MOST_EXAMPLES, change

Answer = InboxAnswer.Answer
Word = JudgedTag.Word
PAGE = 24


def disagreements(version: JudgeProfileVersion) -> QuerySet[JudgedTag]:
    """Tags that people decided the other way than this version and about which nobody has said who was wrong; the
    surest of the judge first. `truth` is the state that people gave."""
    truth = ImageTag.objects.filter(image=OuterRef("image"), tag=OuterRef("tag"))
    last = TagEdit.objects.filter(image=OuterRef("image"), tag=OuterRef("tag"), kind=TagEdit.Kind.TAG).order_by("-id")
    says_right = Q(word=Word.CORRECT)
    if version.rules.get("too_general", "correct") == "correct":
        says_right |= Q(word=Word.TOO_GENERAL)
        says_wrong = Q(word=Word.WRONG)
    else:
        says_wrong = Q(word__in=(Word.WRONG, Word.TOO_GENERAL))
    return (
        JudgedTag.objects.filter(
            version=version,
            role=JudgedTag.Role.CANDIDATE,
            tag__isnull=False,
            answer=None,
            image__review_state=ImageAsset.Review.REVIEWED,
        )
        .annotate(truth=Subquery(truth.values("state")[:1]), door=Subquery(last.values("door")[:1]))
        .filter((says_wrong & Q(truth__in=ImageTag.POSITIVE)) | (says_right & Q(truth=ImageTag.State.REJECTED)))
        .exclude(door=DOOR)
        .select_related("image__collection", "tag")
        .order_by("-certainty", "pk")
    )


def page(version: JudgeProfileVersion, cursor: str = "", size: int = PAGE) -> tuple[list[JudgedTag], str]:
    """Some disagreements and the cursor of the next; ValidationError under `cursor`."""
    rows = disagreements(version)
    if cursor:
        try:
            certainty, pk = cursor.split("_")
            at, last = float(certainty), int(pk)
        except ValueError:
            raise ValidationError({"cursor": "This is not a cursor of this list: begin without one."}) from None
        rows = rows.filter(Q(certainty__lt=at) | Q(certainty=at, pk__gt=last))
    found = list(rows[: size + 1])
    more = len(found) > size
    found = found[:size]
    return found, f"{found[-1].certainty!r}_{found[-1].pk}" if more else ""


def answer(judged_id: int, said: str, *, note: str = "", by: AbstractBaseUser | None = None) -> InboxAnswer:
    """Say who was wrong. Where the person was, the truth is turned round, as an ordinary decision that can be undone.

    Raises JudgedTag.DoesNotExist; ValidationError keyed by `answer`: an unknown word, answered already, or the tag is
    no longer decided on.
    """
    if said not in Answer.values:
        raise ValidationError({"answer": f"{said!r} is none of {', '.join(Answer.values)}."})
    judged = JudgedTag.objects.select_related("version__profile", "image", "tag").filter(pk=judged_id).first()
    if judged is None or judged.image_id is None or judged.tag_id is None:
        raise JudgedTag.DoesNotExist(f"There is no verdict {judged_id} on a tag of an image that is still there.")
    try:
        with transaction.atomic():
            row = InboxAnswer.objects.create(
                judged=judged,
                answer=said,
                note=check_text(note, 300).text,
                by=by,  # type: ignore[misc]
            )
            if said == Answer.PERSON_WRONG:
                _turn_round(judged, by)
    except IntegrityError:
        raise ValidationError({"answer": "Somebody has answered this already."}) from None
    return row


def _turn_round(judged: JudgedTag, by: AbstractBaseUser | None) -> None:
    state = ImageTag.objects.filter(image=judged.image_id, tag=judged.tag_id).values_list("state", flat=True).first()
    if state not in ImageTag.TRUTH:
        raise ValidationError({"answer": "Nobody's decision on this tag stands any more: nothing to mend."})
    verb = "reject" if state in ImageTag.POSITIVE else "accept"
    review.decide(judged.image_id or 0, by=by, door="inbox", **{verb: [judged.tag_id]})  # type: ignore[arg-type]


def examples_waiting(version: JudgeProfileVersion) -> list[InboxAnswer]:
    """Mistakes of the judge that can become its examples: not yet used, and not on images kept to measure with."""
    rows = InboxAnswer.objects.filter(
        judged__version__profile=version.profile_id, answer=Answer.JUDGE_WRONG, used_in=None
    ).select_related("judged__image", "judged__tag")
    return [row for row in rows.order_by("pk") if not in_holdout(row.judged.image.sha256 if row.judged.image else "f")]


def example_of(row: InboxAnswer) -> dict[str, Any] | None:
    """A mistake as the judge is shown it; None where the tag may not be put before a judge."""
    judged = row.judged
    checked = check_tag(judged.name)
    if checked.refused:
        return None
    word = "wrong" if judged.word != Word.WRONG else "correct"
    found: dict[str, Any] = {"tag": checked.text, "verdict": word, "image": judged.image.sha256 if judged.image else ""}
    said = check_text(judged.evidence, 200)
    if said.text and not said.refused:
        found["mistaken_evidence"] = said.text
    if row.note:
        found["note"] = row.note
    return found


def learn(profile: JudgeProfile, *, by: AbstractBaseUser | None = None) -> JudgeProfileVersion:
    """A new version of a judge that has the waiting mistakes as examples, the newest forty of all.

    The version is measured on images that none of them is from. ValidationError where there are none.
    """
    now = profile.current
    rows = examples_waiting(now) if now else []
    made: list[tuple[InboxAnswer, dict[str, Any]]] = [(row, e) for row in rows if (e := example_of(row))]
    if now is None or not made:
        raise ValidationError({"examples": "No mistake of the judge waits to become an example."})
    kept: Sequence[dict[str, Any]] = [*now.examples, *(e for _, e in made)][-MOST_EXAMPLES:]
    with transaction.atomic():
        version = change(profile, examples=kept, message=f"{len(made)} mistakes became examples", by=by)
        InboxAnswer.objects.filter(pk__in=[row.pk for row, _ in made]).update(used_in=version)
    return version
