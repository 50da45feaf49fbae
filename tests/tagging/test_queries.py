from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.http import QueryDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagging import queries
from tagging.models import ImageAsset, ImageTag, Proposal, Run, Tag, TagCount
from tagging.queries import ImageFilter, count_upto, filtered, next_in_queue, page, previous, review_counts, slices

from .world import collection, image, run_of

pytestmark = pytest.mark.django_db
SQLITE = pytest.mark.skipif(connection.vendor != "sqlite", reason="plans of SQLite")


@pytest.fixture
def trip():
    return collection()


@pytest.fixture
def run(trip):
    return run_of(trip)


def paths(trip, **f):
    return [i.path for i in page(filtered(trip, ImageFilter(**f)), size=100).items]


@pytest.fixture
def some(trip, run):
    """a: dog .9, cat .4 · b: dog .5, rejected cat · c: reviewed, explicit · d: error · e: missing · other: elsewhere"""
    made = {
        "a": image(trip, "2024/a.jpg", run=run, tags={"dog": 0.9, "cat": 0.4}, top_score=0.9, priority=1),
        "b": image(trip, "2024/b.jpg", run=run, tags={"dog": 0.5, "cat": 0.8}, top_score=0.5, priority=5),
        "c": image(
            trip, "2023/c.jpg", run=run, tags={"cat": 0.7}, top_score=0.7, review_state="reviewed", rating="explicit"
        ),
        "d": image(trip, "2023/d.jpg", state="error", error="truncated"),
        "e": image(trip, "2023/e.jpg", run=run, tags={"dog": 0.9}, missing_since=datetime(2024, 1, 1, tzinfo=UTC)),
        "other": image(collection("Other"), "other.jpg", tags={"dog": 0.9}),
    }
    ImageTag.objects.filter(image=made["b"], tag__name="cat").update(state=ImageTag.State.REJECTED)
    for name in ("a", "b"):
        Proposal.objects.create(run=run, image=made[name], state="ok")
    Proposal.objects.create(run=run, image=made["c"], state="error", error="no")
    Run.objects.filter(pk=run.pk).update(n_total=3)
    ImageAsset.objects.filter(pk=made["c"].pk).update(proposal_state="error", review_state="reviewed")
    return made


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        ({}, "abcd"),
        ({"sort": "-id"}, "dcba"),
        ({"tag": ("dog",)}, "ab"),
        ({"tag": ("DOG", "Cat")}, "a"),
        ({"tag": ("cat",)}, "ac"),
        ({"tag": ("dog",), "not_tag": ("cat",)}, "b"),
        ({"not_tag": ("dog",)}, "cd"),
        ({"not_tag": ("unheard of",)}, "abcd"),
        ({"tag": ("unheard of",)}, ""),
        ({"tag": ("dog",), "min_score": 0.6}, "a"),
        ({"tag": ("dog",), "max_score": 0.6}, "b"),
        ({"min_score": 0.6}, "ac"),
        ({"min_score": 0.6, "max_score": 0.8}, "c"),
        ({"review": "unreviewed"}, "bad"),
        ({"review": "unreviewed", "sort": "id"}, "abd"),
        ({"review": "reviewed"}, "c"),
        ({"review": "skipped"}, ""),
        ({"rating": "explicit"}, "c"),
        ({"rating": "explicit", "review": "reviewed"}, "c"),
        ({"errors": True}, "cd"),
        ({"errors": True, "review": "unreviewed"}, "d"),
        ({"missing": True}, "e"),
        ({"missing": True, "tag": ("dog",)}, "e"),
        ({"q": "2024/"}, "ab"),
        ({"q": "A.JPG"}, "a"),
        ({"q": "%"}, ""),
        ({"sort": "score"}, "acb"),
        ({"sort": "-score"}, "bca"),
        ({"sort": "score", "tag": ("cat",)}, "ac"),
        ({"tag": ("dog",), "review": "unreviewed"}, "ba"),
    ],
)
def test_filters_let_through_what_they_say(some, trip, f, expected, monkeypatch):
    ways = []
    for few in (5000, 0):  # whichever way is taken, the answer is the same
        monkeypatch.setattr(queries, "_SORTABLE", few)
        ways.append("".join(p[-5] for p in paths(trip, **f)))
    assert ways == [expected, expected]


