"""Label Studio, vocabularies and preference pairs, read back by json, csv and a small reader of keyword lists."""

from __future__ import annotations

import csv
import io
import json
from urllib.parse import unquote

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from exports.actions import get_exporter
from judging.models import Experiment, ExperimentRecipe, ExperimentRun, Vote
from tagging.actions.review import decide
from tagging.models import Proposal, Run, Tag, TagAlias

from .formats import NASTY, holiday, load_with_datasets
from .truth import State, collection, image, run_of, tag

pytestmark = pytest.mark.django_db


def written(c, format, **options) -> str:
    return b"".join(get_exporter(c, format, options).stream()).decode()


# -- Label Studio -----------------------------------------------------------------------------------------------------
def test_label_studio_tells_truth_from_proposals():
    tasks = json.loads(written(holiday(), "label_studio", proposed=True))
    first, second, third = tasks
    assert first["data"]["image"] == "/data/local-files/?d=a.jpg"
    (annotation,) = first["annotations"]
    by_name = {r["from_name"]: r for r in annotation["result"]}
    assert by_name["tags"]["value"] == {"choices": ["mine", "cat"]}
    assert by_name["tags"]["type"] == "choices"
    assert by_name["caption"]["value"] == {"text": ["A cat, asleep"]}
    assert all(r["to_name"] == "image" for r in annotation["result"])
    (prediction,) = first["predictions"]
    assert prediction["model_version"] == "photo-lite"
    assert prediction["result"][0]["value"] == {"choices": ["car"]}
    assert second["annotations"] == [{"result": []}]
    assert "annotations" not in third
    assert third["predictions"][0]["result"][0]["value"] == {"choices": ["sea", "sky"]}
    assert third["predictions"][0]["score"] == pytest.approx(0.45)


def test_label_studio_of_reviewed_truth_only_has_no_predictions():
    assert [t["predictions"] for t in json.loads(written(holiday(), "label_studio"))] == [[], []]


def test_label_studio_of_nothing_is_an_empty_list():
    assert json.loads(written(collection(), "label_studio")) == []


def test_addresses_and_nasty_words_in_label_studio():
    c = collection()
    image(c, "a b/é?#.jpg", [(name, State.ACCEPTED, 0.5) for name in NASTY])
    (task,) = json.loads(written(c, "label_studio", address="https://x/"))
    assert unquote(task["data"]["image"]) == "https://x/a b/é?#.jpg"
    assert "?" not in task["data"]["image"]
    assert sorted(task["annotations"][0]["result"][0]["value"]["choices"]) == sorted(NASTY)


# -- Danbooru ---------------------------------------------------------------------------------------------------------
def test_danbooru_counts_and_aliases():
    c = collection()
    for i in range(3):
        image(c, f"{i}.jpg", [("long hair", State.ACCEPTED, 0.9), *([("miku", State.ADDED, None)] if i else [])])
    image(collection("Other"), "x.jpg", [("elsewhere", State.ACCEPTED, 0.9)])
    Tag.objects.filter(name="miku").update(category="character")
    for name in ("longhair", "hair, long", "flowing hair"):
        TagAlias.objects.create(tag=tag("long hair"), name=name)
    rows = list(csv.reader(io.StringIO(written(c, "danbooru"))))
    assert rows == [["long_hair", "0", "3", "flowing_hair,longhair"], ["miku", "4", "2", ""]]
    assert written(c, "danbooru", at_least=3, underscores=False).startswith("long hair,0,3,")
    plan = get_exporter(c, "danbooru").plan()
    assert plan.rows == 2
    assert "1 aliases with a comma are left out: hair, long." in plan.warnings


def test_nasty_words_survive_the_danbooru_csv():
    c = collection()
    image(c, "x.jpg", [(name, State.ACCEPTED, 0.5) for name in NASTY])
    names = {row[0] for row in csv.reader(io.StringIO(written(c, "danbooru", underscores=False), newline=""))}
    changed = {name for name in NASTY if "\n" in name or "\t" in name}
    assert set(NASTY) - changed <= names
    assert len(names) == len(NASTY)
    assert f"{len(changed)} tags are written on one line" in get_exporter(c, "danbooru").plan().warnings[0]


