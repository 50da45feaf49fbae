"""The committed schema is what clients are made from: it changes only on purpose."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

from django.core.management import call_command

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
MEND = "manage.py export_openapi_schema --api iwtag_site.api.api --indent 2 --sorted --output docs/openapi.json"


def test_the_committed_schema_is_current():
    out = StringIO()
    call_command("export_openapi_schema", api="iwtag_site.api.api", stdout=out)
    assert json.loads(out.getvalue()) == json.loads(COMMITTED.read_text()), f"run: {MEND}"


def test_every_operation_is_named_and_explained():
    paths = json.loads(COMMITTED.read_text())["paths"]
    operations = [o for methods in paths.values() for o in methods.values()]
    ids = [o["operationId"] for o in operations]
    assert len(set(ids)) == len(ids)
    assert [o["operationId"] for o in operations if not o.get("summary") or not o.get("tags")] == []


def test_no_two_schemas_share_a_name():
    """The document knows them by name alone: of two, one would be described as the other."""
    from ninja import Schema

    def below(kind):
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    ours = {
        one for one in below(Schema) if one.__module__.split(".")[0] in ("tagging", "judging", "exports", "iwtag_site")
    }
    names = sorted(one.__name__ for one in ours if "[" not in one.__name__)
    assert [name for name in set(names) if names.count(name) > 1] == []
