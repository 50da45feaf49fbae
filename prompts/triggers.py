"""The database itself refuses to change a prompt version that a run used, and any wordlist version.

Written per vendor because Django has no triggers. A later migration that alters one of these tables on SQLite makes the
table anew and loses them: call `install` again there (a test holds that they are present).
"""

from __future__ import annotations

from typing import Any

#: (trigger, table, when a change is refused (OLD and NEW rows; `same` compares without NULL trouble), the text)
RULES = (
    (
        "promptversion_frozen",
        "prompts_promptversion",
        "OLD.used_at IS NOT NULL",
        ("prompt_id", "number", "system", "template", "response_schema", "digest", "used_at"),
        "this prompt version was used by a run and cannot change: save it as a new version",
    ),
    (
        "wordlistversion_frozen",
        "prompts_wordlistversion",
        "1 = 1",
        ("wordlist_id", "number", "entries", "digest"),
        "a wordlist version never changes: make a new one",
    ),
)


def install(schema_editor: Any, rules: tuple[tuple[Any, ...], ...] = RULES) -> None:
    """Make the triggers, anew where they are. SQLite and PostgreSQL; other databases have only the model's refusal."""
    vendor = schema_editor.connection.vendor
    for name, table, when, columns, text in rules:
        remove(schema_editor, rules=((name, table, when, columns, text),))
        if vendor == "sqlite":
            changed = " OR ".join(f"OLD.{c} IS NOT NEW.{c}" for c in columns)
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE UPDATE ON {table} WHEN {when} AND ({changed}) "
                f"BEGIN SELECT RAISE(ABORT, '{text}'); END"
            )
        elif vendor == "postgresql":
            # jsonb compares by value; everything else by itself
            changed = " OR ".join(f"OLD.{c} IS DISTINCT FROM NEW.{c}" for c in columns)
            schema_editor.execute(
                f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"RAISE EXCEPTION '{text}' USING ERRCODE = 'check_violation'; END $$"
            )
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({when} AND ({changed})) "
                f"EXECUTE FUNCTION {name}()"
            )


def remove(schema_editor: Any, rules: tuple[tuple[Any, ...], ...] = RULES) -> None:
    """Take the triggers away (the way back of the migration)."""
    vendor = schema_editor.connection.vendor
    for name, table, *_ in rules:
        if vendor == "sqlite":
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {name}")
        elif vendor == "postgresql":
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {name} ON {table}")
            schema_editor.execute(f"DROP FUNCTION IF EXISTS {name}()")
