"""On SQLite, ChannelResult becomes a WITHOUT ROWID table, as ImageTag is: the primary key is the table.

A later migration that alters ChannelResult must do the same again: SQLite's table remake would drop the option.
"""

from __future__ import annotations

from django.db import migrations

TABLE = "tagging_channelresult"


def remake(apps, schema_editor):
    if schema_editor.connection.vendor != "sqlite":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{TABLE}'")
        (table,) = cursor.fetchone()
        cursor.execute(
            f"SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '{TABLE}' AND sql IS NOT NULL"
        )
        indexes = [sql for (sql,) in cursor.fetchall()]
        cursor.execute(f"SELECT COUNT(*) FROM {TABLE}")
        if cursor.fetchone() != (0,):
            raise RuntimeError(f"{TABLE} is not empty: it can only be remade right after it was created")
        cursor.execute(f"DROP TABLE {TABLE}")
        cursor.execute(f"{table} WITHOUT ROWID")
        for sql in indexes:
            cursor.execute(sql)


class Migration(migrations.Migration):
    dependencies = [("tagging", "0010_channels_and_samples")]
    operations = [migrations.RunPython(remake, migrations.RunPython.noop, elidable=False)]
