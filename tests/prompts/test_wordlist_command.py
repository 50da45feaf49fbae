"""manage.py wordlist: in, out, shown."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from prompts.models import Wordlist

pytestmark = pytest.mark.django_db


def run(*args: object) -> str:
    out = StringIO()
    call_command("wordlist", *map(str, args), stdout=out)
    return out.getvalue()


def test_words_come_in_and_go_out(tmp_path):
    source = tmp_path / "No Go.txt"
    source.write_text("mood\n=sea\n")
    with pytest.raises(CommandError, match="say its --kind"):
        run("import", source)
    assert run("import", source, "--kind", "banned") == "no-go v1: 2 entries\n"
    source.write_text("fox\n")
    assert run("import", source, "--append", "--message", "a fox") == "no-go v2: 3 entries\n"
    target = tmp_path / "out.csv"
    run("export", "no-go", target, "--format", "csv", "--number", 1)
    assert target.read_text().splitlines()[1:] == ["mood,word,ignore,,,,,", "sea,exact,ignore,,,,,"]
    assert run("show") == "no-go\tbanned\tv2, 3 entries\n"
    assert run("show", "no-go").splitlines()[0] == "v2\t3 entries\ta fox"


def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path):
    source = tmp_path / "bad.txt"
    source.write_text("ok\n/(/\n")
    with pytest.raises(CommandError, match="line 2"):
        run("import", source, "--kind", "banned")
    assert not Wordlist.objects.exists()
    with pytest.raises(CommandError, match="no wordlist 'x'"):
        run("export", "x", "-")
    with pytest.raises(CommandError):
        run("import", tmp_path / "missing.txt", "--kind", "banned")
