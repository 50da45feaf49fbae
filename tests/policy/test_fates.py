"""What differs between two proposals is what a plain comparison of all their fates finds."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tagging.policy import fates

names = st.one_of(
    st.sampled_from(
        ["sea", "sky", "a], [b", "], [", '"], ["', 'x"', "\\", "汽车", "dropped", "a], [1, 2, 3, 4], [b", ""]
    ),
    st.text(max_size=4),
)
fate = st.tuples(
    names,
    st.sampled_from(["general", "character"]),
    st.sampled_from([0.5, 0.9123, None]),
    st.sampled_from(["kept", "changed", "dropped"]),
    st.sampled_from(["", "banned by 'x'", "], ["]),
    st.just("wd"),
    names,
).map(list)
proposals = st.lists(fate, max_size=6)
writings = st.sampled_from([{"ensure_ascii": False}, {}, {"separators": (",", ":")}])


@given(proposals, proposals, proposals, writings)
def test_differences_are_those_of_all_fates(both, old, new, writing):
    before, after = json.dumps([*both, *old], **writing), json.dumps([*both, *new], ensure_ascii=False)
    stood, stand = ([f[0] for f in both + some if f[3] != "dropped"] for some in (old, new))
    assert fates.standing(after) == stand
    found = fates.differences(before, after, stand)
    assert found.before == len(stood)
    assert (len(found.gained), len(found.lost)) == (len(set(found.gained)), len(set(found.lost)))
    assert (set(found.gained), set(found.lost)) == (set(stand) - set(stood), set(stood) - set(stand))
