from __future__ import annotations

import csv
import io

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from prompts.cells import DANGEROUS
from tagging.actions import counts, merge
from tagging.actions.merge import merge_tags
from tagging.actions.tags import resolve_tags
from tagging.admin.resources import TagResource
from tagging.models import Collection, ImageAsset, ImageTag, Tag, TagAlias, TagCount, TagEdit

pytestmark = pytest.mark.django_db
State = ImageTag.State
LIST = "/admin/tagging/tag/"


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss", password="x"))
    return client


@pytest.fixture
def c():
    return Collection.objects.create(name="Holiday", slug="holiday", kind="upload")


def image(c, **tags):
    """`tags` are name → (state, score)."""
    row = ImageAsset.objects.create(collection=c, path=f"{ImageAsset.objects.count()}.jpg")
    deltas = counts.Deltas()
    for name, (state, score) in tags.items():
        tag = Tag.objects.get_or_create(name=name)[0]
        ImageTag.objects.create(image=row, tag=tag, state=state, score=score)
        deltas.move(c.pk, tag.pk, None, state)
    deltas.apply()
    return row


def on(row):
    return {t.tag.name: (t.state, t.score) for t in ImageTag.objects.filter(image=row).select_related("tag")}


def counted(c):
    """The counters as they stand, and as a fresh count has them."""
    names = ("tag__name", "proposed", "accepted", "rejected", "added")
    kept = {r[0]: r[1:] for r in TagCount.objects.filter(collection=c).values_list(*names) if any(r[1:])}
    counts.rebuild(c)
    return kept, {r[0]: r[1:] for r in TagCount.objects.filter(collection=c).values_list(*names) if any(r[1:])}


# -- merging ----------------------------------------------------------------------------------------------------------
def test_merging_moves_images_aliases_children_and_history(c, django_user_model):
    ann = django_user_model.objects.create_user("ann")
    one = image(c, kitty=(State.ACCEPTED, 0.9))
    kitty, cat = Tag.objects.get(name="kitty"), Tag.objects.create(name="cat")
    kitten = Tag.objects.create(name="kitten", parent=kitty)
    TagAlias.objects.create(tag=kitty, name="kittycat")
    TagEdit.objects.create(image=one, kind="tag", tag=kitty, before=1, after=2)

    merged = merge_tags(kitty, cat, by=ann)

    assert (merged.images, merged.both) == (1, 0)
    assert on(one) == {"cat": (State.ACCEPTED, 0.9)}
    assert not Tag.objects.filter(name="kitty").exists()
    assert set(resolve_tags(["kitty", "kittycat", "cat"], create=False).values()) == {cat}
    kitten.refresh_from_db()
    assert kitten.parent == cat
    assert TagEdit.objects.get().tag == cat
    kept, fresh = counted(c)
    assert kept == fresh == {"cat": (0, 1, 0, 0)}


@pytest.mark.parametrize(
    ("source", "target", "after"),
    [
        ((State.ACCEPTED, 0.9), (State.PROPOSED, 0.4), (State.ACCEPTED, 0.9)),
        ((State.PROPOSED, 0.9), (State.ACCEPTED, 0.4), (State.ACCEPTED, 0.9)),
        ((State.REJECTED, 0.9), (State.PROPOSED, 0.4), (State.REJECTED, 0.9)),
        ((State.REJECTED, 0.2), (State.ACCEPTED, 0.4), (State.ACCEPTED, 0.4)),
        ((State.ADDED, None), (State.REJECTED, 0.4), (State.ADDED, 0.4)),
        ((State.PROPOSED, 0.2), (State.PROPOSED, 0.4), (State.PROPOSED, 0.4)),
    ],
)
def test_where_both_stand_the_decision_stays(c, source, target, after):
    one = image(c, kitty=source, cat=target)
    merged = merge_tags(Tag.objects.get(name="kitty"), Tag.objects.get(name="cat"))
    assert merged.both == 1
    assert on(one) == {"cat": after}
    edits = list(TagEdit.objects.values_list("before", "after", "door"))
    assert edits == ([(target[0], after[0], "admin")] if target[0] != after[0] else [])
    kept, fresh = counted(c)
    assert kept == fresh


