"""Votes of the judging room as preference pairs: of two recipes' answers for an image, the winner's and the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from django.db.models import QuerySet

from judging.models import ExperimentRun, Vote
from tagging.models import ImageAsset, Proposal

AT_ONCE = 200  # votes
Which = Literal["none", "people", "all"]


class Answer(NamedTuple):
    """What a recipe answered for an image; `tags` as a proposal keeps them."""

    run_id: int
    tags: list[list[Any]]
    caption: str


class Decided(NamedTuple):
    """One vote with its two answers. `said_by` is "vote" where a person voted, else "judge" with its version."""

    image_id: int
    said_by: str
    chosen: Answer
    rejected: Answer


def votes_on(images: QuerySet[ImageAsset], which: Which) -> QuerySet[Vote]:
    """Those with a winner, by id. A judge whose two orders disagreed has none."""
    found = Vote.objects.filter(image__in=images.order_by().values("pk")).exclude(winner=Vote.Winner.TIE)
    return (found if which == "all" else found.filter(judge="")).order_by("pk")


def decided(images: QuerySet[ImageAsset], which: Which) -> Iterator[list[Decided]]:
    """Pages of votes whose two answers are still known; three queries a page."""
    after = 0
    while page := list(votes_on(images, which).filter(pk__gt=after)[:AT_ONCE]):
        after = page[-1].pk
        answers = _answers(page)
        found = []
        for vote in page:
            a, b = (_of(answers, vote, recipe) for recipe in (vote.a_id, vote.b_id))
            if a and b:
                chosen, rejected = (a, b) if vote.winner == Vote.Winner.A else (b, a)
                said_by = f"judge {vote.judge}" if vote.judge else "vote"
                found.append(Decided(vote.image_id, said_by, chosen, rejected))
        yield found


def _answers(votes: Sequence[Vote]) -> dict[tuple[int | None, int, int], Answer]:
    """(experiment or None, image, recipe) → its answer; None stands for the newest run of the recipe, wherever."""
    recipes = {recipe for vote in votes for recipe in (vote.a_id, vote.b_id)}
    rows = Proposal.objects.filter(
        image__in={vote.image_id for vote in votes},
        run__recipe__in=recipes,
        run__sample=0,
        state=Proposal.State.OK,
    ).order_by("-id")
    shown = list(rows.values_list("image_id", "run__recipe_id", "run_id", "tags", "caption"))
    links = ExperimentRun.objects.filter(run__in={row[2] for row in shown}).values_list("run_id", "row__experiment_id")
    experiments: dict[int, list[int]] = {}
    for run_id, experiment_id in links:
        experiments.setdefault(run_id, []).append(experiment_id)
    found: dict[tuple[int | None, int, int], Answer] = {}
    for image_id, recipe_id, run_id, tags, caption in shown:
        answer = Answer(run_id, tags, caption)
        for experiment in (None, *experiments.get(run_id, ())):
            found.setdefault((experiment, image_id, recipe_id), answer)
    return found


def _of(answers: dict[tuple[int | None, int, int], Answer], vote: Vote, recipe: int) -> Answer | None:
    """What the vote was about: the experiment's own answer where it has one."""
    own = answers.get((vote.experiment_id, vote.image_id, recipe))
    return own or answers.get((None, vote.image_id, recipe))
