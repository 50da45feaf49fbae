from __future__ import annotations

import uuid

import pytest

from tagging.models import ImageTag, Proposal, Tag, TagEdit

from .world import collection, image, keyed, person, run_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def trip():
    return collection()


@pytest.fixture
def run(trip):
    return run_of(trip)


@pytest.fixture
def one(trip, run):
    made = image(
        trip,
        "a.jpg",
        run=run,
        tags={"dog": 0.9, "cat": 0.4},
        caption="A dog.",
        caption_state="proposed",
        width=4,
        height=3,
    )
    tags = [["dog", "animal", 0.9, "kept", "", "model"], ["logo", "general", 0.8, "dropped", "banned by 'x'", "model"]]
    Proposal.objects.create(run=run, image=made, state="ok", tags=tags, caption="A dog.")
    return made


@pytest.fixture
def ann():
    return person("ann", "reviewer")


@pytest.fixture
def client(ann):
    return keyed(ann, ["read", "write"])


def decide(client, one, **body):
    return client.post(f"/api/images/{one.pk}/decisions", body, content_type="application/json")


def states(one):
    return {row.tag.name: ImageTag.State(row.state).label for row in one.image_tags.select_related("tag")}


def test_pages_go_forth_and_back(client, trip, run):
    made = [image(trip, f"{i}.jpg", run=run, tags={"dog": 0.5}).pk for i in range(7)]
    url = "/api/images?collection=trip&limit=3&tag=dog"
    first = client.get(url).json()
    second = client.get(f"{url}&cursor={first['next_cursor']}").json()
    third = client.get(f"{url}&cursor={second['next_cursor']}").json()
    assert [[i["id"] for i in p["items"]] for p in (first, second, third)] == [made[:3], made[3:6], made[6:]]
    assert (first["prev_cursor"], third["next_cursor"]) == ("", "")
    assert client.get(f"{url}&cursor={third['prev_cursor']}").json()["items"] == second["items"]
    back = client.get(f"{url}&cursor={second['prev_cursor']}").json()
    assert (back["items"], back["prev_cursor"]) == (first["items"], "")