def test_filters_by_run(some, trip, run, monkeypatch):
    for few in (5000, 0):
        monkeypatch.setattr(queries, "_SORTABLE", few)
        for sort in ("id", "queue"):
            assert sorted(paths(trip, run=run.pk, sort=sort)) == ["2023/c.jpg", "2024/a.jpg", "2024/b.jpg"]
            assert paths(trip, run=run.pk, errors=True, sort=sort) == ["2023/c.jpg"]
            assert paths(trip, run=run.pk, tag=("cat",), not_tag=("dog",), sort=sort) == ["2023/c.jpg"]
        assert paths(trip, run=run.pk + 1) == []


# -- parsing
def test_an_address_becomes_a_filter_and_back():
    text = "review=skipped&run=3&tag=a&tag=b+c&not_tag=d&min_score=0&max_score=0.5&rating=x&errors=1&q=y&sort=-id"
    f = ImageFilter.parse(QueryDict(text + "&cursor=zzz&size=9"))
    assert f == ImageFilter(
        review="skipped",
        run=3,
        tag=("a", "b c"),
        not_tag=("d",),
        min_score=0.0,
        max_score=0.5,
        rating="x",
        errors=True,
        q="y",
        sort="-id",
    )
    assert ImageFilter.parse(QueryDict(f.query_string())) == f
    assert f.query_string(tag=(), sort="") == text.replace("tag=a&tag=b+c&", "").replace("&sort=-id", "")
    assert ImageFilter.parse(QueryDict("")) == ImageFilter.parse({"review": " ", "tag": ["", " "]}) == ImageFilter()
    assert (f.active, ImageFilter(sort="id").active) == (True, False)


def test_the_order_in_effect():
    assert ImageFilter().order == "id"
    assert ImageFilter(review="reviewed").order == "queue"
    assert ImageFilter.parse({"sort": "queue"}).review == "unreviewed"


@given(st.dictionaries(st.sampled_from([*ImageFilter.__dataclass_fields__, "cursor"]), st.text(max_size=30)))
def test_any_text_is_a_filter_or_names_its_parameter(params):
    f, wrong = ImageFilter(), {}
    try:
        f = ImageFilter.parse(params)
    except ValidationError as e:
        wrong = e.message_dict
    assert set(wrong) <= set(params)
    assert ImageFilter.parse(QueryDict(f.query_string())) == f


# -- pages
@pytest.mark.parametrize("sort", ["id", "-id", "queue", "score", "-score"])
@pytest.mark.parametrize("tag", [(), ("dog",)])
def test_pages_meet_without_gap_or_overlap(trip, run, sort, tag):
    for i in range(23):
        image(trip, f"{i}.jpg", run=run, tags={"dog": 0.5}, priority=i % 3, top_score=(i * 7 % 5) / 5)
    f = ImageFilter.parse({"sort": sort, "tag": tag})
    everything = [i.pk for i in filtered(trip, f)]
    assert len(everything) == 23
    forth, cursors, cursor = [], [], ""
    while True:
        found = page(filtered(trip, f), cursor, 5)
        forth += [i.pk for i in found.items]
        cursors.append(found.prev_cursor)
        if not (cursor := found.next_cursor):
            break
    assert forth == everything
    back, cursor = [i.pk for i in found.items], found.prev_cursor
    while cursor:
        found = page(filtered(trip, f), cursor, 5)
        back = [i.pk for i in found.items] + back
        cursor = found.prev_cursor
    assert back == everything
    assert cursors[0] == ""


def test_an_image_that_leaves_the_filter_does_not_shift_pages(trip, run):
    made = [image(trip, f"{i}.jpg") for i in range(6)]
    f = ImageFilter(review="unreviewed")
    first = page(filtered(trip, f), size=2)
    ImageAsset.objects.filter(pk__in=[made[0].pk, made[1].pk]).update(review_state="reviewed")
    second = page(filtered(trip, f), first.next_cursor, 2)
    assert [i.pk for i in second.items] == [made[2].pk, made[3].pk]


