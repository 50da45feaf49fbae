"""The database refuses changes to used prompt versions and to wordlist versions (see `prompts.triggers`)."""

from django.db import migrations

from prompts import triggers


def install(apps, schema_editor):
    triggers.install(schema_editor)


def remove(apps, schema_editor):
    triggers.remove(schema_editor)


class Migration(migrations.Migration):
    dependencies = [("prompts", "0001_initial")]
    operations = [migrations.RunPython(install, remove, elidable=False)]
