"""On SQLite, ImageTag becomes a WITHOUT ROWID table: the primary key is the table (about half the bytes a tag).

Django has no option for it, so the empty table is made again from its own stored definition.
A later migration that alters ImageTag must do the same again: SQLite's table remake would drop the option.
"""

from django.db import migrations


def remake(apps, schema_editor):
    if schema_editor.connection.vendor != "sqlite":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'tagging_imagetag'")
        (table,) = cursor.fetchone()
        cursor.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'tagging_imagetag' AND sql IS NOT NULL"
        )
        indexes = [sql for (sql,) in cursor.fetchall()]
        cursor.execute("SELECT COUNT(*) FROM tagging_imagetag")
        if cursor.fetchone() != (0,):
            raise RuntimeError("tagging_imagetag is not empty: it can only be remade right after it was created")
        cursor.execute("DROP TABLE tagging_imagetag")
        cursor.execute(f"{table} WITHOUT ROWID")
        for sql in indexes:
            cursor.execute(sql)


class Migration(migrations.Migration):
    dependencies = [("tagging", "0001_initial")]
    operations = [migrations.RunPython(remake, migrations.RunPython.noop, elidable=False)]
