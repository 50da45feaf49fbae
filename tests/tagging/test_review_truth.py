"""Whatever people, bulk actions, undos and runs do, in whatever order: the truth is the fold of the edits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from tagging.actions import review
from tagging.models import ImageAsset, ImageTag, Tag, TagEdit
from tests.engine.installation import postgres_database

from .truth import propose, violations
from .world import collection, image, person, run_of

ROOT = Path(__file__).resolve().parents[2]
TAGS = ("dog", "cat", "sky", "car")
who, which = st.sampled_from([0, 1]), st.sampled_from([0, 1])
some_tags = st.lists(st.sampled_from(range(len(TAGS))), unique=True, max_size=3)
steps = st.one_of(
    st.tuples(st.just("decide"), who, which, st.permutations(range(len(TAGS))), st.integers(0, 255), st.booleans()),
    st.tuples(st.just("whole"), who, which, st.sampled_from(["accept", "reject", "skip"]), some_tags | st.none()),
    st.tuples(st.just("field"), who, which, st.sampled_from(["caption", "rating", "review"]), st.integers(0, 2)),
    st.tuples(st.just("bulk"), who, st.sampled_from(["accept", "reject", "add", "remove"]), some_tags),
    st.tuples(st.just("undo"), who, st.integers(0, 30)),
    st.tuples(st.just("undo_last"), who),
    st.tuples(st.just("propose"), which, some_tags),
)
VALUES = {
    "caption": ("", "A dog.", "2 things"),
    "rating": ("", "safe", "x"),
    "review": ("unreviewed", "skipped", "reviewed"),
}


class TruthTest(TestCase):
    def setup_example(self):
        super().setup_example()  # a transaction of its own, rolled back afterwards
        self.people = [person("ann"), person("bob")]
        trip = collection()
        self.run_ = run_of(trip)
        self.tags = [Tag.objects.create(name=name) for name in TAGS]
        self.images = [image(trip, f"{i}.jpg", run=self.run_, tags={"dog": 0.9, "cat": 0.5}) for i in range(2)]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(steps, min_size=1, max_size=12))
    def test_any_interleaving_keeps_the_truth(self, script):
        for step, *args in script:
            getattr(self, f"do_{step}")(*args)
            assert violations() == []

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(steps.filter(lambda s: s[0] in ("propose", "decide", "field")), max_size=4),
        steps.filter(lambda s: s[0] in ("decide", "whole", "field", "bulk")),
    )
    def test_undo_right_after_restores_the_world(self, script, last):
        for step, *args in script:
            getattr(self, f"do_{step}")(*args)
        before, newest = self.world(), self.newest()
        getattr(self, f"do_{last[0]}")(*last[1:])
        if self.newest() != newest:
            undone = review.undo(self.newest().batch, by=self.people[0])
            assert undone.skipped == []
            assert self.world() == before
            review.undo(undone.batch, by=self.people[0])
            assert violations() == []

    def world(self):
        images = ImageAsset.objects.order_by("pk").values()
        return list(images), list(ImageTag.objects.order_by("image_id", "tag_id").values())

    def newest(self):
        return TagEdit.objects.first()

    def do_decide(self, who, which, order, cut, by_name):
        accept, reject, clear = order[: cut % 3], order[cut % 3 : cut % 3 + cut // 4 % 3], order[3:]
        ids = [t.pk for t in self.tags]
        parts = {"accept": accept, "reject": reject, "clear": [i for i in clear if i not in (*accept, *reject)]}
        chosen: dict[str, list] = {verb: [ids[i] for i in part] for verb, part in parts.items()}
        if by_name:
            chosen["add"] = [TAGS[i] for i in accept]
            chosen["accept"] = []
        review.decide(self.images[which].pk, by=self.people[who], door="review", seen=ids, **chosen)

    def do_whole(self, who, which, verb, seen):
        image_id, by = self.images[which].pk, self.people[who]
        if verb == "skip":
            review.skip_image(image_id, by=by, door="review")
        else:
            ids = None if seen is None else [self.tags[i].pk for i in seen]
            getattr(review, f"{verb}_image")(image_id, by=by, door="review", seen=ids)

    def do_field(self, who, which, name, n):
        review.decide(self.images[which].pk, by=self.people[who], door="review", **{name: VALUES[name][n]})

    def do_bulk(self, who, verb, tags):
        names = [TAGS[i] for i in tags]
        if not names and verb in ("add", "remove"):
            with pytest.raises(ValidationError):
                review.bulk(ImageAsset.objects.all(), by=self.people[who], verb=verb)
            return
        review.bulk(ImageAsset.objects.all(), by=self.people[who], verb=verb, tag_names=names)

    def do_undo(self, who, n):
        batches = list(dict.fromkeys(TagEdit.objects.order_by("pk").values_list("batch", flat=True)))
        if batches:
            self.try_undo(lambda: review.undo(batches[n % len(batches)], by=self.people[who]))

    def do_undo_last(self, who):
        self.try_undo(lambda: review.undo_last(self.people[who]))

    def try_undo(self, act):
        before = TagEdit.objects.count()
        try:
            done = act()
        except review.NothingToUndo:
            assert TagEdit.objects.count() == before
        else:
            assert TagEdit.objects.count() == before + done.edits

    def do_propose(self, which, tags):
        with transaction.atomic():
            propose(self.run_, self.images[which], {self.tags[i].pk: 0.5 for i in tags})


# -- really at once ---------------------------------------------------------------------------------------------------
SCRIPT = """
import json, os, random, sys, threading
import django
django.setup()
from django.core.management import call_command
from django.db import connection, transaction
call_command("migrate", verbosity=0)
from tagging.actions import review
from tagging.models import Tag, TagEdit
from tests.tagging.truth import propose, violations
from tests.tagging.world import collection, image, person, run_of

