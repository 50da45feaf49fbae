"""The database itself refuses to change a verdict, or a version of a judge (see `prompts.triggers`)."""

from __future__ import annotations

from typing import Any

from prompts import triggers

RULES = (
    (
        "judgeversion_frozen",
        "judging_judgeprofileversion",
        "1 = 1",
        tuple(
            "profile_id number digest adapter_id adapter_config options prompt_version_id rubric rules examples".split()
        ),
        "a version of a judge never changes: make a new one",
    ),
    (
        "judgeverdict_frozen",
        "judging_judgeverdict",
        "1 = 1",
        tuple(
            "key version_id image_sha256 kind sample state problem subject result overall weight flags outcome flip "
            "first_seats seats predictions created_at".split()
        ),
        "a verdict never changes",
    ),
    (
        "judgedtag_frozen",
        "judging_judgedtag",
        "1 = 1",
        ("verdict_id", "version_id", "name", "category", "role", "word", "p_ok", "certainty", "evidence"),
        "a verdict never changes",
    ),
)


def install(schema_editor: Any) -> None:
    triggers.install(schema_editor, RULES)


def remove(schema_editor: Any) -> None:
    triggers.remove(schema_editor, RULES)