def test_the_list_shows_tags_and_costs_few_queries(client, trip, run, one, django_assert_max_num_queries):
    for i in range(20):
        image(trip, f"{i}.jpg", run=run, tags={"dog": 0.5, "cat": 0.6}, reviewed_by=person(f"p{i}"))
    client.get("/api/tags")  # notes the use of the key
    with django_assert_max_num_queries(10):
        found = client.get("/api/images?collection=trip&tag=dog&not_tag=bird&tag=cat").json()
    assert len(found["items"]) == 21
    shown = found["items"][0]["tags"]
    assert [(t["name"], t["state"], t["score"]) for t in shown] == [("dog", "proposed", 0.9), ("cat", "proposed", 0.4)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "collection"),
        ("collection=trip&review=maybe", "review"),
        ("collection=trip&sort=path", "sort"),
        ("collection=trip&min_score=2", "min_score"),
        ("collection=trip&min_score=nan", "min_score"),
        ("collection=trip&min_score=0.9&max_score=0.1", "max_score"),
        ("collection=trip&run=x", "run"),
        ("collection=trip&errors=perhaps", "errors"),
        ("collection=trip&cursor=x", "cursor"),
        ("collection=trip&limit=0", "limit"),
        ("collection=trip&limit=501", "limit"),
        ("collection=trip&q=" + "x" * 201, "q"),
        ("collection=trip&tag=" + "x" * 201, "tag"),
        ("collection=trip&" + "&".join(f"tag={i}" for i in range(21)), "tag"),
    ],
)
def test_wrong_filters_name_the_parameter(client, trip, query, field):
    answer = client.get(f"/api/images?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_an_unknown_collection_is_a_404(client):
    answer = client.get("/api/images?collection=nope")
    assert answer.status_code == 404
    assert "nope" in answer.json()["detail"]


def test_one_image_with_its_proposals(client, one, run):
    found = client.get(f"/api/images/{one.pk}").json()
    assert (found["path"], found["collection"], found["width"]) == ("a.jpg", "trip", 4)
    (proposal,) = found["proposals"]
    assert (proposal["run"], proposal["caption"]) == (run.pk, "A dog.")
    assert [(t["name"], t["state"], t["reason"]) for t in proposal["tags"]] == [
        ("dog", "kept", ""),
        ("logo", "dropped", "banned by 'x'"),
    ]


def test_single_decisions_by_id_and_by_name(client, one, ann):
    cat = Tag.objects.get(name="cat")
    answer = decide(client, one, accept=["Dog"], reject=[cat.pk], add=["park"], caption="Two dogs.", review="reviewed")
    assert answer.status_code == 200, answer.content
    found = answer.json()
    assert found["edits"] == 5
    assert states(one) == {"dog": "accepted", "cat": "rejected", "park": "added"}
    assert (found["image"]["review_state"], found["image"]["reviewed_by"]) == ("reviewed", "ann")
    assert {(e.by, e.door) for e in TagEdit.objects.all()} == {(ann, "api")}


@pytest.mark.parametrize(
    ("verb", "review", "dog"),
    [
        ("accept", "reviewed", "accepted"),
        ("reject", "reviewed", "rejected"),
        ("skip", "skipped", "proposed"),
    ],
)
def test_verbs_for_the_whole_image(client, one, verb, review, dog):
    found = decide(client, one, verb=verb).json()
    assert found["image"]["review_state"] == review
    assert states(one)["dog"] == dog


def test_what_others_changed_is_reported(client, one):
    dog, cat = (Tag.objects.get(name=n).pk for n in ("dog", "cat"))
    assert decide(client, one, verb="accept", seen=[dog]).json()["changed_by_others"] == [cat]
    assert states(one) == {"dog": "accepted", "cat": "proposed"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"accept": [99999]}, "accept"),
        ({"accept": ["nope"]}, "accept"),
        ({"reject": [True]}, "reject.0"),
        ({"add": [""]}, "add"),
        ({"add": ["x" * 201]}, "add"),
        ({"add": "dog"}, "add"),
        ({"caption": "x" * 10_001}, "caption"),
        ({"review": "maybe"}, "review"),
        ({"verb": "burn"}, "verb"),
        ({"verb": "accept", "add": ["x"]}, "add"),
        ({"color": 1}, "color"),
    ],
)
def test_wrong_decisions_name_the_field_and_change_nothing(client, one, body, field):
    answer = decide(client, one, **body)
    assert answer.status_code == 422
    assert answer.json()["field"].startswith(field.partition(".")[0])
    assert not TagEdit.objects.exists()


def test_undo_and_history(client, one):
    batch = decide(client, one, accept=["dog"]).json()["batch"]
    decide(client, one, reject=["cat"])
    url = f"/api/images/{one.pk}/decisions"
    undone = client.post(f"{url}/undo", {"batch": batch}, content_type="application/json").json()
    assert (undone["images"], undone["skipped"]) == ([one.pk], [])
    assert states(one) == {"dog": "proposed", "cat": "rejected"}
    assert client.generic("POST", f"{url}/undo").json()["edits"] == 1  # without a batch: my last one here
    assert states(one) == {"dog": "proposed", "cat": "proposed"}
    history = client.get(f"{url}?limit=3").json()
    assert [(e["tag"], e["before"], e["after"], e["door"]) for e in history["items"]] == [
        ("cat", "rejected", "proposed", "undo"),
        ("dog", "accepted", "proposed", "undo"),
        ("cat", "proposed", "rejected", "api"),
    ]
    rest = client.get(f"{url}?limit=3&cursor={history['next_cursor']}").json()
    assert [e["after"] for e in rest["items"]] == ["accepted"]
    assert rest["next_cursor"] == ""


def test_undoing_twice_or_nothing_is_a_conflict(client, one):
    url = f"/api/images/{one.pk}/decisions/undo"
    assert client.generic("POST", url).status_code == 409
    batch = decide(client, one, accept=["dog"]).json()["batch"]
    body = {"batch": batch}
    assert client.post(url, body, content_type="application/json").status_code == 200
    again = client.post(url, body, content_type="application/json")
    assert (again.status_code, again.json()["detail"]) == (409, "This was undone already.")
    other = client.post(url, {"batch": str(uuid.uuid4())}, content_type="application/json")
    assert other.status_code == 409
    assert client.post(url, {"batch": "x"}, content_type="application/json").json()["field"] == "batch"


def test_decisions_on_a_missing_image(client):
    answer = client.post("/api/images/77/decisions", {"verb": "skip"}, content_type="application/json")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no image 77.")
    assert client.get("/api/images/99999999999999999999").status_code == 404