def test_a_cursor_of_another_order_or_none_at_all_is_refused(trip):
    for i in range(4):
        image(trip, f"{i}.jpg", top_score=0.5)
    good = page(filtered(trip, ImageFilter()), size=1).next_cursor
    inside = ("{}", "null", "[]", '["id",0,"x"]', '["id",0,1e400]', '["id",0,true]', '["id",2,1]', '["id",0]')
    encoded = [base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in inside]
    for wrong in ("x", good[:-2], good + "A", "é", "=", *encoded):
        with pytest.raises(ValidationError) as e:
            page(filtered(trip, ImageFilter()), wrong)
        assert list(e.value.message_dict) == ["cursor"]
    with pytest.raises(ValidationError):
        page(filtered(trip, ImageFilter(sort="score")), good)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cursor=st.text(max_size=60))
def test_any_text_as_a_cursor_is_a_page_or_refused(trip, cursor):
    wrong = {}
    try:
        page(filtered(trip, ImageFilter()), cursor)
    except ValidationError as e:
        wrong = e.message_dict
    assert set(wrong) <= {"cursor"}


def test_slices_cover_all_once(trip, run):
    made = [image(trip, f"{i}.jpg", run=run, tags={"dog": 0.5}).pk for i in range(7)]
    for f in (ImageFilter(), ImageFilter(tag=("dog",)), ImageFilter(sort="-id"), ImageFilter(tag=("dog",), sort="-id")):
        assert list(slices(filtered(trip, f), 3)) == [made[:3], made[3:6], made[6:]]
    assert list(slices(ImageAsset.objects.order_by("-pk")[:4], 3)) == [made[3:6], made[6:]]


# -- the queue
def test_the_queue_goes_by_priority_then_age_and_round(trip):
    low, high, mid = (image(trip, f"{p}.jpg", priority=p) for p in (0, 9, 5))
    assert next_in_queue(trip) == high
    assert next_in_queue(trip, after=high) == mid
    assert next_in_queue(trip, after=low) == high  # from the start again
    ImageAsset.objects.filter(pk__in=[high.pk, low.pk]).update(review_state="reviewed")
    assert next_in_queue(trip, after=high.pk) == mid
    assert next_in_queue(trip, after=mid) is None  # never itself
    assert next_in_queue(trip, ImageFilter(review="reviewed"), after=mid) == low
    assert previous(trip, ImageFilter(sort="id"), mid) == high
    assert previous(trip, ImageFilter(sort="id"), low) is None


def test_what_is_missing_is_not_offered(trip):
    image(trip, "gone.jpg", missing_since=datetime(2024, 1, 1, tzinfo=UTC))
    assert next_in_queue(trip) is None


def test_upcoming_names_each_once(trip):
    made = [image(trip, f"{i}.jpg") for i in range(3)]
    assert queries.upcoming(trip, ImageFilter(sort="id"), made[1], 5) == [made[2], made[0]]
    assert queries.upcoming(trip, ImageFilter(sort="id"), made[1], 5, wrap=False) == [made[2]]
    assert queries.upcoming(trip, ImageFilter(sort="id"), 12345, 2) == made[:2]


# -- counts and tags
def test_counts(some, trip):
    assert review_counts(trip) == {"unreviewed": 3, "skipped": 0, "reviewed": 1, "auto": 0}
    everything = filtered(trip, ImageFilter())
    assert (count_upto(everything), count_upto(everything, 2)) == (4, 3)
    assert count_upto(filtered(trip, ImageFilter(tag=("dog",)))) == 2


def test_the_tags_of_a_page_take_two_queries(some, run, django_assert_num_queries):
    animal = Tag.objects.create(name="animal")
    Tag.objects.filter(name="dog").update(parent=animal)
    ids = [i.pk for i in some.values()]
    with django_assert_num_queries(2):
        found = queries.tags_of(ids)
    assert [(t.name, t.parent, t.score, t.in_force) for t in found[some["b"].pk]] == [
        ("cat", "", 0.8, False),
        ("dog", "animal", 0.5, True),
    ]
    assert found[some["d"].pk] == []


# -- plans
def plan(images):
    sql, params = images.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
        return [row[3] for row in cursor.fetchall()]


