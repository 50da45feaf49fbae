"""The menu of a chip: one word into a list, carried on to policies and runs, and taken back."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from prompts import actions as prompts
from prompts.models import Wordlist, WordlistVersion
from prompts.wordlists import check_entries, format_text
from tagging.actions import lists, policies, previews, recompute, words
from tagging.actions.setup import ensure_default_adapter
from tagging.models import PolicyVersion

from .test_recompute import _fresh, apply, labels, make_run, names, run, version  # noqa: F401
from .world import keyed, person

pytestmark = pytest.mark.django_db


def lines(wordlist: Wordlist) -> list[str]:
    current = wordlist.current
    assert current is not None
    return format_text(check_entries(current.entries, wordlist.kind), wordlist.kind).split("\n")[:-1]


@pytest.fixture
def no_go(run):
    made = prompts.create_wordlist(slug="no-go", kind="banned", entries=["mood"])
    apply(run, {}, [made.current])
    return made


def test_a_word_is_banned_where_the_runs_policy_looks_and_the_run_follows(run, labels, no_go):
    first = labels.names[0]
    assert first in names(run)[0]
    done = words.ban_everywhere(first, run=run)
    assert (done.version.wordlist, done.version.number, done.changed) == (no_go, 2, True)
    assert lines(no_go) == ["mood", f"={first}"]
    assert [str(v) for v in done.policies] == ["p v2"]
    recompute.run_recompute(recompute.start_recompute(run, words.policy_of(run)).pk)
    assert first not in names(run)[0]

    back = words.undo_word(done.version)
    assert lines(no_go) == ["mood"]
    assert back.version.number == 3
    assert [str(v) for v in back.policies] == ["p v3"]
    recompute.run_recompute(recompute.start_recompute(run, words.policy_of(run)).pk)
    assert first in names(run)[0]


def test_a_word_that_is_there_already_makes_no_version(run, no_go):
    assert not words.ban_everywhere("Mood", run=run).changed
    wider = words.ban_everywhere("sea", run=run)
    assert words.ban_everywhere("sea", run=run).changed is False
    assert words.ban_everywhere("sea", inside=True, run=run).changed
    assert lines(no_go) == ["mood", "sea"]
    with pytest.raises(ValidationError) as caught:
        words.undo_word(wider.version)
    assert "changed again since" in caught.value.messages[0]


def test_without_a_list_one_is_made_and_the_policy_uses_it(run):
    done = words.make_alias("hound", "dog", run=run)
    assert (done.version.wordlist.slug, lines(done.version.wordlist)) == ("vocabulary", ["dog = hound"])
    assert list(done.policies[0].wordlists.all()) == [done.version]
    words.make_alias("doggo", "dog", run=run)
    assert lines(done.version.wordlist) == ["dog = hound, doggo"]
    words.add_to_vocabulary("cat", run=run)
    assert not words.add_to_vocabulary("hound", run=run).changed
    words.replace_by("colour", "color", run=run)
    words.replace_by("colour", "hue", run=run)
    assert lines(Wordlist.objects.get(slug="replacements")) == ["=colour -> hue"]


def test_what_cannot_be_is_refused_and_nothing_is_left_behind(run):
    policy = version({"forced": ["sea"]}).policy
    apply(run, {"forced": ["sea"]})
    with pytest.raises(ValidationError) as caught:
        words.ban_everywhere("sea", run=run)
    assert "is to stand on every image but is banned" in caught.value.messages[0]
    assert not Wordlist.objects.exists()
    assert policy.current.number == 1
    vocabulary = prompts.create_wordlist(slug="v", kind="vocabulary", entries=["dog"])
    for call in (
        lambda: words.ban_everywhere("x", wordlist=vocabulary, run=run),
        lambda: words.make_alias("x", "x", run=run),
        lambda: words.make_alias("x", " ", run=run),
        lambda: words.replace_by("x", "x", run=run),
        lambda: words.ban_everywhere("  ", run=run),
    ):
        with pytest.raises(ValidationError):
            call()
    assert WordlistVersion.objects.count() == 1


def test_a_list_is_carried_on_to_every_policy_that_uses_it(run, labels, no_go):
    other = policies.create_policy(slug="other")
    policies.create_policy_version(other, {"max_tags": 3}, [no_go.current])
    idle = make_run(labels)
    made = prompts.save_wordlist(no_go, ["mood", labels.names[1]], message="more")
    done = lists.carry_on(made, runs=[run, idle])
    assert {str(v) for v in done.policies} == {"p v2", "other v2"}
    assert [job.run for job in done.jobs] == [run]
    assert "does not use no-go" in done.refused[0]
    assert PolicyVersion.objects.get(policy=other, number=2).spec == {"max_tags": 3}
    assert lists.carry_on(made).policies == []
    assert lists.restore(no_go, 1).entries == [{"text": "mood"}]


def test_a_preview_names_what_is_dropped_mapped_and_added(run, labels):
    apply(run, {})
    a, b = labels.names[0], labels.names[2]
    rules = prompts.create_wordlist(
        slug="r", kind="replacement", entries=[{"text": b, "match": "exact", "replacement": "xx"}]
    )
    found = previews.preview(run, {"banned": [f"={a}"], "forced": ["holiday"]}, [rules.current], unchanged=True)
    assert (found.n_images, found.n_changed) == (6, 6)
    assert found.added == 6
    by_name = {c.name: c for example in found.examples for c in example.changes}
    assert (by_name[a].what, by_name[a].reason) == ("dropped", "banned by 'policy'")
    assert (by_name[b].what, by_name[b].to) == ("mapped", "xx")
    assert (by_name["holiday"].what, by_name["holiday"].reason) == ("added", "forced")
    kept = {fate.name: fate for fate in found.examples[0].kept}
    assert kept["holiday"].mark == "new"


def test_a_preview_looks_at_the_latest_images_and_says_so(run):
    found = previews.preview(run, {"forced": ["x"]}, limit=2)
    latest = set(run.proposals.order_by("-pk").values_list("image", flat=True)[:2])
    assert (found.n_images, found.n_total, found.sampled) == (2, 6, True)
    assert {example.image for example in found.examples} == latest


# -- the API -----------------------------------------------------------------------------------------------------------
def post(client, path, status=201, **body):
    answer = client.post(f"/api{path}", body, content_type="application/json")
    assert answer.status_code == status, answer.content
    return answer.json()


def test_the_same_through_the_api(run, labels, no_go):
    client = keyed(person("cleo", "curator"))
    made = post(client, "/words/ban", word=labels.names[0], run=run.pk, recompute=True)
    assert (made["wordlist"], made["changed"], made["recompute"]["policy"]) == ("no-go", True, "p v2")
    recompute.run_recompute(made["recompute"]["id"])
    assert labels.names[0] not in names(run)[0]
    taken = post(client, "/words/undo", version=made["version"]["id"], run=run.pk, recompute=True)
    assert taken["version"]["number"] == 3
    recompute.run_recompute(taken["recompute"]["id"])
    assert post(client, "/words/alias", word="a", of="b", wordlist="nope", status=422)["field"] == "wordlist"
    assert post(client, "/words/vocabulary", word="dog")["wordlist"] == "vocabulary"
    assert post(client, "/words/replace", word="x", by="y")["changed"]
    found = post(client, "/wordlists/no-go/preview", 200, text=f"mood\n{labels.names[0]}", run=run.pk)
    assert (found["n_changed"], found["dropped"]) == (1, 1)
    assert found["examples"][0]["changes"][0]["what"] == "dropped"
    assert post(client, "/wordlists/no-go/preview", 422, text="a -> b", run=run.pk)["field"] == "text"
    assert post(client, "/wordlists/no-go/apply", 202)["policies"] == []
    assert post(client, "/wordlists/no-go/versions/1/restore")["number"] == 3
    assert post(client, "/wordlists/no-go/versions/9/restore", 404)
    viewer = keyed(person("vic", "reviewer"), ("read", "write"))
    post(viewer, "/words/ban", 403, word="x")


def test_a_trial_through_the_api_is_hidden_and_checked(run):
    prompts.create_prompt(slug="tags")
    adapter = ensure_default_adapter()
    client = keyed(person("cleo", "curator"))
    image = run.proposals.first().image_id
    made = post(client, "/prompts/tags/try", 202, template="x", adapter=adapter.slug, images=[image])
    assert made["state"] == "running"
    assert client.get(f"/api/runs/{made['run']}").json()["purpose"] == "trial"
    assert made["run"] not in [r["id"] for r in client.get("/api/runs").json()["items"]]
    assert post(client, "/prompts/tags/try", 422, template="x", adapter="none", images=[image])["field"] == "adapter"
    assert post(client, "/prompts/tags/try", 422, template="x", adapter=adapter.slug, images=[])["field"] == "images"
    assert (
        post(client, "/prompts/tags/try", 422, template="x", adapter=adapter.slug, images=[9999])["field"] == "images"
    )
