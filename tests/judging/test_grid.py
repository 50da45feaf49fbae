"""From axes to cells, without a database."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from judging.grid import Axes, Cell, GridError, Model, Part, differences, expand, parse_values
from judging.images import boundaries, slices, waves


def model(slug, *options, prompt=False, kind="", **defaults):
    def effective(given):
        return {**dict.fromkeys(options), **defaults, **given}

    return Model(slug, slug.upper(), kind or slug, frozenset({*options, *defaults}), prompt, effective)


MODELS = {
    "vlm": model("vlm", prompt=True, temperature=0.0, top_p=1.0),
    "other": model("other", prompt=True, kind="vlm", temperature=0.0),
    "wd": model("wd", threshold=0.35),
}
BASE = Cell((Part("vlm", 7, {"temperature": 0.2, "top_p": 1.0}),), policy=1, recipe=40)


def cells(base=BASE, **axes):
    return expand(Axes.model_validate(axes), MODELS, base)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("0:1:0.2", [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ("1:5:2", [1, 3, 5]),
        ("1:0:-0.5", [1.0, 0.5, 0.0]),
        ("0.1, 0.3,0.3", [0.1, 0.3]),
        ("a, b", ["a", "b"]),
        ("true", [True]),
        (0.5, [0.5]),
        ([1, 2], [1, 2]),
        ("0:0.3:0.1", [0, 0.1, 0.2, 0.3]),  # as they are written, not as floats add up
    ],
)
def test_lists_and_ranges(given, wanted):
    assert parse_values(given) == wanted


@pytest.mark.parametrize("text", ["0:1:0", "1:0:0.1", "a:b:c", "0:1:0.0001", "0:1e9:1"])
def test_ranges_that_never_end_are_refused(text):
    with pytest.raises(ValueError, match=r"values|never|range"):
        parse_values(text, "temperature")


def test_around_the_base_one_thing_varies():
    grid = cells(options={"temperature": "0:0.4:0.2"}, prompts=[7, 8], adapters=["wd"])
    assert grid.cells[0].base
    assert grid.cells[0].recipe == 40
    found = [(c.parts[0].adapter, c.parts[0].prompt, c.parts[0].options.get("temperature")) for c in grid.cells]
    assert found == [("vlm", 7, 0.2), ("wd", None, None), ("vlm", 8, 0.2), ("vlm", 7, 0.0), ("vlm", 7, 0.4)]
    assert any("takes no prompt" in text for text in grid.notices)
    assert differences(grid.cells, MODELS)[3] == {"adapter": "vlm", "prompt": 7, "temperature": 0.0}


def test_the_options_of_the_base_go_only_to_models_of_its_kind():
    grid = cells(adapters=["other", "wd"])
    assert grid.cells[1].parts[0].options == {"temperature": 0.2}
    assert grid.cells[2].parts[0].options == {}


def test_options_that_a_model_lacks_collapse_with_a_notice():
    grid = cells(None, mode="product", adapters=["vlm", "wd"], prompts=[7], options={"temperature": [0, 0.5, 1]})
    assert [c.parts[0].adapter for c in grid.cells] == ["vlm", "vlm", "vlm", "wd"]
    assert "WD has no option 'temperature': its cells that differ only there are one." in grid.notices
    assert "6 cells are 4 recipes: the others would have been the same." in grid.notices


def test_a_default_said_aloud_is_the_same_cell():
    grid = cells(None, mode="product", adapters=["wd"], options={"threshold": [0.35, 0.5]})
    both = expand(Axes(mode="product", adapters=["wd"]), MODELS, grid.cells[0])
    assert len(both.cells) == 1


def test_each_model_with_its_own_prompts():
    grid = cells(None, mode="product", prompt_map={"vlm": [1, 2], "other": [3]})
    assert [(c.parts[0].adapter, c.parts[0].prompt) for c in grid.cells] == [("vlm", 1), ("vlm", 2), ("other", 3)]


def test_rules_join_the_models():
    grid = cells(None, mode="product", adapters=["vlm", "wd"], prompts=[7], combine=[{"rule": "union"}])
    assert [len(c.parts) for c in grid.cells] == [1, 1, 2]
    assert [part.name for part in grid.cells[-1].parts] == ["vlm", "wd"]
    assert differences(grid.cells, MODELS)[-1]["combine"] == "union"


def test_exclusions():
    rule = {"adapter": "vlm", "options": {"temperature": 1}}
    options = {"temperature": [0, 1]}
    grid = cells(None, mode="product", adapters=["vlm", "other"], prompts=[7], options=options, exclude=[rule])
    assert [(c.parts[0].adapter, c.parts[0].options["temperature"]) for c in grid.cells] == [
        ("vlm", 0), ("other", 0), ("other", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        ({"mode": "product", "adapters": ["gone"]}, "gone"),
        ({"mode": "product"}, "at least one model"),
        ({"mode": "linked"}, "Nothing is left"),
        ({"mode": "linked", "recipes": [9]}, "no recipe 9"),
        ({"options": {"temperature": [1]}}, "champion"),
        ({"mode": "product", "adapters": ["wd"], "options": {"threshold": [x / 50 for x in range(50)],
          "a": list(range(50)), "b": list(range(50))}}, "combinations"),
    ],
)  # fmt: skip
def test_what_makes_no_experiment_is_refused(axes, why):
    with pytest.raises(GridError, match=why):
        cells(None, **axes)


def test_unknown_names_of_axes_are_refused():
    with pytest.raises(ValidationError):
        Axes.model_validate({"adaptors": []})
    with pytest.raises(ValidationError):
        Axes.model_validate({"exclude": [{}]})


# -- slices and waves --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 4, 5, 6, 30, 31, 99, 1000, 1001, 7777, 20000])
def test_slices_cover_the_list_once(n):
    found = slices(n, n)
    assert found[0][0] == 0
    assert found[-1][1] == n
    assert all(hi == lo for (_, hi), (lo, _) in itertools.pairwise(found))
    assert all(lo < hi for lo, hi in found)
    assert all(hi - lo <= max(200, lo // 3) for lo, hi in found[1:])  # no slice outweighs what is done


def test_a_larger_stage_goes_on_with_the_same_slices():
    assert slices(30, 700)[:1] == slices(5, 700)
    assert slices(700, 700)[:2] == slices(30, 700)


def test_waves_of_a_race():
    assert waves(1000, 1000, racing=True) == [30, 100, 200, 400, 800, 1000]
    assert waves(30, 1000, racing=True) == [30]
    assert waves(1000, 1000, racing=False) == [1000]
    assert waves(20, 20, racing=True) == [20]
    assert set(waves(7777, 7777, racing=True)) <= set(boundaries(7777))
