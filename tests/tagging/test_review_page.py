"""The review screen over HTTP: who may do what, the merge through the form, errors, queries, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tagging.actions.counts import rebuild
from tagging.actions.review import decide
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
    TagEdit,
)

pytestmark = pytest.mark.django_db
State = ImageTag.State
SCRIPT = {"HTTP_HX_REQUEST": "true", "HTTP_ACCEPT": "application/json"}


def person(name: str, role: str = "") -> Client:
    user = User.objects.create_user(name)
    if role:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def reviewer() -> Client:
    return person("rosa", "reviewer")


@pytest.fixture
def viewer() -> Client:
    return person("vera", "viewer")


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    root = tmp_path / "photos"
    root.mkdir()
    return Collection.objects.create(name="Holiday", slug="holiday", root=str(root))


@pytest.fixture
def run(collection: Collection) -> Run:
    adapter = ModelAdapter.objects.create(slug="lite", label="photo-lite", kind="photo-lite")
    policy = Policy.objects.create(slug="p", name="P")
    recipe = Recipe.objects.create(
        key="k", policy_version=PolicyVersion.objects.create(policy=policy, number=1, digest="d")
    )
    Channel.objects.create(recipe=recipe, adapter=adapter)
    return Run.objects.create(
        recipe=recipe, collection=collection, name="First run", state="done", finished_at=timezone.now()
    )


@pytest.fixture
def images(collection: Collection, run: Run) -> list[ImageAsset]:
    """Three images with the proposals dog, cat and "<b>bold</b>"."""
    tags = [
        Tag.objects.create(name="dog", category="animal", parent=Tag.objects.create(name="mammal", category="animal")),
        Tag.objects.create(name="cat", category="animal"),
        Tag.objects.create(name="<b>bold</b>", category="style"),
    ]
    made = []
    for n in range(3):
        image = ImageAsset.objects.create(
            collection=collection,
            path=f"{n}.jpg",
            sha256=f"{n}" * 64,
            format="JPEG",
            width=40,
            height=30,
            proposed_by=run,
            proposal_state="ok",
            caption="A dog.",
            caption_state="proposed",
        )
        for tag, score in zip(tags, (0.9, 0.5, 0.999), strict=True):
            ImageTag.objects.create(image=image, tag=tag, state=State.PROPOSED, run=run, score=score)
        Proposal.objects.create(run=run, image=image, state="ok", tags=[["dog", "animal", 0.9, "kept", "", ""]])
        made.append(image)
    rebuild(collection)
    return made


def ids(*names: str) -> list[int]:
    return [Tag.objects.get(name=name).pk for name in names]


def states(image: ImageAsset) -> dict[str, int]:
    return dict(image.image_tags.values_list("tag__name", "state"))


def url(image: ImageAsset, name: str = "decide", query: str = "") -> str:
    return reverse(f"tagging:{name}", args=[image.pk]) + query


def queries_of(client: Client, method: str, address: str, data: dict | None = None, **extra: str) -> list[str]:
    """The statements of one request, without those that open and close transactions."""
    with CaptureQueriesContext(
        connection,
    ) as captured:
        response = getattr(client, method)(address, data or {}, **extra)
    assert response.status_code in (200, 204, 302), response.content
    return [q["sql"] for q in captured if not re.match(r"(RELEASE |ROLLBACK |)SAVEPOINT|BEGIN|COMMIT", q["sql"])]


# -- who may ----------------------------------------------------------------------------------------------------------
PAGES = ("review", "review_more", "review_tags", "original")


@pytest.mark.parametrize("name", PAGES)
def test_strangers_are_asked_to_sign_in(client: Client, images: list[ImageAsset], name: str) -> None:
    response = client.get(url(images[0], name), HTTP_ACCEPT="text/html")
    assert response.status_code == 302
    assert response["Location"].startswith("/login/?next=")


@pytest.mark.parametrize("name", PAGES)
def test_people_without_a_role_get_a_readable_refusal(images: list[ImageAsset], name: str) -> None:
    response = person("nora").get(url(images[0], name))
    assert response.status_code == 403
    assert "has no role yet" in response.content.decode()


def test_a_script_whose_session_ended_is_sent_to_the_sign_in_page(client: Client, images: list[ImageAsset]) -> None:
    response = client.post(
        url(images[0]), {"verb": "accept"}, HTTP_HX_CURRENT_URL="http://x/images/1/?review=unreviewed", **SCRIPT
    )
    assert response.status_code == 401
    assert response["HX-Redirect"] == "/login/?next=/images/1/%3Freview%3Dunreviewed"


def test_a_viewer_sees_everything_and_decides_nothing(viewer: Client, images: list[ImageAsset]) -> None:
    page = viewer.get(url(images[0], "review")).content.decode()
    assert "dog" in page
    assert 'name="verb"' not in page
    assert 'name="reject"' not in page
    assert viewer.post(url(images[0]), {"verb": "accept"}).status_code == 403
    assert viewer.post(reverse("tagging:undo")).status_code == 403
    assert states(images[0])["dog"] == State.PROPOSED


def test_decisions_are_only_posted(reviewer: Client, images: list[ImageAsset]) -> None:
    assert reviewer.get(url(images[0])).status_code == 405
    assert reviewer.get(reverse("tagging:undo")).status_code == 405
    assert reviewer.post(url(images[0], "review")).status_code == 405


def test_decisions_need_the_token_of_the_page(images: list[ImageAsset]) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.create_superuser("root"))
    refused = strict.post(url(images[0]), {"verb": "accept"}, **SCRIPT)
    assert refused.status_code == 403
    assert "This page was too old" in refused.content.decode()
    assert states(images[0])["dog"] == State.PROPOSED


# -- the page ---------------------------------------------------------------------------------------------------------
def test_it_shows_tags_escaped_with_probability_parent_and_state(reviewer: Client, images: list[ImageAsset]) -> None:
    page = reviewer.get(url(images[0], "review")).content.decode()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    assert '<span class="chip-p">0.90</span>' in page
    assert '<span class="chip-p">0.99</span>' in page  # 0.999 is not certain
    assert '<span class="chip-parent">mammal ›</span>' in page
    assert page.count('data-state="proposed"') == 3
    assert f'rel="prefetch" as="image" href="/media/thumb/{"1" * 64}/1024.webp"' in page
    assert f'href="/media/thumb/{"2" * 64}/1024.webp"' in page


def test_a_script_gets_the_content_alone(reviewer: Client, images: list[ImageAsset]) -> None:
    page = reviewer.get(url(images[0], "review"), HTTP_HX_REQUEST="true").content.decode()
    assert "<html" not in page
    assert "<title>0.jpg · Holiday · iwtag</title>" in page


def test_it_walks_within_the_filter(reviewer: Client, images: list[ImageAsset], collection: Collection) -> None:
    ImageTag.objects.filter(image=images[1], tag__name="dog").update(state=State.REJECTED)
    page = reviewer.get(url(images[0], "review", "?tag=dog")).content.decode()
    assert f'data-next="/images/{images[2].pk}/?tag=dog"' in page
    last = reviewer.get(url(images[2], "review", "?tag=dog")).content.decode()
    assert f'data-next="/c/holiday/review/?tag=dog&amp;after={images[2].pk}"' in last
    back = reviewer.get(url(images[2], "review", "?tag=dog&go=previous"))
    assert back["Location"] == f"/images/{images[0].pk}/?tag=dog"
    end = reviewer.get(f"/c/holiday/review/?tag=dog&after={images[2].pk}").content.decode()
    assert "That was the last one" in end


def test_the_queue_leads_to_the_first_unreviewed_image(
    reviewer: Client, images: list[ImageAsset], collection: Collection
) -> None:
    ImageAsset.objects.filter(pk=images[0].pk).update(review_state="reviewed")
    ImageAsset.objects.filter(pk=images[2].pk).update(priority=5)
    response = reviewer.get("/c/holiday/review/")
    assert response["Location"] == f"/images/{images[2].pk}/?review=unreviewed"
    # behind the end it begins again, with what was passed over
    again = reviewer.get(f"/c/holiday/review/?review=unreviewed&after={images[1].pk}")
    assert again["Location"] == f"/images/{images[2].pk}/?review=unreviewed"


def test_the_queue_says_when_all_is_done(reviewer: Client, images: list[ImageAsset], collection: Collection) -> None:
    ImageAsset.objects.update(review_state="reviewed")
    ImageAsset.objects.filter(pk=images[0].pk).update(review_state="skipped")
    page = reviewer.get("/c/holiday/review/").content.decode()
    assert "All reviewed" in page
    assert "2 of 3 images of Holiday are reviewed, 1 were skipped" in page
    assert "?review=skipped" in page


@pytest.mark.parametrize("query", ["?min_score=abc", "?run=x", "?review=maybe", "?after=99999999999999999999999"])
def test_nonsense_in_the_address_is_no_server_error(reviewer: Client, images: list[ImageAsset], query: str) -> None:
    assert reviewer.get(url(images[0], "review", query)).status_code == 200
    assert reviewer.get("/c/holiday/review/" + query).status_code in (200, 302)


def test_an_image_that_is_gone_is_a_404(reviewer: Client, collection: Collection) -> None:
    for name in (*PAGES, "decide"):
        address = reverse(f"tagging:{name}", args=[99])
        response = reviewer.post(address) if name == "decide" else reviewer.get(address)
        assert response.status_code == 404
    assert reviewer.get("/c/nothing/review/").status_code == 404


def test_unreadable_missing_failed_and_waiting_images_say_so(
    reviewer: Client, images: list[ImageAsset], run: Run
) -> None:
    broken, gone, failed = images
    ImageAsset.objects.filter(pk=broken.pk).update(state="error", error="Cut off after <12> KB.", proposal_state="")
    ImageAsset.objects.filter(pk=gone.pk).update(missing_since=timezone.now())
    ImageAsset.objects.filter(pk=failed.pk).update(proposal_state="error")
    Proposal.objects.filter(image=failed).update(state="error", error="Out of memory.")
    assert "Cut off after &lt;12&gt; KB." in reviewer.get(url(broken, "review")).content.decode()
    assert "The file is missing since" in reviewer.get(url(gone, "review")).content.decode()
    page = reviewer.get(url(failed, "review")).content.decode()
    assert "Out of memory." in page
    assert run.get_absolute_url() in page


def test_it_waits_for_a_run_that_is_going(reviewer: Client, images: list[ImageAsset], run: Run) -> None:
    image = images[0]
    ImageTag.objects.filter(image=image).delete()
    ImageAsset.objects.filter(pk=image.pk).update(proposal_state="", proposed_by=None, caption="", caption_state="")
    assert "No model has looked at this image yet" in reviewer.get(url(image, "review")).content.decode()
    Run.objects.update(state="running", finished_at=None)
    page = reviewer.get(url(image, "review")).content.decode()
    assert "First run</a> is going" in page
    assert 'hx-trigger="every 2s"' in page
    assert reviewer.get(url(image, "review_tags")).status_code == 204
    Run.objects.update(state="done", finished_at=timezone.now())
    done = reviewer.get(url(image, "review_tags"))
    assert done.status_code == 200
    assert b"every 2s" not in done.content


# -- decisions --------------------------------------------------------------------------------------------------------
def test_each_chip_asks_for_what_follows_from_its_state(reviewer: Client, images: list[ImageAsset]) -> None:
    dog, cat = ids("dog", "cat")
    seen = ",".join(map(str, ids("dog", "cat", "<b>bold</b>")))
    answer = reviewer.post(url(images[0]), {"reject": dog, "seen": seen}, **SCRIPT).json()
    assert answer["conflicts"] == 0
    assert states(images[0]) == {"dog": State.REJECTED, "cat": State.PROPOSED, "<b>bold</b>": State.PROPOSED}
    page = reviewer.get(url(images[0], "review")).content.decode()
    assert f'name="accept" value="{dog}" data-state="rejected"' in page
    assert f'name="reject" value="{cat}" data-state="proposed"' in page
    reviewer.post(url(images[0]), {"accept": dog, "seen": seen}, **SCRIPT)
    assert states(images[0])["dog"] == State.ACCEPTED
    answer = reviewer.post(url(images[0]), {"add": "Puppy", "seen": seen}, **SCRIPT).json()
    puppy = Tag.objects.get(key="puppy").pk
    assert f'name="clear" value="{puppy}" data-state="added" data-own=""' in answer["tags"]
    reviewer.post(url(images[0]), {"clear": puppy, "seen": f"{seen},{puppy}"}, **SCRIPT)
    assert "Puppy" not in states(images[0])


def test_the_form_merges_with_what_others_did(reviewer: Client, images: list[ImageAsset]) -> None:
    dog, cat, bold = ids("dog", "cat", "<b>bold</b>")
    seen = f"{dog},{cat},{bold}"
    decide(images[0].pk, by=None, door="api", reject=[cat], add=["kennel"])
    answer = reviewer.post(url(images[0]), {"verb": "accept", "seen": seen}, **SCRIPT).json()
    assert states(images[0]) == {
        "dog": State.ACCEPTED,
        "cat": State.REJECTED,  # theirs stays
        "<b>bold</b>": State.ACCEPTED,
        "kennel": State.ADDED,
    }
    assert answer["conflicts"] == 2
    assert answer["tags"].count("data-conflict") == 2
    assert "changed by somebody else" in answer["tags"]


def test_a_tag_that_was_not_shown_is_not_accepted(reviewer: Client, images: list[ImageAsset]) -> None:
    dog, cat, bold = ids("dog", "cat", "<b>bold</b>")
    reviewer.post(url(images[0]), {"verb": "accept", "seen": f"{dog},{cat}"}, **SCRIPT)
    assert states(images[0])["<b>bold</b>"] == State.PROPOSED
    assert bold


@pytest.mark.parametrize(
    ("verb", "state", "review"),
    [
        ("accept", State.ACCEPTED, "reviewed"),
        ("reject", State.REJECTED, "reviewed"),
        ("skip", State.PROPOSED, "skipped"),
    ],
)
def test_a_plain_form_goes_on_to_the_next_image(
    reviewer: Client, images: list[ImageAsset], verb: str, state: int, review: str
) -> None:
    seen = ",".join(map(str, ids("dog", "cat", "<b>bold</b>")))
    response = reviewer.post(url(images[0], query="?review=unreviewed"), {"verb": verb, "seen": seen})
    assert response["Location"] == f"/images/{images[1].pk}/?review=unreviewed"
    images[0].refresh_from_db()
    assert images[0].review_state == review
    assert set(states(images[0]).values()) == {state}
    assert images[0].reviewed_by == User.objects.get(username="rosa")


def test_the_progress_follows_each_decision(reviewer: Client, images: list[ImageAsset]) -> None:
    assert "0 of 3 reviewed" in reviewer.get(url(images[0], "review")).content.decode()
    answer = reviewer.post(url(images[0]), {"verb": "accept", "was": "unreviewed", "seen": ""}, **SCRIPT).json()
    assert "1 of 3 reviewed" in answer["progress"]
    answer = reviewer.post(url(images[1]), {"verb": "skip", "was": "unreviewed", "seen": ""}, **SCRIPT).json()
    assert "1 of 3 reviewed · 1 skipped" in answer["progress"]
    reviewer.post(reverse("tagging:undo"), **SCRIPT)
    assert "1 of 3 reviewed</span>" in reviewer.get(url(images[1], "review")).content.decode()


def test_undo_is_a_new_row_and_leads_back(reviewer: Client, images: list[ImageAsset]) -> None:
    seen = ",".join(map(str, ids("dog", "cat", "<b>bold</b>")))
    reviewer.post(url(images[0]), {"verb": "accept", "seen": seen}, **SCRIPT)
    before = TagEdit.objects.count()
    answer = reviewer.post(reverse("tagging:undo") + "?review=unreviewed", **SCRIPT).json()
    assert answer["url"] == f"/images/{images[0].pk}/?review=unreviewed"
    assert answer["message"] == "Undone on 0.jpg"
    assert set(states(images[0]).values()) == {State.PROPOSED}
    assert TagEdit.objects.count() == 2 * before
    nothing = reviewer.post(reverse("tagging:undo"), **SCRIPT)
    assert nothing.status_code == 409
    assert nothing.json()["error"] == "There is nothing of yours to undo."


def test_nobody_undoes_what_others_did(reviewer: Client, images: list[ImageAsset]) -> None:
    other = person("otto", "reviewer")
    other.post(url(images[0]), {"verb": "reject", "seen": ""}, **SCRIPT)
    assert reviewer.post(reverse("tagging:undo"), **SCRIPT).status_code == 409
    images[0].refresh_from_db()
    assert images[0].review_state == "reviewed"


def test_captions_are_saved_and_never_overwritten_unseen(reviewer: Client, images: list[ImageAsset]) -> None:
    form = {"caption": "Two dogs.\r\nWaiting.", "caption_seen": "A dog."}
    answer = reviewer.post(url(images[0]), form, **SCRIPT).json()
    assert answer["caption"] == "Two dogs.\nWaiting."
    clash = reviewer.post(url(images[0]), {"caption": "Mine", "caption_seen": "A dog."}, **SCRIPT)
    assert clash.status_code == 409
    assert clash.json()["caption"] == "Two dogs.\nWaiting."
    images[0].refresh_from_db()
    assert (images[0].caption, images[0].caption_state) == ("Two dogs.\nWaiting.", "edited")


def test_the_rating_field_is_there_where_something_rates(reviewer: Client, images: list[ImageAsset]) -> None:
    assert 'id="rating"' not in reviewer.get(url(images[0], "review")).content.decode()
    ImageAsset.objects.filter(pk=images[0].pk).update(rating="sensitive", rating_score=0.7)
    assert '<option value="sensitive" selected>' in reviewer.get(url(images[0], "review")).content.decode()
    reviewer.post(url(images[0]), {"rating": "general"}, **SCRIPT)
    images[0].refresh_from_db()
    assert (images[0].rating, images[0].rating_score) == ("general", None)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"accept": "x"}, "accept"),
        ({"reject": "123456"}, "reject"),
        ({"add": "   "}, "add"),
        ({"add": "x" * 300}, "add"),
        ({"verb": "burn"}, "verb"),
        ({"seen": "1,zwei", "add": "kennel"}, "seen"),
        ({"caption": "x" * 10_001}, "caption"),
        ({"rating": "x" * 33}, "rating"),
    ],
)
def test_wrong_input_is_refused_with_the_name_of_the_field(
    reviewer: Client, images: list[ImageAsset], form: dict[str, str], field: str
) -> None:
    response = reviewer.post(url(images[0]), form, **SCRIPT)
    assert response.status_code == 400
    assert response.json()["field"] == field
    page = reviewer.post(url(images[0]), form)
    assert page.status_code == 400
    assert "This was not done" in page.content.decode()
    assert not TagEdit.objects.exists()


def test_more_tells_file_runs_and_history(reviewer: Client, images: list[ImageAsset]) -> None:
    Proposal.objects.filter(image=images[0]).update(
        tags=[["dog", "animal", 0.9, "kept", "", ""], ["pup", "animal", 0.4, "dropped", "banned by 'no-pups'", ""]]
    )
    reviewer.post(url(images[0]), {"reject": ids("dog")[0]}, **SCRIPT)
    page = reviewer.get(url(images[0], "review_more")).content.decode()
    for text in ("0.jpg", "40 × 30 px", "First run", "photo-lite", "banned by", "rosa rejected dog"):
        assert text in page


def test_tags_are_searched_for_the_tag_box(reviewer: Client, images: list[ImageAsset]) -> None:
    hits = reviewer.get("/tags/search/", {"q": "DO", "collection": "holiday"}).json()["hits"]
    assert hits[0] == {"name": "dog", "category": "animal", "count": 3, "match": "prefix", "alias": ""}
    assert reviewer.get("/tags/search/", {"q": "x" * 5000}).json() == {"hits": []}
    assert person("nora").get("/tags/search/").status_code == 403


# -- what it costs ----------------------------------------------------------------------------------------------------
def test_pages_and_decisions_take_at_most_ten_queries(reviewer: Client, images: list[ImageAsset]) -> None:
    page, seen = url(images[0], "review"), ",".join(map(str, ids("dog", "cat", "<b>bold</b>")))
    reviewer.get(page)  # counts the progress
    for query in ("", "?review=unreviewed", "?tag=dog", f"?run={images[0].proposed_by_id}"):
        assert len(queries_of(reviewer, "get", page + query)) <= 10, query
    assert len(queries_of(reviewer, "get", url(images[0], "review_more"))) <= 10
    assert len(queries_of(reviewer, "post", url(images[0]), {"reject": ids("dog")[0], "seen": seen}, **SCRIPT)) <= 10
    whole = {"verb": "accept", "was": "unreviewed", "seen": seen}
    assert len(queries_of(reviewer, "post", url(images[1]), whole, **SCRIPT)) <= 10


def test_the_number_of_queries_does_not_grow_with_the_tags(
    reviewer: Client, images: list[ImageAsset], run: Run
) -> None:
    few = len(queries_of(reviewer, "get", url(images[0], "review")))
    tags = Tag.objects.bulk_create(Tag(name=f"tag {n}", key=f"tag {n}", category=f"c{n % 5}") for n in range(60))
    ImageTag.objects.bulk_create(ImageTag(image=images[0], tag=tag, state=1, run=run, score=0.5) for tag in tags)
    assert len(queries_of(reviewer, "get", url(images[0], "review"))) <= few