PLANS = {
    "the grid": ({}, 0, "image_grid (collection_id=?)"),
    "backwards": ({"sort": "-id"}, 0, "image_grid (collection_id=?)"),
    "the queue": ({"review": "unreviewed"}, 0, "image_queue (collection_id=? AND review_state=?)"),
    "a tag": ({"tag": ("t1",)}, 0, "COVERING INDEX imagetag_by_tag (tag_id=?)"),
    "x and not y": ({"tag": ("t1",), "not_tag": ("t2",)}, 0, "COVERING INDEX imagetag_by_tag (tag_id=?)"),
    "three tags": ({"tag": ("t1", "t2", "t3"), "not_tag": ("t4",)}, 0, "COVERING INDEX imagetag_by_tag (tag_id=?)"),
    "a common tag in the queue": (
        {"tag": ("t1",), "review": "unreviewed"},
        0,
        "image_queue (collection_id=? AND review_state=?)",
    ),
    "a rare tag in the queue": ({"tag": ("t1",), "review": "unreviewed"}, 9, "imagetag_by_tag (tag_id=?)"),
    "by score": ({"sort": "score"}, 0, "image_score (collection_id=? AND top_score>?)"),
    "few of a score": ({"min_score": 0.9}, 9, "image_score (collection_id=? AND top_score>?)"),
    "many of a score": ({"min_score": 0.1}, 0, "image_grid (collection_id=?)"),
    "many of a score in the queue": (
        {"min_score": 0.1, "review": "unreviewed"},
        0,
        "image_queue (collection_id=? AND review_state=?)",
    ),
    "errors": ({"errors": True}, 0, "image_errors (collection_id=?)"),
    "few errors in the queue": ({"errors": True, "review": "unreviewed"}, 9, "image_errors (collection_id=?)"),
    "missing": ({"missing": True}, 0, "image_missing (collection_id=?)"),
    "a rating": ({"rating": "explicit"}, 0, "image_rating (collection_id=? AND rating=?)"),
    "few of a rating in the queue": (
        {"rating": "explicit", "review": "unreviewed"},
        9,
        "image_rating (collection_id=? AND rating=?)",
    ),
    "a run": ({"run": 1}, 0, "(run_id=?)"),
    "errors of a run": ({"run": 1, "errors": True}, 0, "proposal_failed (run_id=?)"),
}


@SQLITE
@pytest.mark.parametrize("name", PLANS)
def test_no_filter_reads_a_table_from_end_to_end(trip, run, name, monkeypatch):
    f, few, first = PLANS[name]
    for i in range(1, 5):
        image(trip, f"{i}.jpg", run=run, tags={f"t{n}": 0.5 for n in range(1, 5)}, top_score=0.95, rating="explicit")
    ImageAsset.objects.update(proposal_state="error")
    monkeypatch.setattr(queries, "_SORTABLE", few)
    steps = plan(filtered(trip, ImageFilter.parse(f))[:51])
    assert first in steps[0], steps
    assert not any(step.startswith("SCAN") for step in steps), steps
    if not few:
        assert not any("TEMP B-TREE" in step for step in steps), steps


@SQLITE
@pytest.mark.parametrize("f", [{"review": "unreviewed"}, {"tag": ("t1",)}, {}, {"sort": "score"}])
def test_a_deep_page_begins_in_the_index(trip, run, f):
    """The bound of the cursor is part of the index search: what came before is not read."""
    for i in range(4):
        image(trip, f"{i}.jpg", run=run, tags={"t1": 0.5}, top_score=0.95)
    images = filtered(trip, ImageFilter.parse(f))
    order = tuple(images.query.order_by)
    deep = images.filter(queries._beyond(order, queries._values(images[1], order), False))
    first = plan(deep[:51])[0]
    assert first.count("<") + first.count(">") >= 1, first
    assert not any("TEMP B-TREE" in step for step in plan(deep[:51]))


@SQLITE
def test_counters_of_review_states_come_from_indexes(trip):
    from django.db.models import Count

    counted = ImageAsset.objects.filter(collection=trip).order_by().values_list("review_state").annotate(n=Count("pk"))
    assert "COVERING INDEX image_queue" in plan(counted)[0]


def test_the_rarest_tag_drives(trip, run):
    image(trip, "a.jpg", run=run, tags={"rare": 0.5, "common": 0.5})
    TagCount.objects.filter(tag__name="common").update(proposed=1000)
    rare = Tag.objects.get(name="rare").pk
    assert queries._driver(trip, ImageFilter(tag=("rare", "common")), [Tag.objects.get(name="common").pk, rare]) == (
        "tag",
        rare,
    )
