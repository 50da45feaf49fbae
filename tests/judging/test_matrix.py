"""The matrix: rows as asked by the address, decisions in place, everything a cell knows."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse

from judging.actions.experiments import start
from judging.models import JudgedTag, JudgeProfile, JudgeProfileVersion, JudgeVerdict, RunVerdict
from judging.views.matrix_cells import words_diff
from tagging.models import ImageAsset, ImageTag, Proposal, TagEdit

from . import lab

pytestmark = pytest.mark.django_db
AXES = {"mode": "product", "adapters": ["fake"], "options": {"variant": ["a", "b"], "kept": [3, 5]}}


@pytest.fixture
def trip(fake):
    return lab.collection(30)


@pytest.fixture
def made(trip):
    found = lab.experiment(trip, AXES, name="Which variant?")
    start(found)
    return lab.finish(found)


@pytest.fixture
def person(client):
    user = User.objects.create_user("rita")
    user.groups.add(Group.objects.get(name="reviewer"))
    client.force_login(user)
    return client


def rows(client, made, query=""):
    answer = client.get(reverse("judging:matrix_rows", args=[made.pk]) + f"?n=100&{query}")
    assert answer.status_code == 200
    found = re.findall(r'<tr data-image="(\d+)">(.*?)</tr>', answer.content.decode(), re.S)
    assert int(answer["X-Total"]) == len(found)
    return {int(pk): html for pk, html in found}


def image(trip, n=0):
    return ImageAsset.objects.filter(collection=trip).order_by("pk")[n]


def tag_of(html, state=""):
    """Names of the tags that can be decided, of one state or all."""
    return re.findall(
        rf'<button class="chip" data-state="{state or "[a-z]+"}"[^>]*><span class="chip-name">([^<]+)', html
    )


def test_the_page_names_its_columns_and_reads_no_row(person, made, django_assert_max_num_queries):
    with django_assert_max_num_queries(10):
        page = person.get(reverse("judging:matrix", args=[made.pk])).content.decode()
    assert page.count('scope="col" data-row=') == 4
    assert "kept 3 · variant a" in page
    assert "<tr data-image" not in page


def test_rows_hold_an_image_each_and_are_few_queries(person, made, trip, django_assert_max_num_queries):
    first = rows(person, made, "sort=order")
    assert len(first) == 30
    with django_assert_max_num_queries(30):
        assert rows(person, made, "sort=order") == first
    html = first[image(trip).pk]
    assert html.count("<td data-row=") == 4
    said = {name for v in "ab" for name in lab.said(image(trip), variant=v)}
    assert set(tag_of(html)) <= said
    assert set(tag_of(html)) >= set(lab.said(image(trip), variant="a")[:3])


def test_tags_said_by_all_are_folded_together(person, trip, fake):
    made = lab.experiment(
        trip, {"mode": "product", "adapters": ["fake"], "options": {"kept": [3, 5]}}, name="How many?"
    )
    start(made)
    lab.finish(made)
    html = rows(person, made)[image(trip).pk]
    shared = html.partition("<details")[2].partition("</details>")[0]
    assert set(tag_of(shared)) == set(lab.said(image(trip), kept=3))
    assert "3 said by all, 3 unjudged" in shared
    assert set(tag_of(html.partition("</th>")[2])) == set(lab.said(image(trip), kept=5)) - set(
        lab.said(image(trip), kept=3)
    )


def test_filters_and_sorts_of_the_address(person, made, trip):
    everything = set(rows(person, made))
    name = lab.said(image(trip), variant="b")[0]
    with_tag = set(rows(person, made, f"tag={name}"))
    assert image(trip).pk in with_tag
    assert with_tag == {
        i.pk for i in ImageAsset.objects.filter(collection=trip)
        if any(name.casefold() in n.casefold() for v in "ab" for n in lab.said(i, variant=v))
    }  # fmt: skip
    assert set(rows(person, made, "only=disagree")) == everything
    hidden = [r.pk for r in made.rows.all() if "variant b" in r.name or "kept 3" in r.name]
    query = "&".join(f"hide={pk}" for pk in hidden)
    assert set(rows(person, made, f"only=disagree&{query}")) == set()  # one column left
    assert set(rows(person, made, "only=unstable")) == set()
    assert set(rows(person, made, "only=unjudged")) == everything
    lab.decide([image(trip)], {"variant": "a"}, wrong={"variant": "b"})
    assert set(rows(person, made, "only=unjudged")) == everything - {image(trip).pk}
    assert next(iter(rows(person, made, "sort=edits"))) == image(trip).pk
    assert set(rows(person, made, "only=regressed")) == {image(trip).pk}
    assert len(rows(person, made, "sort=nonsense&only=nonsense&hide=x&from=-1")) == 30


def test_most_disagreement_comes_first(person, trip, fake):
    made = lab.experiment(
        trip, {"mode": "product", "adapters": ["fake"], "options": {"kept": [3, 5]}}, name="How many?"
    )
    start(made)
    lab.finish(made)
    odd = image(trip, 7)
    one = Proposal.objects.get(image=odd, run__experiment_links__row__position=0)
    one.tags = [["odd one", "general", 0.9, "kept", "", "fake", "odd one"]]
    one.save()
    made.rows.first()
    from judging import matrix

    matrix._INDEXES.clear()
    assert next(iter(rows(person, made))) == odd.pk


def test_a_decision_in_place_is_truth_and_can_be_taken_back(person, made, trip):
    one = image(trip)
    name = tag_of(rows(person, made)[one.pk], "unjudged")[0]
    at = reverse("judging:matrix_decide", args=[made.pk])

    def press(verb):
        answer = person.post(at, {"image": one.pk, "tag": name, "verb": verb})
        assert answer.status_code == 200
        html = answer.content.decode()
        assert html.count("<tr data-image=") == 1
        return re.search(rf'data-state="(\w+)"><span class="chip-name">{re.escape(name)}<', html)[1]

    assert press("accept") == "added"
    assert press("reject") == "rejected"
    assert ImageTag.objects.get(image=one, tag__name=name).state == ImageTag.State.REJECTED
    assert press("clear") == "unjudged"
    assert not ImageTag.objects.filter(image=one, tag__name=name, state__in=ImageTag.TRUTH).exists()
    assert press("reject") == "rejected"  # nobody had it on the image
    assert set(TagEdit.objects.filter(image=one).values_list("door", flat=True)) == {"matrix"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"verb": "accept", "tag": "dog"}, "not part"),
        ({"image": "own", "verb": "love", "tag": "dog"}, "none of"),
        ({"image": "own", "verb": "accept", "tag": ""}, "tag"),
        ({"image": "999999", "verb": "accept", "tag": "dog"}, "not part"),
    ],
)
def test_a_wrong_decision_is_told(person, made, trip, data, said):
    data = {**data, **({"image": image(trip).pk} if data.get("image") == "own" else {})}
    answer = person.post(reverse("judging:matrix_decide", args=[made.pk]), data)
    assert answer.status_code == 400
    assert said in answer.content.decode()


def test_viewers_see_and_do_not_decide(client, made):
    user = User.objects.create_user("vera")
    user.groups.add(Group.objects.get(name="viewer"))
    client.force_login(user)
    assert '<button class="chip"' not in "".join(rows(client, made).values())
    assert client.post(reverse("judging:matrix_decide", args=[made.pk]), {}).status_code == 403
    client.logout()
    assert client.get(reverse("judging:matrix_rows", args=[made.pk])).status_code in (302, 401)


def test_a_judges_word_is_shown_and_can_be_filtered(person, made, trip):
    one = image(trip)
    row = made.rows.first()
    run = row.runs.first()
    name = lab.said(one, variant="a", kept=3)[0]
    profile = JudgeProfile.objects.create(slug="strict", name="Strict", kind="verifier")
    version = JudgeProfileVersion(profile=profile, number=1, digest="d" * 64)
    version.save()
    verdict = JudgeVerdict(
        key="k" * 64, version=version, image=one, image_sha256=one.sha256, kind="verifier", state="ok", overall=0.4
    )
    verdict.save()
    JudgedTag.objects.create(
        verdict=verdict, version=version, image=one, name=name, word=2, p_ok=0.1, certainty=0.8, evidence="<sky>"
    )
    RunVerdict.objects.create(run=run, image=one, version=version, verdict=verdict)
    assert set(rows(person, made, "only=fails")) == {one.pk}
    html = rows(person, made, "only=fails")[one.pk]
    assert 'data-doubt=""' in html
    assert "Strict: wrong. &lt;sky&gt;" in html
    assert "Strict 0.40" in html
    detail = person.get(reverse("judging:matrix_cell", args=[made.pk, row.pk, one.pk])).content.decode()
    assert "wrong" in detail
    assert "&lt;sky&gt;" in detail


def test_a_cell_tells_everything(person, made, trip):
    row = made.rows.first()
    detail = person.get(reverse("judging:matrix_cell", args=[made.pk, row.pk, image(trip).pk])).content.decode()
    for name in lab.said(image(trip), variant="a", kept=3):
        assert name in detail
    assert "Raw reply" in detail
    other = lab.experiment(trip, AXES, name="Another")
    assert person.get(reverse("judging:matrix_cell", args=[other.pk, row.pk, image(trip).pk])).status_code == 404


def test_samples_that_differ_say_how_often(person, trip, fake):
    made = lab.experiment(
        trip, {"mode": "product", "adapters": ["fake"], "options": {"kept": [5]}}, samples=3, name="Stable?"
    )
    start(made)
    lab.finish(made)
    run = made.rows.first().runs.order_by("pk").last()
    one = Proposal.objects.get(run=run, image=image(trip))
    gone = one.tags.pop(0)[0]
    one.save()
    html = rows(person, made)[image(trip).pk]
    assert "3 samples, not the same" in html
    assert re.search(rf">{re.escape(gone)}</span> <span class=\"chip-p\">2/3", html)
    assert set(rows(person, made, "only=unstable")) == {image(trip).pk}


def test_caption_differences_are_by_word_and_escaped():
    assert words_diff("A dog runs", "A <b>cat</b> runs") == "A <del>dog</del><ins>&lt;b&gt;cat&lt;/b&gt;</ins> runs"
    assert words_diff("same", "same") == "same"
