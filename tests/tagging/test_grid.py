from __future__ import annotations

import re

import pytest
from django.core.cache import cache
from django.utils import timezone

from tagging.models import Collection, ImageAsset, ImageTag, TagCount

from .pages import a_run, collection, count, images, person, signed_in, tagged

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_cache():
    cache.clear()


@pytest.fixture
def holiday() -> Collection:
    return collection()


def ids(response) -> list[int]:
    return [int(pk) for pk in re.findall(r'data-id="(\d+)"', response.content.decode())]


def link(response, rel: str) -> str:
    found = re.search(rf'<a [^>]*rel="{rel}" href="([^"]+)"', response.content.decode())
    return found.group(1).replace("&amp;", "&") if found else ""


# -- doors ---------------------------------------------------------------------------------------------------------
def test_strangers_sign_in_and_people_without_a_role_are_refused(client, holiday):
    assert client.get("/c/holiday/").status_code == 302
    client.force_login(person())
    assert client.get("/c/holiday/").status_code == 403


def test_a_viewer_sees_pictures_but_no_verbs(holiday):
    images(holiday, 2)
    html = signed_in("viewer").get("/c/holiday/").content.decode()
    assert "img0000.jpg" in html
    assert 'id="bulk"' not in html
    assert "Index again" not in html


def test_a_reviewer_gets_the_bar_and_a_curator_the_menu(holiday):
    images(holiday, 2)
    html = signed_in("reviewer").get("/c/holiday/").content.decode()
    assert 'id="bulk"' in html
    assert "Index again" not in html
    assert "Index again" in signed_in("curator").get("/c/holiday/").content.decode()


def test_an_unknown_collection_is_404():
    assert signed_in("viewer").get("/c/nowhere/").status_code == 404


# -- what is shown -------------------------------------------------------------------------------------------------
def test_states_are_marked_by_shape_and_word(holiday):
    one, two, three, four, five = images(holiday, 5)
    ImageAsset.objects.filter(pk=one.pk).update(review_state="reviewed")
    ImageAsset.objects.filter(pk=two.pk).update(review_state="skipped")
    ImageAsset.objects.filter(pk=three.pk).update(state="error", error="cut short")
    ImageAsset.objects.filter(pk=four.pk).update(proposal_state="error")
    html = signed_in("viewer").get("/c/holiday/").content.decode()
    for mark in ("reviewed", "skipped", "error", "failed"):
        assert f"mark-{mark}" in html
    assert "cut short" in html
    assert html.count('class="mark ') == 4  # the one that waits has none
    assert f'data-id="{five.pk}"' in html


def test_chips_show_states_decided_first_and_everything_is_escaped(holiday):
    (image,) = images(holiday, 1, path="<b>.jpg")
    tagged(image, ["<i>dog</i>", "cat"], score=0.7)
    tagged(image, ["beach"], ImageTag.State.ACCEPTED, score=0.2)
    tagged(image, ["gone"], ImageTag.State.REJECTED)
    html = signed_in("viewer").get("/c/holiday/").content.decode()
    assert "<i>dog" not in html
    assert "<b>.jpg" not in html
    assert "&lt;i&gt;dog" in html
    assert "gone" not in html
    assert html.index(">beach<") < html.index(">cat<")


def test_links_to_review_carry_the_filter(holiday):
    (image,) = images(holiday, 1)
    html = signed_in("viewer").get("/c/holiday/?review=unreviewed&q=img").content.decode()
    assert f'href="/images/{image.pk}/?review=unreviewed&amp;q=img"' in html


def test_empty_states_say_what_to_do(holiday):
    client = signed_in("curator")
    assert "Add images" in client.get("/c/holiday/").content.decode()
    images(holiday, 1)
    assert "No image matches" in client.get("/c/holiday/?q=nothing-like-it").content.decode()


# -- filters -------------------------------------------------------------------------------------------------------
def test_filters_in_the_address(holiday):
    dog, cat, both, plain, gone, broken = images(holiday, 6)
    tagged(dog, ["dog"], score=0.4)
    tagged(both, ["dog", "cat"], score=0.9)
    tagged(cat, ["cat"], ImageTag.State.ACCEPTED)
    tagged(plain, ["cat"], ImageTag.State.REJECTED)
    ImageAsset.objects.filter(pk=cat.pk).update(review_state="reviewed", rating="general")
    ImageAsset.objects.filter(pk=gone.pk).update(missing_since=timezone.now())
    ImageAsset.objects.filter(pk=broken.pk).update(state="error", error="zero bytes")
    count(holiday)
    client = signed_in("viewer")

    def shown(query: str) -> set[int]:
        response = client.get(f"/c/holiday/?{query}")
        assert response.status_code == 200, query
        return set(ids(response))

    assert shown("tag=dog") == {dog.pk, both.pk}
    assert shown("tag=dog&not_tag=cat") == {dog.pk}
    assert shown("tag=dog&tag=cat") == {both.pk}
    assert shown("tag=dog&min_score=0.5") == {both.pk}
    assert shown("review=reviewed") == {cat.pk}
    assert shown("rating=general") == {cat.pk}
    assert shown("missing=1") == {gone.pk}
    assert shown("errors=1") == {broken.pk}
    assert shown("q=img0003") == {plain.pk}
    assert shown("tag=unheard+of") == set()


@pytest.mark.parametrize(
    "query",
    ["min_score=2", "review=maybe", "run=x", "errors=perhaps", "sort=size", "cursor=%%%", "cursor=WzFd", "tag=%00"],
)
def test_bad_input_is_400_with_the_name_of_the_field(holiday, query):
    images(holiday, 1)
    response = signed_in("viewer").get(f"/c/holiday/?{query}")
    assert response.status_code == 400
    assert f"{query.partition('=')[0]}:" in response.content.decode()


