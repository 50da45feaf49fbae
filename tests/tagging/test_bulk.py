from __future__ import annotations

import re
import uuid

import pytest
from django.core.cache import cache

from tagging import queue
from tagging.models import Collection, ImageAsset, ImageTag, TagEdit
from tagging.views import bulk as bulk_module
from tagging.views import grid as grid_module

from .pages import collection, count, images, person, signed_in, states, tagged

pytestmark = pytest.mark.django_db
S = ImageTag.State


@pytest.fixture(autouse=True)
def _no_cache():
    cache.clear()


@pytest.fixture
def holiday() -> Collection:
    return collection()


def text_of(response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def confirmed(client, slug, **data):
    """The whole way: the confirmation page, then its own hidden fields posted back."""
    page = client.post(f"/c/{slug}/bulk/", data)
    assert page.status_code == 200, text_of(page)
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.content.decode()):
        fields.setdefault(name, []).append(value.replace("&amp;", "&"))
    return page, client.post(f"/c/{slug}/bulk/", {**fields, "confirmed": "1"}, follow=True)


@pytest.mark.parametrize("role", ["", "viewer"])
def test_only_reviewers_decide(holiday, role):
    (image,) = images(holiday, 1)
    client = signed_in(role)
    assert client.post("/c/holiday/bulk/", {"verb": "accept", "image": image.pk, "confirmed": 1}).status_code == 403
    assert client.post(f"/c/holiday/bulk/{uuid.uuid4()}/undo/").status_code == 403
    assert not TagEdit.objects.exists()


def test_only_by_post(holiday):
    assert signed_in("reviewer").get("/c/holiday/bulk/").status_code == 405
    assert signed_in("reviewer", "second").get(f"/c/holiday/bulk/{uuid.uuid4()}/undo/").status_code == 405


def test_forms_are_guarded_against_other_sites(holiday, client):
    from django.test import Client

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(person("reviewer"))
    assert strict.post("/c/holiday/bulk/", {"verb": "accept", "image": 1, "confirmed": 1}).status_code == 403


def test_the_confirmation_shows_what_would_change_and_changes_nothing(holiday):
    chosen = images(holiday, 3)
    for image in chosen:
        tagged(image, ["dog", "beach"])
    page = signed_in("reviewer").post("/c/holiday/bulk/", {"verb": "accept", "image": [i.pk for i in chosen[:2]]})
    html = page.content.decode()
    assert html.count('class="cell"') == 2
    assert "2 images" in text_of(page)
    assert "4 proposed tags are decided" in text_of(page)
    assert not TagEdit.objects.exists()


def test_accept_a_selection_and_undo_it(holiday):
    one, two, other = images(holiday, 3)
    for image in (one, two, other):
        tagged(image, ["dog"])
    count(holiday)
    client = signed_in("reviewer")
    _, done = confirmed(client, "holiday", verb="accept", image=[one.pk, two.pk], filter="tag=dog")
    assert done.redirect_chain[-1][0] == "/c/holiday/?tag=dog"
    assert "Accepted: 2 images changed." in text_of(done)
    assert states(one) == states(two) == {"dog": S.ACCEPTED}
    assert states(other) == {"dog": S.PROPOSED}
    assert set(ImageAsset.objects.filter(review_state="reviewed")) == {one, two}
    assert set(TagEdit.objects.values_list("door", flat=True)) == {"bulk"}

    action = re.search(r'action="(/c/holiday/bulk/[^"]+/undo/)"', done.content.decode()).group(1)
    undone = client.post(action, {"back": "/c/holiday/?tag=dog"}, follow=True)
    assert "Undone on 2 images." in text_of(undone)
    assert states(one) == {"dog": S.PROPOSED}
    assert ImageAsset.objects.filter(review_state="unreviewed").count() == 3
    assert "undone already" in text_of(client.post(action, follow=True))


def test_reject_everything_that_matches(holiday):
    dogs, cats = images(holiday, 2), images(holiday, 2)
    for image in dogs:
        tagged(image, ["dog"])
    for image in cats:
        tagged(image, ["cat"])
    count(holiday)
    page, _ = confirmed(signed_in("reviewer"), "holiday", verb="reject", scope="filter", filter="tag=dog")
    assert "tag dog" in text_of(page)
    assert [states(i)["dog"] for i in dogs] == [S.REJECTED, S.REJECTED]
    assert [states(i)["cat"] for i in cats] == [S.PROPOSED, S.PROPOSED]


def test_accept_above_leaves_the_rest_and_the_review_state(holiday):
    (image,) = images(holiday, 1)
    tagged(image, ["dog"], score=0.9)
    tagged(image, ["wolf"], score=0.4)
    page, _ = confirmed(signed_in("reviewer"), "holiday", verb="accept_above", min_score="0.5", image=image.pk)
    assert "1 proposed tag is decided" in text_of(page)
    assert states(image) == {"dog": S.ACCEPTED, "wolf": S.PROPOSED}
    image.refresh_from_db()
    assert image.review_state == "unreviewed"


