"""Several connections at once, on a SQLite file and on PostgreSQL: claims never overlap, people and workers agree."""

from __future__ import annotations

import json

import pytest

from .installation import Installation

pytestmark = pytest.mark.cluster

CLAIMS = """
import json, threading
import django
django.setup()
from django.db import connection
from tagging.engine import leases
taken, failed = [], []
def claim(name):
    try:
        while chunk := leases.claim("gpu", name):
            taken.append(chunk.pk)
    except Exception as e:
        failed.append(repr(e))
    finally:
        connection.close()
threads = [threading.Thread(target=claim, args=(f"host|{i}|1",)) for i in range(6)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps([sorted(taken), failed]))
"""

DECISIONS = """
import json, threading
import django
django.setup()
from django.db import connection
from tagging.actions import counts, review
from tagging.engine import worker
from tagging.models import Collection, ImageAsset, ImageTag, Run, TagCount
collection, failed, decided = Collection.objects.get(), [], []
def person(verb, lo):
    try:
        while Run.objects.get().state == "running":
            images = ImageAsset.objects.filter(collection=collection).order_by("-pk" if lo else "pk")[:150]
            done = review.bulk(ImageAsset.objects.filter(pk__in=[i.pk for i in images]), by=None, verb=verb)
            decided.append(done.edits)
    except Exception as e:
        failed.append(repr(e))
    finally:
        connection.close()
people = [threading.Thread(target=person, args=a) for a in (("accept", 0), ("reject", 1))]
for t in people: t.start()
while worker.drain("gpu"): pass
for t in people: t.join()
def counters():
    return sorted(c for c in TagCount.objects.values_list("tag_id", "proposed", "accepted", "rejected", "added")
                  if any(c[1:]))
kept = counters()
counts.rebuild(collection)
truth = ImageTag.objects.filter(state__in=ImageTag.TRUTH).count()
print(json.dumps([Run.objects.get().state, failed, kept == counters(), truth, sum(decided)]))
"""


def test_a_chunk_is_claimed_once_however_many_ask(installation: Installation):
    if "IWTAG_BROKER_URL" in installation.environment:
        pytest.skip("the broker takes no part in a claim")
    installation.environment["IWTAG_CHUNK_IMAGES"] = "4"
    run = installation.run(400)
    taken, failed = json.loads(installation.python("-c", CLAIMS))
    assert failed == []
    assert taken == [pk for (pk,) in installation.rows("SELECT id FROM tagging_chunk WHERE run_id = ? ORDER BY 1", run)]
    assert len(taken) == 100


def test_people_decide_while_a_worker_writes(installation: Installation):
    """No deadlock, no lost decision, and the counters are exact afterwards."""
    if "IWTAG_BROKER_URL" in installation.environment:
        pytest.skip("the broker takes no part in writing")
    installation.environment["IWTAG_FLUSH_SECONDS"] = "0.05"
    installation.run(300, image_ms=5, labels=20)
    state, failed, exact, truth, decided = json.loads(installation.python("-c", DECISIONS))
    assert failed == []
    assert state == "done"
    assert exact, "the counters differ from the rows"
    assert truth > 0
    assert decided >= truth
