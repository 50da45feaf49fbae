"""docs/adapters.md is what the adapters say of themselves."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from tagging.adapters import describe, registry


def test_the_page_is_current():
    call_command("adapter_docs", check=True)


def test_a_page_that_is_not_current_is_told_and_drawn_again(tmp_path, capsys):
    page = tmp_path / "adapters.md"
    with pytest.raises(CommandError, match="not current"):
        call_command("adapter_docs", check=True, output=page)
    assert not page.exists()
    call_command("adapter_docs", output=page)
    page.write_text(page.read_text().replace("Recognize Anything", "Something"))
    with pytest.raises(CommandError, match="Something"):
        call_command("adapter_docs", check=True, output=page)
    call_command("adapter_docs", output=page)
    call_command("adapter_docs", check=True, output=page)


@pytest.mark.parametrize("key", sorted(set(registry.BUILT_IN) - {"import"}))
def test_every_family_has_its_section(key):
    family, page = registry.adapter_class(key), describe.document()
    assert family.about is not None, f"{key} tells people nothing of itself: give it an About"
    assert f"## {family.label}\n" in page
    assert family.about.weights in page
    for name in family.Options.model_fields:
        assert f"| `{name}` |" in page


def test_ranges_are_told():
    rows = "\n".join(describe.options(registry.adapter_class("wd")))
    assert "| `general_threshold` | `0.35` | 0 to 1 |" in rows
    assert "*chooses*" in rows
    rows = "\n".join(describe.options(registry.adapter_class("camie")))
    assert "balanced, high_precision, high_recall, micro_opt, macro_opt, options" in rows
    assert "0 to 1, or empty" in "\n".join(describe.options(registry.adapter_class("onnx")))