# -- Lightroom --------------------------------------------------------------------------------------------------------
def read_keywords(text: str) -> tuple[dict[str, tuple[str, ...]], dict[str, set[str]]]:
    """Keyword → its path from the root, keyword → synonyms, as Lightroom indents them."""
    path: list[str] = []
    paths: dict[str, tuple[str, ...]] = {}
    synonyms: dict[str, set[str]] = {}
    for line in text.splitlines():
        name = line.lstrip("\t")
        depth = len(line) - len(name)
        assert depth <= len(path), "a level was skipped"
        if name.startswith("{") and name.endswith("}"):
            synonyms.setdefault(path[depth - 1], set()).add(name[1:-1])
            continue
        path[depth:] = [name]
        paths[name] = tuple(path)
    return paths, synonyms


def test_lightroom_hierarchy_and_synonyms():
    c = collection()
    animal = tag("animal")
    dog = tag("dog", parent=animal)
    tag("spaniel", parent=dog)
    tag("cat", parent=animal)  # on no image
    TagAlias.objects.create(tag=dog, name="hound")
    image(c, "x.jpg", [("spaniel", State.ACCEPTED, 0.9), ("dog", State.ACCEPTED, 0.9), ("sea", State.ADDED, None)])
    paths, synonyms = read_keywords(written(c, "lightroom"))
    assert paths == {
        "animal": ("animal",), "dog": ("animal", "dog"), "spaniel": ("animal", "dog", "spaniel"), "sea": ("sea",)
    }  # fmt: skip
    assert synonyms == {"dog": {"hound"}}
    assert "[animal]" in written(c, "lightroom", groups=True).splitlines()
    assert "hound" not in written(c, "lightroom", synonyms=False)


def test_a_circle_of_parents_ends():
    c = collection()
    a = tag("a")
    b = tag("b", parent=a)
    Tag.objects.filter(pk=a.pk).update(parent=b)
    image(c, "x.jpg", [("a", State.ACCEPTED, 0.9)])
    assert sorted(read_keywords(written(c, "lightroom"))[0]) == ["a", "b"]


def test_nasty_words_in_a_keyword_list_are_reported():
    c = collection()
    image(c, "x.jpg", [(name, State.ACCEPTED, 0.5) for name in NASTY])
    text = written(c, "lightroom")
    paths, synonyms = read_keywords(text)
    assert len(paths) == len(NASTY)
    assert synonyms == {}
    assert not any(set(",;|") & set(name) or name[0] in "[{" for name in paths)
    assert {"a／b", "a/b"} & set(paths)
    (warning,) = get_exporter(c, "lightroom").plan().warnings
    assert "'a|b' → 'a｜b'" in warning or "more" in warning


# -- preference pairs -------------------------------------------------------------------------------------------------
@pytest.fixture
def decided():
    """An image whose proposals of two runs a person corrected, tags and caption."""
    c = collection()
    first, second = run_of(c), run_of(c, "other-model")
    one = image(c, "a.jpg", [("dog", State.PROPOSED, 0.9), ("cat", State.PROPOSED, 0.6)], run=first, reviewed=False)
    one.caption, one.caption_state = "A dog", "proposed"
    one.save()
    for run, tags, text in (
        (first, [["dog", "general", 0.9, "kept", "", "", ""], ["cat", "general", 0.6, "kept", "", "", ""]], "A dog"),
        (second, [["cow", "general", 0.8, "kept", "", "", ""], ["pig", "general", 0.1, "dropped", "x", "", ""]], "Cow"),
    ):
        Proposal.objects.create(run=run, image=one, state="ok", tags=tags, caption=text)
    user = User.objects.create_user("ada")
    ids = {t.name: t.pk for t in Tag.objects.all()}
    decide(one.pk, by=user, door="review", accept=[ids["dog"]], reject=[ids["cat"]], add=["ball"], review="reviewed",
           caption="A dog with a ball")  # fmt: skip
    return c


def pairs(c, **options):
    return [json.loads(line) for line in written(c, "preferences", **options).splitlines()]


def test_pairs_set_the_persons_words_against_each_runs(decided):
    found = pairs(decided)
    assert {p["image"] for p in found} == {"a.jpg"}
    tags = [(p["source"], p["chosen"], p["rejected"]) for p in found if p["kind"] == "tags"]
    assert tags == [("other-model", "ball, dog", "cow"), ("photo-lite", "ball, dog", "dog, cat")]
    captions = [(p["source"], p["chosen"], p["rejected"]) for p in found if p["kind"] == "caption"]
    assert captions == [
        ("other-model", "A dog with a ball", "Cow"),
        ("photo-lite", "A dog with a ball", "A dog"),
    ]
    assert get_exporter(decided, "preferences").plan().rows == 1


