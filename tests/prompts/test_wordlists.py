"""The text form of wordlists and the formats of other programs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.formats import FORMATS, export_entries, import_entries
from prompts.wordlists import Entry, WordlistError, check_entries, format_text, parse_entry, parse_text


@pytest.mark.parametrize(
    ("line", "kind", "fields"),
    [
        ("cat", "banned", {"text": "cat"}),
        ("  black   cat ", "banned", {"text": "black cat"}),
        ("=mood", "banned", {"text": "mood", "match": "exact"}),
        ("*_hair", "banned", {"text": "*_hair", "match": "wildcard"}),
        ("what?", "forced", {"text": "what?"}),
        ("/o/", "trigger", {"text": "/o/"}),
        (r"/^\d+girls?$/ # counts", "banned", {"text": r"^\d+girls?$", "match": "regex", "note": "counts"}),
        ("/x/ # either / or", "banned", {"text": "x", "match": "regex", "note": "either / or"}),
        ("colour -> color", "replacement", {"text": "colour", "replacement": "color"}),
        ("teal ->", "replacement", {"text": "teal", "replacement": ""}),
        (
            'dog = doggo, "pup, small" < animal @fauna !case # say "hi"',
            "vocabulary",
            {
                "text": "dog",
                "aliases": ["doggo", "pup, small"],
                "parent": "animal",
                "category": "fauna",
                "case": "match",
                "note": 'say "hi"',
            },
        ),
        ('"=_="', "banned", {"text": "=_="}),
        ('="*_*"', "banned", {"text": "*_*", "match": "exact"}),
        (r'"say \"hi\""', "vocabulary", {"text": 'say "hi"'}),
        (">_<", "vocabulary", {"text": ">_<"}),
        ("@_@", "vocabulary", {"text": "@_@"}),
        ("c# language", "vocabulary", {"text": "c# language"}),
    ],
)
def test_a_line_is_read_as_documented(line, kind, fields):
    assert parse_entry(line, kind).as_json() == fields


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=15).filter(lambda t: t.split())
SIGNS = ["=_=", "@_@", "@", "a < b", "# x", "#", "/o/", '"q"', "a, b", "*", "\\", "->", "!case", "<", "="]
entries = st.builds(
    Entry,
    text=st.one_of(
        texts, st.sampled_from(["=_=", "@_@", "a < b", "# x", "/o/", '"q"', "a, b", "*", "\\", "->", "!case"])
    ),
    match=st.sampled_from(["word", "exact"]),
    case=st.sampled_from(["ignore", "match"]),
    aliases=st.lists(st.one_of(texts, st.sampled_from(SIGNS)), max_size=3).map(tuple),
    parent=st.one_of(st.just(""), texts, st.sampled_from(SIGNS)),
    category=st.sampled_from(["", "general", "two words"]),
    replacement=st.one_of(st.none(), texts, st.just("")),
)


@settings(max_examples=400, deadline=None)
@given(entries)
def test_what_is_written_is_read_back(entry):
    kind = "vocabulary" if entry.replacement is None else "replacement"
    assert parse_text(format_text([entry], kind), kind) == [entry]


def test_wildcards_and_regular_expressions_are_read_back():
    source = "*_hair\n/^a/\n/a\\x2f b/ # note\n"
    assert format_text(parse_text(source, "banned"), "banned") == source
    assert parse_text(format_text([Entry(text="a/ b", match="regex")]))[0].text == r"a\x2f b"


def test_errors_name_every_line():
    with pytest.raises(WordlistError) as caught:
        parse_text("cat\n\n/(/\n# note\ndog -> hund\n" + "x" * 600, "banned")
    assert [p.line for p in caught.value.problems] == [3, 5, 6]
    assert str(caught.value).startswith("line 3: the regular expression does not compile")
    assert "'dog' has a replacement, but this is a banned list" in str(caught.value)


def test_stored_entries_are_checked_for_their_kind():
    assert check_entries(["cat", "cat", {"text": "dog"}], "banned") == [Entry(text="cat"), Entry(text="dog")]
    with pytest.raises(WordlistError, match="line 1: 'a\\*' is a pattern; a forced word is written out"):
        check_entries([{"text": "a*", "match": "wildcard"}], "forced")
    with pytest.raises(WordlistError, match="line 1: typo: Extra inputs"):
        check_entries([{"text": "a", "typo": 1}], "banned")


LIGHTROOM = "[NATURE]\n\tanimal\n\t\tdog\n\t\t\t{hound}\n\t\t\t{canine}\n\t\tcat\n\ttree\nphoto\n"


def test_lightroom_keywords_keep_hierarchy_synonyms_and_hidden_ones():
    found = import_entries(("\ufeff" + LIGHTROOM).encode(), "lightroom", "vocabulary")
    assert [(e.text, e.parent, e.aliases, e.note) for e in found] == [
        ("NATURE", "", (), "not exported"),
        ("animal", "NATURE", (), ""),
        ("dog", "animal", ("hound", "canine"), ""),
        ("cat", "animal", (), ""),
        ("tree", "NATURE", (), ""),
        ("photo", "", (), ""),
    ]
    assert export_entries(found, "lightroom", "vocabulary") == LIGHTROOM


def test_lightroom_export_survives_circles_and_missing_parents():
    loop = [Entry(text="a", parent="b"), Entry(text="b", parent="a"), Entry(text="oak", parent="tree")]
    lines = export_entries(loop, "lightroom", "vocabulary").splitlines()
    assert sorted(line.strip() for line in lines) == ["[tree]", "a", "b", "oak"]


def test_danbooru_csv_with_and_without_aliases():
    found = import_entries('1girl,0,6000000,"1girls,sole_female"\nhatsune_miku,4,100,\n>_<,0\n', "danbooru", "banned")
    assert [(e.text, e.category, e.aliases, e.match) for e in found] == [
        ("1girl", "general", ("1girls", "sole_female"), "exact"),
        ("hatsune_miku", "character", (), "exact"),
        (">_<", "general", (), "exact"),
    ]


def test_wd_tags_leave_the_ratings_out_and_name_bad_lines():
    text = "tag_id,name,category,count\n1,safe,9,5\n2,1girl,0,5\n3,saber,4,5\n"
    assert [e.text for e in import_entries(text, "wd", "vocabulary")] == ["1girl", "saber"]
    with pytest.raises(WordlistError, match="line 3: 1 cells where the heading has 4; line 4: 'x' is no category"):
        import_entries("tag_id,name,category,count\n2,1girl,0,5\noops\n3,saber,x,5\n", "wd", "vocabulary")
    with pytest.raises(WordlistError, match=r"line 1: a selected_tags\.csv has the columns"):
        import_entries("1,2\n", "wd", "vocabulary")


def test_ram_list_takes_its_other_language_line_for_line():
    found = import_entries("dog\ncat\n", "ram", "vocabulary", variants="狗\n猫\n".encode())
    assert [(e.text, e.aliases) for e in found] == [("dog", ("狗",)), ("cat", ("猫",))]
    with pytest.raises(WordlistError, match="line 2: 2 tags but 1 in the other language"):
        import_entries("dog\ncat\n", "ram", "vocabulary", variants="狗\n")


def test_csv_names_unknown_columns_and_bad_cells():
    with pytest.raises(WordlistError, match="line 1: unknown column 'tagg'"):
        import_entries("text,tagg\na,b\n", "csv", "banned")
    with pytest.raises(WordlistError, match="line 3: match: Input should be"):
        import_entries("text,match\na,word\nb,fuzzy\n", "csv", "banned")


@settings(max_examples=100, deadline=None)
@given(st.lists(entries, max_size=5, unique=True))
def test_csv_is_read_back(found):
    found = [e.model_copy(update={"aliases": tuple(a for a in e.aliases if "|" not in a)}) for e in found]
    found = [e.model_copy(update={"replacement": None}) for e in found]
    found = list(dict.fromkeys(found))
    assert import_entries(export_entries(found, "csv", "vocabulary"), "csv", "vocabulary") == found


@pytest.mark.parametrize("format", [f for f, (_, _, export) in FORMATS.items() if export])
def test_thousands_of_entries_are_quick_in_every_format(format):
    import time

    many = [Entry(text=f"word {i}") for i in range(20_000)]
    start = time.perf_counter()
    again = import_entries(export_entries(many, format, "vocabulary"), format, "vocabulary")
    assert [e.text for e in again] == [e.text for e in many]
    assert time.perf_counter() - start < 5


def test_unreadable_files_say_what_to_do():
    with pytest.raises(WordlistError, match="line 2: not UTF-8: save the file as UTF-8"):
        import_entries(b"cat\ncaf\xe9\n", "text", "banned")
    assert import_entries("cat".encode("utf-16"), "text", "banned") == [Entry(text="cat")]
    with pytest.raises(LookupError, match="no list format 'xml'; known: text, csv"):
        import_entries("", "xml", "banned")
    with pytest.raises(LookupError, match="not exported"):
        export_entries([], "wd", "banned")
