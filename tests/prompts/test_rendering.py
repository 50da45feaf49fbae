"""Templates: what they may use, what is refused at save time, what survives."""

from __future__ import annotations

import json

import pytest

from prompts.rendering import PromptError, check_template, free_variables, render, wordlists_used
from prompts.taggui import from_taggui
from prompts.values import ImageValues, RenderContext, TagValue

CONTEXT = RenderContext(
    image=ImageValues("IMG_1.jpg", "2024/sea", "Holidays", "2024-05-01 10:00"),
    exif={"Model": "X100"},
    tags=[TagValue("dog", 0.9), TagValue("hatsune miku", 0.8, "character")],
    tags_of=lambda source: {"wd": [TagValue("sea", 0.5)]}[source],
    caption="A dog.",
    max_tags=12,
    wordlist=lambda slug: {"styles": ["noir", "macro"]}[slug],
    variables={"subject": "dogs"},
)


def prompt(template: str, context: RenderContext = CONTEXT) -> str:
    return render("", template, context).prompt


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ image.name }} {{ image.stem }} {{ image.folder }}", "IMG_1.jpg IMG_1 2024/sea"),
        ("{{ image.collection }} {{ image.captured_at }}", "Holidays 2024-05-01 10:00"),
        ("{{ exif.Model }}[{{ exif.Lens }}]", "X100[]"),
        ("{{ tags }}", "dog, hatsune miku"),
        ("{% for t in tags if t.score > 0.85 %}{{ t }} {{ t.score }} {{ t.category }}{% endfor %}", "dog 0.9 general"),
        ("{{ tags('wd') }}", "sea"),
        ("{{ tags | length }} {{ tags[0].name }}", "2 dog"),
        ("{{ caption }} at most {{ max_tags }}", "A dog. at most 12"),
        ("{{ wordlist('styles') }} / {{ wordlist('styles') | join('|') }}", "noir, macro / noir|macro"),
        ("{{ subject | default('photograph') }} {{ mood | default('any') }}", "dogs any"),
        ('Answer {"tags": ["a"], "x": {"y": 1}}', 'Answer {"tags": ["a"], "x": {"y": 1}}'),
        ("{{ tags | tojson }} {{ image.stem | replace('_', ' ') }}", '["dog", "hatsune miku"] IMG 1'),
        ("  {# note #}x  ", "x"),
    ],
)
def test_variables(template, text):
    assert check_template(template, wordlists={"styles"}) == []
    assert prompt(template) == text


@pytest.mark.parametrize(
    ("template", "line", "message"),
    [
        ("ok\n{{ taggs }}", 2, "unknown variable 'taggs': there are image, exif, tags"),
        ("a\nb\n{{ image.nmae }}", 3, "unknown variable 'image.nmae': there are image.name"),
        ("{{ image['x'] }}", 1, "unknown variable 'image.x'"),
        ("{{ x | default(1) }} {{ x }}", 1, "unknown variable 'x'"),
        ("x\n{% if %}", 2, "Expected an expression"),
        ("{{ tags", 1, "unexpected end of template"),
        ("x\n\n{{ tags | shout }}", 3, "No filter named 'shout'"),
        ("{% for i in tags %}", 1, "Unexpected end of template"),
        ("\n{{ wordlist('nope') }}", 2, "there is no wordlist 'nope'"),
        ("{{ wordlist(image.name) }}", 1, "wordlist takes the list's name in quotes"),
        ("{% include 'x' %}", 1, "a prompt cannot include other templates"),
        ("{{ [].__class__ }}{{ self.foo }}{{ joiner() }}", 1, "unknown variable 'joiner'"),
    ],
)
def test_mistakes_are_named_at_save_time_with_their_line(template, line, message):
    problems = check_template(template, wordlists={"styles"})
    assert any(p.line == line and p.message.startswith(message) for p in problems), problems
    assert str(problems[0]).startswith("template, line ")


def test_given_variables_and_local_names_are_known():
    assert (
        check_template(
            "{% set a = 1 %}{{ a }}{{ b }}{% for x in range(3) %}{{ loop.index }}{{ x }}{% endfor %}", variables={"b"}
        )
        == []
    )
    assert free_variables("{{ a | default('x') }}{{ b }}{{ tags }}") == {"a": "x", "b": None}
    assert wordlists_used("{{ wordlist('a') }}{% if wordlist('b') %}{% endif %}") == {"a", "b"}


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ image.__init__.__globals__ }}",
        "{{ tags.__class__ }}",
        "{{ exif._fields }}",
        "{{ tags._of }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 9 ** 99999999 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'aaaa' | replace('a', 'b' ~ caption) | replace('b', tags[0].missing) }}",
        "{{ tags('unknown') }}",
        "{{ 1 / 0 }}",
        "{{ max_tags.foo.bar }}",
        "{{ range(9, 8, 0) }}",
    ],
)
def test_tricks_and_failures_end_in_one_clear_line(template):
    with pytest.raises(PromptError) as caught:
        prompt("\n" + template)
    problem = caught.value.problems[0]
    assert (problem.part, problem.line) == ("template", 2)
    assert "\n" not in str(caught.value)


def test_endless_output_is_stopped():
    with pytest.raises(PromptError, match="template: the text grows beyond 400,000 characters"):
        prompt("{% for i in range(1000) %}{% for j in range(1000) %}xxxxxxxxxx{% endfor %}{% endfor %}")


def test_the_failing_part_is_named():
    with pytest.raises(PromptError, match="system, line 1: 'nope' is undefined"):
        render("{{ nope }}", "x", CONTEXT)


def test_variables_never_hide_ours():
    context = RenderContext(caption="real", variables={"caption": "fake"})
    assert prompt("{{ caption }}", context) == "real"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Tags: {tags}", "Tags: dog, hatsune miku"),
        ("{Name} in {directory}", "IMG_1 in 2024/sea"),
        (r"\{tags\}", "{tags}"),
        ('Answer {"tags": ["a"]}', 'Answer {"tags": ["a"]}'),
        ("a {foo} b", "a {foo} b"),
        ('{{"a": {{}}, "t": "{tags}"}}', '{{"a": {{}}, "t": "dog, hatsune miku"}}'),
        ("100{% off {# x", "100{% off {# x"),
    ],
)
def test_taggui_templates_become_ours_and_lose_nothing(text, result):
    template = from_taggui(text)
    assert check_template(template) == []
    assert prompt(template) == result


def test_json_examples_survive_any_nesting():
    for value in ({"a": {"b": {"c": [1, {"d": {}}]}}}, [{"x": 1}], {"t": "{x}"}):
        text = json.dumps(value)
        assert prompt(text) == text
