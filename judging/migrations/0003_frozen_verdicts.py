"""The database refuses changes to verdicts and to versions of judges (see `judging.triggers`)."""

from django.db import migrations

from judging import triggers


def install(apps, schema_editor):
    triggers.install(schema_editor)


def remove(apps, schema_editor):
    triggers.remove(schema_editor)


class Migration(migrations.Migration):
    dependencies = [("judging", "0002_judges")]
    operations = [migrations.RunPython(install, remove, elidable=False)]