def test_merging_goes_in_steps_and_can_be_taken_up_again(c, monkeypatch):
    monkeypatch.setattr(merge, "IMAGES_PER_TRANSACTION", 2)
    rows = [image(c, kitty=(State.ACCEPTED, 0.5)) for _ in range(5)]
    kitty, cat = Tag.objects.get(name="kitty"), Tag.objects.create(name="cat")
    real, calls = merge._move, []

    def cut_off(*args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return real(*args)

    monkeypatch.setattr(merge, "_move", cut_off)
    with pytest.raises(RuntimeError):
        merge_tags(kitty, cat)
    kept, fresh = counted(c)
    assert kept == fresh == {"cat": (0, 2, 0, 0), "kitty": (0, 3, 0, 0)}
    assert merge_tags(kitty, cat).images == 3
    assert all(on(row) == {"cat": (State.ACCEPTED, 0.5)} for row in rows)


def test_a_parent_can_be_merged_into_its_child():
    above = Tag.objects.create(name="animal")
    source = Tag.objects.create(name="kitty", parent=above)
    target = Tag.objects.create(name="cat", parent=source)
    merge_tags(source, target)
    target.refresh_from_db()
    assert target.parent == above


def test_a_tag_is_no_alias_of_itself():
    cat = Tag.objects.create(name="cat")
    with pytest.raises(ValidationError):
        merge_tags(cat, cat)


def test_merging_in_the_admin_asks_first(boss, c):
    one = image(c, kitty=(State.ACCEPTED, 0.9))
    kitty = Tag.objects.get(name="kitty")
    Tag.objects.create(name="cat")

    def merge_post(**data):
        return boss.post(
            LIST, {"action": "merge", "_selected_action": [kitty.pk], **data}, follow=True
        ).content.decode()

    assert "Becomes an alias of" in merge_post()
    assert "There is no such tag" in merge_post(confirmed="yes", target="dog")
    assert "Choose another tag" in merge_post(confirmed="yes", target="Kitty")
    assert on(one) == {"kitty": (State.ACCEPTED, 0.9)}
    assert "now alias of cat, with 1 images" in merge_post(confirmed="yes", target="CAT")
    assert on(one) == {"cat": (State.ACCEPTED, 0.9)}


# -- the form ---------------------------------------------------------------------------------------------------------
def post(boss, url, aliases=(), **data):
    form = {"name": "", "category": "general", "parent": "", "note": "", **data}
    form |= {"aliases-TOTAL_FORMS": len(aliases), "aliases-INITIAL_FORMS": 0}
    form |= {f"aliases-{i}-name": name for i, name in enumerate(aliases)}
    return boss.post(url, form).content.decode()


def test_names_are_unique_as_they_are_compared(boss):
    cat = Tag.objects.create(name="black cat")
    TagAlias.objects.create(tag=cat, name="kitty")
    add = LIST + "add/"
    assert "There is the tag &#x27;black cat&#x27; already" in post(boss, add, name="Black_Cat")
    assert "alias of" in post(boss, add, name="Kitty")
    assert "visible character" in post(boss, add, name="\u200b")
    assert "tag of its own" in post(boss, add, name="dog", aliases=["Black Cat"])
    assert "already an alias" in post(boss, add, name="dog", aliases=["kitty"])
    assert Tag.objects.count() == 1
    post(boss, add, name="dog", aliases=["doggo"])
    assert resolve_tags(["doggo"], create=False)["doggo"].name == "dog"


def test_no_tag_lies_below_itself(boss):
    animal = Tag.objects.create(name="animal")
    cat = Tag.objects.create(name="cat", parent=animal)
    assert "cannot lie below itself" in post(boss, f"{LIST}{animal.pk}/change/", name="animal", parent=cat.pk)


def test_a_tag_in_use_cannot_be_deleted(boss, c):
    image(c, cat=(State.ACCEPTED, 0.9))
    used, unused = Tag.objects.get(name="cat"), Tag.objects.create(name="dog")
    assert boss.post(f"{LIST}{used.pk}/delete/", {"post": "yes"}).status_code == 403
    boss.post(f"{LIST}{unused.pk}/delete/", {"post": "yes"})
    assert list(Tag.objects.values_list("name", flat=True)) == ["cat"]


# -- import and export ------------------------------------------------------------------------------------------------
NASTY = [
    "=1+1",
    "+_+",
    "-3",
    "@home",
    "=_=",
    "'quoted",
    'say "hi"',
    "a;b",
    "a\\;b",
    "a,b",
    "été 🐈",
    ":-)",
    "|_|",
]


def test_nasty_names_survive_a_round_trip():
    for name in NASTY:
        Tag.objects.create(name=name, note=name, category="general")
    parent = Tag.objects.get(name="=1+1")
    Tag.objects.filter(name=":-)").update(parent=parent)
    TagAlias.objects.create(tag=parent, name="=2")
    TagAlias.objects.create(tag=parent, name="x; y")
    text = TagResource().export().csv
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == len(NASTY)
    assert not any(cell[:1] in DANGEROUS for row in rows for cell in row.values())

    before = sorted(Tag.objects.values_list("name", "note", "parent__name"))
    Tag.objects.all().delete()
    result = load(text)
    assert not result.has_errors()
    assert not result.has_validation_errors()
    assert sorted(Tag.objects.values_list("name", "note", "parent__name")) == before
    again = Tag.objects.get(name="=1+1")
    assert sorted(again.aliases.values_list("name", flat=True)) == ["=2", "x; y"]


def load(text, **kwargs):
    import tablib

    return TagResource().import_data(tablib.Dataset().load(text, format="csv"), **kwargs)


def test_what_did_not_change_is_skipped_and_said():
    load("name,category,parent,aliases,note\r\ncat,animal,pet,kitty,\r\ndog,animal,pet,,\r\n")
    result = load("name,category,parent,aliases,note\r\nCAT,animal,pet,kitty,\r\ndog,animal,,,barks\r\n")
    kinds = [row.import_type for row in result.rows]
    assert kinds == ["update", "update"]  # CAT is another way to write it
    result = load("name,category,parent,aliases,note\r\nCAT,animal,pet,kitty,\r\ndog,animal,,,barks\r\n")
    assert [row.import_type for row in result.rows] == ["skip", "skip"]
    dog = Tag.objects.get(name="dog")
    assert (dog.parent, dog.note) == (None, "barks")


def test_columns_that_are_not_there_change_nothing():
    load("name,category,parent,aliases,note\r\ncat,animal,pet,kitty,soft\r\n")
    load("name,category\r\ncat,creature\r\n")
    cat = Tag.objects.get(name="cat")
    assert (cat.category, cat.parent.name, cat.note, cat.aliases.count()) == ("creature", "pet", "soft", 1)


def test_a_name_that_is_an_alias_is_refused_in_its_row():
    cat = Tag.objects.create(name="cat")
    TagAlias.objects.create(tag=cat, name="kitty")
    result = load("name,category\r\nkitty,animal\r\n")
    assert result.has_errors() or result.has_validation_errors()
    assert not Tag.objects.filter(name="kitty").exists()


def test_import_in_the_browser_shows_the_difference_first(boss):
    Tag.objects.create(name="cat", category="animal")
    file = SimpleUploadedFile("tags.csv", b"name,category\r\ncat,creature\r\n'=_=,general\r\n", "text/csv")
    page = boss.post(reverse("admin:tagging_tag_import"), {"import_file": file, "format": "0", "resource": ""})
    assert Tag.objects.get().category == "animal"
    form = page.context["confirm_form"]
    boss.post(reverse("admin:tagging_tag_process_import"), form.initial, follow=True)
    assert sorted(Tag.objects.values_list("name", "category")) == [("=_=", "general"), ("cat", "creature")]
