"""Prompts as files: read, written, a folder at once, other programs' profiles."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.files import PromptFile, from_imageworks, read, read_folder, write
from prompts.models import Prompt, PromptVersion
from prompts.rendering import PromptError
from prompts.transfer import import_prompts

FILE = """---
name: Short tags
task: caption
families: [florence, qwen]
message: Fewer adjectives
---
## system
Be brief.

## template
Tag {{ image.name }} as {"tags": []}
"""


def test_a_file_is_front_matter_system_and_template():
    assert read(FILE, "My Tags.md") == PromptFile(
        slug="my-tags",
        name="Short tags",
        task="caption",
        families=("florence", "qwen"),
        message="Fewer adjectives",
        system="Be brief.",
        template='Tag {{ image.name }} as {"tags": []}',
    )
    assert read("Just {{ tags }}\n", "plain.txt") == PromptFile(slug="plain", name="plain", template="Just {{ tags }}")
    assert read("Say {tags}", "t.txt", taggui=True).template == "Say {{ tags }}"


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40).map(str.strip)


@settings(max_examples=150, deadline=None)
@given(texts, texts, texts, st.sampled_from([None, {"type": "object", "x": [1, "é"]}]))
def test_what_is_written_is_read_back(system, template, message, schema):
    prompt = PromptFile(
        slug="a-b",
        name="é: #1",
        system=system,
        template=template,
        message=message,
        families=("x",),
        response_schema=schema,
    )
    assert read(write(prompt), "other.md") == prompt


@pytest.mark.parametrize(
    ("front", "line", "message"),
    [
        ("name: x\ntsak: tags", 3, "unknown field 'tsak'"),
        ("task: paint", 2, "unknown task 'paint'; there are tags"),
        ("name: [1]", 2, "name is text"),
        ("name: x\nfamilies: x", 3, "families is a list"),
        ("name: 'x", 2, "the front matter cannot be read"),
        ("just words", 2, "the front matter has lines such as"),
    ],
)
def test_mistakes_in_front_matter_are_named_with_their_line(front, line, message):
    with pytest.raises(PromptError) as caught:
        read(f"---\n{front}\n---\ntext", "p.md")
    problem = caught.value.problems[0]
    assert (problem.part, problem.message[: len(message)]) == ("p.md", message)
    assert abs(problem.line - line) <= 1


def test_imageworks_profiles_become_one_prompt_a_stage():
    profile = {
        "name": "narrative_v2",
        "caption": {"system": "You write.", "user_template": "One caption.", "max_new_tokens": 60},
        "keywords": {
            "system": "",
            "user_template": 'Answer {{"keywords": []}} of at most {max_keywords} for {caption} {x}',
        },
    }
    for value in (profile, [profile], {"profiles": [profile]}, {"narrative_v2": profile}):
        found = from_imageworks(json.dumps(value))
        assert [(p.slug, p.task) for p in found] == [
            ("narrative-v2-caption", "caption"),
            ("narrative-v2-keywords", "tags"),
        ]
        assert found[1].template == 'Answer {"keywords": []} of at most {{ max_tags }} for {{ caption }} {x}'
    with pytest.raises(PromptError, match="no stage with a user_template"):
        from_imageworks("{}")
    with pytest.raises(PromptError, match="profile, line 1: not JSON"):
        from_imageworks("{")


def run(*args) -> str:
    out = StringIO()
    call_command(*args, stdout=out)
    return out.getvalue()


def test_a_folder_goes_in_and_out_and_in_again(db, tmp_path):
    (tmp_path / "b.md").write_text(FILE)
    (tmp_path / "a.txt").write_text("Tag it")
    (tmp_path / "notes.pdf").write_bytes(b"\xff")
    assert run("import_prompts", str(tmp_path)) == "a v1\nb v1\n"
    assert run("import_prompts", str(tmp_path)) == "a v1 (nothing new)\nb v1 (nothing new)\n"
    (tmp_path / "a.txt").write_text("Tag it well")
    assert run("import_prompts", str(tmp_path / "a.txt")) == "a v2\n"
    out = tmp_path / "out"
    assert "2 prompts written" in run("export_prompts", str(out))
    before = list(PromptVersion.objects.order_by("prompt__slug", "-number").values_list("digest", flat=True))
    Prompt.objects.all().delete()
    run("import_prompts", str(out))
    after = list(PromptVersion.objects.order_by("prompt__slug").values_list("digest", flat=True))
    assert after == [before[0], before[2]]
    assert Prompt.objects.get(slug="b").families == ["florence", "qwen"]


def test_a_bad_file_imports_nothing_and_is_named(db, tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_text("x\n{{ taggs }}")
    with pytest.raises(CommandError, match="b: Line 2: unknown variable 'taggs'"):
        run("import_prompts", str(tmp_path))
    (tmp_path / "b.txt").write_bytes(b"\xff")
    (tmp_path / "a.md").write_text("again")
    with pytest.raises(CommandError, match=r"b\.txt: not UTF-8; a: two files have this slug"):
        run("import_prompts", str(tmp_path))
    assert not Prompt.objects.exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="has no prompt files"):
        run("import_prompts", str(tmp_path / "empty"))
    with pytest.raises(CommandError, match="No such file"):
        run("import_prompts", str(tmp_path / "nope"))
    with pytest.raises(CommandError, match="There is no prompt x"):
        run("export_prompts", str(tmp_path / "o"), "--prompt", "x")
    assert read_folder(tmp_path / "empty") == []


def test_a_nul_character_is_refused_with_a_reason(db):
    """PostgreSQL keeps none: what is refused there is refused everywhere."""
    with pytest.raises(ValidationError, match="NUL"):
        import_prompts([read("---\nslug: a\n---\nTags\0, please", "a.md")])
    with pytest.raises(ValidationError, match="NUL"):
        import_prompts([PromptFile("b", "Tags", response_schema={"type": "object", "title": "\0"})])
    saved = import_prompts([PromptFile("c", "Tags", name="C\0", message="first\0")])
    assert (saved[0][0].prompt.name, saved[0][0].message) == ("C", "first")
