"""What a template may use, as the panel beside the editor shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """`insert` is what a click writes; `mark` the part of it that is then selected, to be written over."""

    name: str
    insert: str
    meaning: str
    mark: str = ""


VARIABLES: tuple[tuple[str, tuple[Variable, ...]], ...] = (
    (
        "The image",
        (
            Variable("image.name", "{{ image.name }}", "file name"),
            Variable("image.stem", "{{ image.stem }}", "file name without its ending"),
            Variable("image.folder", "{{ image.folder }}", "folder within the collection"),
            Variable("image.collection", "{{ image.collection }}", "name of the collection"),
            Variable("image.captured_at", "{{ image.captured_at }}", "when it was taken, 2024-05-06 07:08"),
            Variable("exif.…", "{{ exif.Model }}", "any EXIF field; empty where the image has none", "Model"),
        ),
    ),
    (
        "What is known of it",
        (
            Variable("tags", "{{ tags }}", "reviewed tags, with commas"),
            Variable("tags('…')", "{{ tags('wd') }}", "tags of a run or an earlier channel, by name", "wd"),
            Variable(
                "tags with scores",
                "{% for tag in tags %}{{ tag.name }} ({{ tag.score | round(2) }}) {% endfor %}",
                "each tag has name, score, category",
            ),
            Variable("caption", "{{ caption }}", "the reviewed caption, or that of an earlier channel"),
            Variable("caption('…')", "{{ caption('wd') }}", "caption of a run or an earlier channel", "wd"),
        ),
    ),
    (
        "Rules",
        (Variable("max_tags", "{{ max_tags }}", "the policy's limit; empty without one"),),
    ),
    (
        "Your own",
        (
            Variable(
                "free variable",
                "{{ subject | default('photograph') }}",
                "any other name, with a default; a recipe can set it",
                "subject",
            ),
            Variable("if", "{% if tags %}…{% endif %}", "only where there is something", "…"),
        ),
    ),
)
