from __future__ import annotations

from typing import Annotated, Literal

import pytest
from django.http import QueryDict
from pydantic import Field, model_validator

from tagging.adapters.base import AdapterOptions
from tagging.forms import SchemaForm


class Old(AdapterOptions):
    threshold: float = Field(0.35, ge=0, le=1, title="General threshold", description="Lowest probability.")
    limit: int | None = Field(None, ge=1, le=100)
    mcut: bool = False
    mode: Literal["fast", "exact"] = "fast"
    floor: float = Field(0.05, gt=0, lt=1, json_schema_extra={"advanced": True})
    words: list[str] = []
    per_tag: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    parts: list[Literal["a", "b", "c"]] = ["a"]
    note: str = Field("", max_length=2000)


class New(AdapterOptions):
    threshold: float = Field(0.6, ge=0.5, le=1)
    mcut: bool = True
    size: int = 448


class Needy(AdapterOptions):
    name: str = Field(min_length=2)
    low: float = 0.2
    high: float = 0.8

    @model_validator(mode="after")
    def in_order(self) -> Needy:
        if self.low > self.high:
            raise ValueError("the low end lies above the high end")
        return self


def post(**values: str | list[str]) -> QueryDict:
    data = QueryDict(mutable=True)
    for name, value in values.items():
        data.setlist(f"options-{name}", value if isinstance(value, list) else [value])
    return data


def test_kinds_and_words_come_from_the_schema():
    form = SchemaForm(Old)
    assert {f.name: f.kind for f in form} == {
        "threshold": "number",
        "limit": "integer",
        "mcut": "boolean",
        "mode": "choice",
        "floor": "number",
        "words": "lines",
        "per_tag": "pairs",
        "parts": "choices",
        "note": "long",
    }
    threshold = form["threshold"]
    assert (threshold.title, threshold.help, threshold.range_text) == (
        "General threshold",
        "Lowest probability.",
        "0 to 1",
    )
    assert threshold.default_text == "default: 0.35"
    assert [f.name for f in form.advanced] == ["floor"]
    assert not form.is_valid()


def test_the_drawn_form_has_labels_ranges_help_and_a_disclosure():
    html = SchemaForm(Old).render()
    assert 'for="id_options-threshold"' in html
    assert 'min="0"' in html
    assert 'max="1"' in html
    assert 'aria-describedby="id_options-threshold_help"' in html
    assert html.index("<details") < html.index('name="options-floor"')
    assert html.index('name="options-threshold"') < html.index("<details")


def test_initial_values_override_the_schema_defaults():
    form = SchemaForm(Old, initial={"threshold": 0.5, "gone": 1})
    assert form["threshold"].value == "0.5"
    assert form["threshold"].default_text == "default: 0.5, set for this model"


def test_values_are_validated_by_the_model_itself():
    form = SchemaForm(
        Old,
        data=post(
            threshold="0.4",
            limit="12",
            mcut=["false", "true"],
            mode="exact",
            words=" one \n\n two",
            per_tag="cat = 0.2\na=b = 0.7",
            parts=["", "b", "c"],
            note="",
        ),
    )
    assert form.is_valid(), form.errors
    assert form.cleaned == {
        "threshold": 0.4,
        "limit": 12,
        "mcut": True,
        "mode": "exact",
        "floor": 0.05,
        "words": ["one", "two"],
        "per_tag": {"cat": 0.2, "a=b": 0.7},
        "parts": ["b", "c"],
        "note": "",
    }


def test_an_empty_input_means_the_starting_value_and_none_where_none_is_allowed():
    form = SchemaForm(Old, data=post(threshold="", limit=""), initial={"threshold": 0.5, "limit": 7})
    assert form.is_valid(), form.errors
    assert form.cleaned["threshold"] == 0.5
    assert form.cleaned["limit"] is None


def test_an_unchecked_box_is_false_even_where_the_default_is_true():
    assert SchemaForm(New, data=post(mcut="false")).cleaned["mcut"] is False


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("threshold", "1.5", "At most 1"),
        ("threshold", "-1", "At least 0"),
        ("threshold", "lots", "Enter a number."),
        ("threshold", "nan", ""),
        ("limit", "2.5", "Enter a whole number."),
        ("floor", "0", "More than 0"),
        ("mode", "slow", "Choose one of"),
        ("per_tag", "cat = 3", "cat: At most 1"),
        ("per_tag", "cat", "cat: Enter a number."),
        ("parts", ["a", "z"], "Entry 2: Choose one of"),
    ],
)
def test_a_bad_value_is_an_error_beside_its_field_and_stays_as_typed(name, value, text):
    form = SchemaForm(Old, data=post(**{name: value}))
    assert not form.is_valid()
    assert list(form.errors) == [name]
    assert text in form.errors[name][0]
    assert form[name].value == value
    html = form.render()
    assert 'aria-invalid="true"' in html
    assert f'id="id_options-{name}_error"' in html


def test_an_advanced_field_with_an_error_is_not_hidden():
    form = SchemaForm(Old, data=post(floor="7"))
    assert not form.is_valid()
    assert "floor" in [f.name for f in form.basic]


def test_a_missing_required_value_and_a_rule_over_several_fields():
    form = SchemaForm(Needy, data=post(low="0.1"))
    assert not form.is_valid()
    assert form.errors["name"] == ["This is needed."]
    form = SchemaForm(Needy, data=post(name="abc", low="0.9"))
    assert not form.is_valid()
    assert form.form_errors == ["the low end lies above the high end"]
    assert "low end" in form.render()


def test_cleaned_refuses_before_validity():
    with pytest.raises(ValueError, match="not valid"):
        _ = SchemaForm(Needy, data=post()).cleaned


def test_changing_the_model_carries_what_was_changed_and_still_applies():
    old = SchemaForm(Old, data=post(threshold="0.7", mcut=["false", "true"], mode="exact", floor="0.05"))
    assert old.changed() == {"threshold": "0.7", "mcut": True, "mode": "exact"}
    new = SchemaForm(New, carry=old.changed())
    assert new["threshold"].value == "0.7"
    assert new["mcut"].value is True
    assert "mode" not in [f.name for f in new]


def test_what_no_longer_applies_or_was_never_touched_is_not_carried():
    old = SchemaForm(Old, data=post(threshold="0.4", mcut="false"))
    new = SchemaForm(New, carry=old.changed())
    assert new["threshold"].value == "0.6"  # 0.4 is outside the new range
    assert new["mcut"].value is True  # the default of the new one: nobody touched it
    assert not new.errors


def test_text_is_escaped():
    html = SchemaForm(Needy, data=post(name="<script>x</script>", low='"><b>')).render()
    assert "<script>" not in html
    assert "<b>" not in html
