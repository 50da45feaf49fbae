"""The numbers of a plan are those of the words it shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exports import changes
from exports.models import ExportEntry

WORDS = st.sampled_from(
    ["dog", "Dog", "animal|dog", "animal/dog", "a\uff5cb", "a|b", "x\u2215y", "x/y", "cat", "été", "ÉTÉ"]
)
CHANGES = st.lists(
    st.tuples(WORDS, st.sampled_from(["added", "removed", "kept", "withheld"]), st.just("why")), max_size=6
)
NAMES = ["dc:subject", "lr:hierarchicalSubject", "digiKam:TagsList", "acdsee:categories", "IPTC:Keywords"]


@given(st.dictionaries(st.sampled_from(NAMES), CHANGES), st.booleans())
def test_counts_are_those_of_the_words(fields, text):
    described = {name: {"changes": [list(c) for c in said]} for name, said in fields.items()}
    if text:
        described["dc:description"] = {"before": "", "after": "A dog"}
    entry = ExportEntry(fields=described)
    changes.count(entry)
    kinds = [word.kind for word in changes.words(described)]
    assert (entry.n_added, entry.n_removed) == (kinds.count("added"), kinds.count("removed"))
    assert (entry.n_kept, entry.n_withheld) == (kinds.count("kept"), kinds.count("withheld"))
    assert entry.texts is text