def test_add_and_remove_tags(holiday):
    one, two = images(holiday, 2)
    tagged(one, ["dog"])
    client = signed_in("reviewer")
    pks = [one.pk, two.pk]
    confirmed(client, "holiday", verb="add", image=pks, tags=["Holiday, 2026"], tags_text="sea, sand")
    assert states(two) == {"Holiday, 2026": S.ADDED, "sea": S.ADDED, "sand": S.ADDED}
    confirmed(client, "holiday", verb="remove", image=pks, tags=["dog"], tags_text="sea")
    assert states(one) == {"dog": S.REJECTED, "Holiday, 2026": S.ADDED, "sand": S.ADDED}


def test_nothing_to_change_is_said(holiday):
    (image,) = images(holiday, 1)
    _, done = confirmed(signed_in("reviewer"), "holiday", verb="remove", image=image.pk, tags_text="never seen")
    assert "Nothing to change" in text_of(done)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"verb": "explode", "image": 1}, "verb"),
        ({"image": 1}, "verb"),
        ({"verb": "accept"}, "image"),
        ({"verb": "accept", "image": "one"}, "image"),
        ({"verb": "accept", "image": [str(n) for n in range(1, 2102)]}, "image"),
        ({"verb": "accept_above", "image": 1, "min_score": "1.2"}, "min_score"),
        ({"verb": "accept_above", "image": 1}, "min_score"),
        ({"verb": "add", "image": 1}, "tags"),
        ({"verb": "add", "image": 1, "tags": "x" * 300}, "tags"),
        ({"verb": "accept", "scope": "filter", "filter": "run=abc"}, "run"),
    ],
)
def test_bad_input_is_400_with_the_name_of_the_field(holiday, data, field):
    response = signed_in("reviewer").post("/c/holiday/bulk/", {**data, "confirmed": "1"})
    assert response.status_code == 400
    assert f"{field}:" in response.content.decode()


def test_images_of_another_collection_are_not_touched(holiday):
    (foreign,) = images(collection("Other"), 1)
    tagged(foreign, ["dog"])
    data = {"verb": "accept", "image": foreign.pk, "confirmed": "1"}
    signed_in("reviewer").post("/c/holiday/bulk/", data)
    assert states(foreign) == {"dog": S.PROPOSED}


def test_undo_through_another_collection_is_refused(holiday):
    (foreign,) = images(collection("Other"), 1)
    tagged(foreign, ["dog"])
    client = signed_in("reviewer")
    confirmed(client, "other", verb="accept", image=foreign.pk)
    batch = TagEdit.objects.values_list("batch", flat=True).first()
    response = client.post(f"/c/holiday/bulk/{batch}/undo/", {"back": "//elsewhere.example/"}, follow=True)
    assert "another collection" in text_of(response)
    assert response.redirect_chain[-1][0] == "/c/holiday/"
    assert states(foreign) == {"dog": S.ACCEPTED}


def test_many_go_through_the_queue_and_can_be_undone(holiday, monkeypatch):
    from tagging import tasks

    chosen = images(holiday, 5)
    for image in chosen:
        tagged(image, ["dog"])
    count(holiday)
    monkeypatch.setattr(bulk_module, "AT_ONCE", 4)
    rung: list[tuple] = []
    monkeypatch.setattr(queue, "defer", lambda *args, **kwargs: rung.append(args), raising=False)
    client = signed_in("reviewer")
    page, done = confirmed(client, "holiday", verb="accept", scope="filter", filter="tag=dog")
    assert "in the background" in text_of(page)
    assert "A worker will begin in a moment" in text_of(done)
    assert not TagEdit.objects.exists()

    ((task, *args),) = rung
    assert task == "tagging.tasks.bulk"
    tasks.bulk(*args)
    assert all(states(i) == {"dog": S.ACCEPTED} for i in chosen)
    assert set(TagEdit.objects.values_list("by__username", flat=True)) == {"reviewer"}
    tasks.bulk(*args)  # the doorbell may ring twice
    n = TagEdit.objects.count()

    status = done.redirect_chain[-1][0]
    assert f"{n} changes written" in text_of(client.get(status))
    monkeypatch.setattr(grid_module, "UNDO_AT_ONCE", 5)
    undone = client.post(f"{status}undo/", follow=True)
    assert "in the background" in text_of(undone)
    assert all(states(i) == {"dog": S.ACCEPTED} for i in chosen)
    task, *args = rung[-1]
    assert task == "tagging.tasks.undo"
    tasks.undo(*args)
    tasks.undo(*args)
    assert all(states(i) == {"dog": S.PROPOSED} for i in chosen)