trip = collection()
run = run_of(trip)
names = ["dog", "cat", "sky", "car", "sea", "fox"]
images = [image(trip, f"{i}.jpg", run=run, tags=dict.fromkeys(names[:4], 0.5)) for i in range(3)]
tags = {name: Tag.objects.get_or_create(key=name, defaults={"name": name})[0].pk for name in names}
problems, done = [], []

def reviewer(user, seed):
    dice = random.Random(seed)
    try:
        for _ in range(40):
            at, some = dice.choice(images).pk, dice.sample(names, 3)
            kind = dice.choice(["decide", "add", "whole", "undo", "bulk", "new"])
            try:
                if kind == "decide":
                    review.decide(at, by=user, door="review", seen=tags.values(), accept=[tags[some[0]]],
                                  reject=[tags[some[1]]], clear=[tags[some[2]]])
                elif kind == "add":
                    review.decide(at, by=user, door="review", add=some)
                elif kind == "whole":
                    review.accept_image(at, by=user, door="review", seen=[tags[n] for n in some])
                elif kind == "undo":
                    review.undo_last(user)
                elif kind == "bulk":
                    review.bulk(trip.images.all(), by=user, verb=dice.choice(["add", "remove"]), tag_names=some[:2])
                else:
                    review.decide(at, by=user, door="review", add=[f"new {dice.randrange(5)}"])
                done.append(kind)
            except review.NothingToUndo:
                pass
    except Exception as e:
        problems.append(repr(e))
    finally:
        connection.close()

def engine(seed):
    dice = random.Random(seed)
    try:
        for _ in range(40):
            with transaction.atomic():
                propose(run, dice.choice(images), {tags[n]: 0.5 for n in dice.sample(names, 3)})
    except Exception as e:
        problems.append(repr(e))
    finally:
        connection.close()

users = [person(f"p{i}") for i in range(3)]
threads = [threading.Thread(target=reviewer, args=(u, i)) for i, u in enumerate(users)]
threads.append(threading.Thread(target=engine, args=(9,)))
[t.start() for t in threads]
[t.join() for t in threads]
edits = TagEdit.objects.count()
print(json.dumps({"problems": problems, "done": len(done), "edits": edits, "violations": violations()}))
"""


def at_once(tmp_path, **environment):
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        "IWTAG_DATA_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "iwtag_site.settings",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == []
    assert found["violations"] == []
    assert found["done"] > 60
    assert found["edits"] > 60


def test_three_reviewers_and_a_run_at_once_on_sqlite(tmp_path):
    at_once(tmp_path)


@pytest.mark.postgres
def test_three_reviewers_and_a_run_at_once_on_postgresql(tmp_path):
    with postgres_database() as database:
        at_once(tmp_path, DATABASE_URL=database)