def test_without_proposals_the_decisions_themselves_speak(decided):
    Proposal.objects.all().delete()
    found = {p["kind"]: p for p in pairs(decided)}
    assert (found["tags"]["chosen"], found["tags"]["rejected"]) == ("ball, dog", "dog, cat")
    assert found["caption"]["rejected"] == "A dog"
    assert found["caption"]["source"] == "before the edit"


def test_options_of_pairs(decided):
    assert {p["kind"] for p in pairs(decided, about="captions")} == {"caption"}
    assert len(pairs(decided, about="tags", per_image=1)) == 1
    (chat, _) = pairs(decided, about="tags", shape="chat", tags_prompt="Tags?")
    assert chat["prompt"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "Tags?"}]
    assert chat["chosen"] == [{"role": "assistant", "content": [{"type": "text", "text": "ball, dog"}]}]
    assert chat["images"] == ["a.jpg"]


def test_datasets_loads_pairs(decided, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(written(decided, "preferences"))
    rows = load_with_datasets("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))
    assert all(row["chosen"] != row["rejected"] for row in rows)
    assert len(rows) == 4


def voted(one, better, worse, **more):
    """A vote for what the run `better` said against what `worse` said."""
    a, b = sorted((better.recipe_id, worse.recipe_id))
    winner = more.pop("winner", "a" if a == better.recipe_id else "b")
    return Vote.objects.create(image=one, a_id=a, b_id=b, winner=winner, first="a", **more)


def test_votes_give_pairs_where_they_are_asked_for():
    c = collection()
    one = image(c, "a.jpg", reviewed=False)  # a comparison needs no review
    good, bad = run_of(c, "good"), run_of(c, "bad")
    for run, (words, caption) in {good: (["dog", "ball"], "A dog"), bad: (["cow"], "A cow")}.items():
        tags = [[word, "general", 0.9, "kept", "", "", word] for word in words]
        dropped = ["fog", "general", 0.9, "dropped", "banned", "", "fog"]
        Proposal.objects.create(run=run, image=one, state="ok", tags=[*tags, dropped], caption=caption)
    voted(one, good, bad)
    voted(one, bad, good, judge="pair-judge v1")
    voted(one, good, bad, winner="tie", judge="other-judge v1", flipped=True)
    assert pairs(c) == []
    found = [(p["source"], p["kind"], p["chosen"], p["rejected"]) for p in pairs(c, votes="people")]
    assert found == [("vote", "tags", "dog, ball", "cow"), ("vote", "caption", "A dog", "A cow")]
    everyone = pairs(c, votes="all", about="tags")
    assert [(p["source"], p["chosen"]) for p in everyone] == [("vote", "dog, ball"), ("judge pair-judge v1", "cow")]
    assert get_exporter(c, "preferences", {"votes": "all"}).plan().rows == 2
    assert pairs(collection("Elsewhere"), votes="all") == []


def test_a_vote_is_about_what_its_experiment_showed():
    c = collection()
    one = image(c, "a.jpg")
    shown, other, again = run_of(c, "good"), run_of(c, "bad"), run_of(c, "again")
    Run.objects.filter(pk=again.pk).update(recipe=shown.recipe)
    for run, caption in ((shown, "A dog"), (other, "A cow"), (again, "A dog, later")):
        Proposal.objects.create(run=run, image=one, state="ok", tags=[], caption=caption)
    experiment = Experiment.objects.create(name="X", collection=c)
    row = ExperimentRecipe.objects.create(experiment=experiment, recipe=shown.recipe, position=0, name="good")
    ExperimentRun.objects.create(row=row, run=shown)
    voted(one, shown, other, experiment=experiment)
    voted(one, shown, other)
    assert [p["chosen"] for p in pairs(c, votes="people")] == ["A dog", "A dog, later"]


def test_what_nobody_decided_gives_no_pairs():
    c = collection()
    image(c, "a.jpg", [("cat", State.ACCEPTED, 0.9)])
    assert pairs(c) == []
    assert "no pairs" in get_exporter(c, "preferences").plan().warnings[-1]
    with pytest.raises(ValidationError, match="decided"):
        get_exporter(c, "preferences", {"proposed": True})