def test_chips_remove_one_filter_and_keep_the_others(holiday):
    images(holiday, 1)
    html = signed_in("viewer").get("/c/holiday/?review=unreviewed&tag=dog&not_tag=cat&min_score=0.5").content.decode()
    words = dict(re.findall(r'<a class="word" href="\?([^"]*)">([^<]+) <', html))
    by_text = {text: query for query, text in words.items()}
    assert by_text["not cat"] == "review=unreviewed&amp;tag=dog&amp;min_score=0.5"
    assert by_text["tag dog"] == "review=unreviewed&amp;not_tag=cat&amp;min_score=0.5"
    assert set(by_text) == {"unreviewed", "tag dog", "not cat", "p ≥ 0.5"}


def test_facets_come_from_the_counters_and_toggle(holiday):
    a, b = images(holiday, 2)
    tagged(a, ["dog", "beach"])
    tagged(b, ["dog"])
    count(holiday)
    client = signed_in("viewer")
    html = client.get("/c/holiday/").content.decode()
    assert re.findall(r'class="facet" href="\?tag=(\w+)"', html) == ["dog", "beach"]
    html = client.get("/c/holiday/?tag=dog").content.decode()
    assert re.search(r'class="facet" href="\?" aria-current="true"', html)


def test_the_count_and_the_panel_come_on_demand(holiday):
    images(holiday, 3, rating="general")
    client = signed_in("viewer")
    assert client.get("/c/holiday/?part=count").content == b"3 images"
    assert client.get("/c/holiday/?part=count&q=img0001").content == b"1 image"
    a_run(holiday, list(ImageAsset.objects.all()))
    assert b"being tagged</a>" in client.get("/c/holiday/?part=count").content
    panel = client.get("/c/holiday/?part=panel").content.decode()
    assert 'name="not_tag"' in panel
    assert "<option>general</option>" in panel
    assert 'name="not_tag"' not in client.get("/c/holiday/").content.decode()


# -- pages ---------------------------------------------------------------------------------------------------------
def test_no_page_skips_or_repeats_while_rows_change(holiday):
    wanted = [image.pk for image in images(holiday, 150)]
    client = signed_in("viewer")
    response = client.get("/c/holiday/?review=unreviewed")
    seen = ids(response)
    assert len(seen) == 60
    # what was shown is decided, and new pictures arrive
    ImageAsset.objects.filter(pk__in=seen[:30]).update(review_state="reviewed")
    late = [image.pk for image in images(holiday, 5)]
    while following := link(response, "next"):
        response = client.get("/c/holiday/" + following)
        seen += ids(response)
    assert seen == [*wanted, *late]


def test_back_from_a_later_page(holiday):
    all_ids = [image.pk for image in images(holiday, 130)]
    client = signed_in("viewer")
    second = client.get("/c/holiday/" + link(client.get("/c/holiday/"), "next"))
    assert ids(second) == all_ids[60:120]
    first = client.get("/c/holiday/" + link(second, "prev"))
    assert ids(first) == all_ids[:60]


def test_endless_scrolling_gets_cells_only(holiday):
    images(holiday, 70)
    client = signed_in("viewer")
    html = client.get("/c/holiday/").content.decode()
    more = re.search(r'hx-get="([^"]+)" hx-trigger="revealed', html).group(1).replace("&amp;", "&")
    part = client.get("/c/holiday/" + more)
    assert len(ids(part)) == 10
    assert b"<html" not in part.content


@pytest.mark.parametrize("query", ["", "tag=dog", "tag=dog&review=unreviewed", "sort=score"])
def test_at_most_ten_queries(holiday, query, django_assert_max_num_queries):
    for image in images(holiday, 70, top_score=0.5):
        tagged(image, ["dog", "cat", "beach"])
    count(holiday)
    client = signed_in("reviewer")
    client.get("/c/holiday/")
    with django_assert_max_num_queries(10):
        assert len(ids(client.get(f"/c/holiday/?{query}"))) == 60


# -- tags ----------------------------------------------------------------------------------------------------------
def test_tags_by_use_in_keyset_pages(holiday):
    (image,) = images(holiday, 1)
    names = [f"tag {i:03}" for i in range(230)]
    tagged(image, names)
    count(holiday)
    TagCount.objects.filter(tag__name="tag 111").update(proposed=9)
    client = signed_in("viewer")
    seen, address = [], "/tags/?collection=holiday"
    while address:
        response = client.get(address)
        seen += re.findall(r'<th scope="row"><a [^>]*>([^<]+)</a>', response.content.decode())
        following = link(response, "next") or ""
        match = re.search(r'rel="next" href="([^"]+)"', response.content.decode())
        address = "/tags/" + match.group(1).replace("&amp;", "&") if match else following
    assert seen[0] == "tag 111"
    assert sorted(seen) == names


def test_tags_of_all_collections_say_where_they_are(holiday, django_assert_max_num_queries):
    other = collection("Other")
    for place in (holiday, other):
        (image,) = images(place, 1)
        tagged(image, ["dog"])
        count(place)
    client = signed_in("viewer")
    with django_assert_max_num_queries(9):
        html = client.get("/tags/?q=do").content.decode()
    assert 'href="/c/holiday/?tag=dog"' in html
    assert 'href="/c/other/?tag=dog"' in html
    assert "No tags like that" in client.get("/tags/?q=zebra").content.decode()


@pytest.mark.parametrize("cursor", ["x", "bnVsbA==", "WzEsMl0="])
def test_a_bad_cursor_of_tags_is_400(holiday, cursor):
    response = signed_in("viewer").get(f"/tags/?cursor={cursor}")
    assert response.status_code == 400
    assert b"cursor:" in response.content
