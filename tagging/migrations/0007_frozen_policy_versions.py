"""The database refuses to change what a policy version says (see `prompts.triggers`)."""

from django.db import migrations

from prompts import triggers

RULES = (
    (
        "policyversion_frozen",
        "tagging_policyversion",
        "1 = 1",
        ("policy_id", "number", "spec", "digest"),
        "a policy version never changes: make a new one",
    ),
)


def install(apps, schema_editor):
    triggers.install(schema_editor, RULES)


def remove(apps, schema_editor):
    triggers.remove(schema_editor, RULES)


class Migration(migrations.Migration):
    dependencies = [("tagging", "0006_recompute"), ("prompts", "0002_frozen_versions")]
    operations = [migrations.RunPython(install, remove, elidable=False)]
