"""Prompts as files: front matter and template, a folder of them at once; profiles of Imageworks.

    ---
    name: Short tags
    task: tags
    families: [florence]
    message: Fewer adjectives
    ---
    ## system
    You are brief.
    ## template
    Tag {{ image.name }}

The front matter is YAML with plain values (slug, name, task, families, message, response_schema). Without the headings
the whole text is the template. This module knows neither Django nor the database.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .rendering import PromptError, TemplateProblem
from .taggui import from_taggui

ENDINGS = (".md", ".txt", ".jinja", ".j2")
MAX_BYTES = 1_000_000
#: prompts in a zip
MAX_FILES = 1000
_FRONT = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_PART = re.compile(r"^## (system|template)[ \t]*\n", re.MULTILINE)
_FIELDS = {"slug": str, "name": str, "task": str, "families": list, "message": str, "response_schema": dict}
_TASKS = ("tags", "caption", "merge", "judge", "pairwise")


@dataclass(frozen=True)
class PromptFile:
    """One prompt as a file says it. `message` may be empty: the importer then names the file."""

    slug: str
    template: str
    system: str = ""
    name: str = ""
    task: str = "tags"
    families: tuple[str, ...] = ()
    message: str = ""
    response_schema: dict[str, Any] | None = field(default=None, hash=False)


def slug_of(name: str) -> str:
    """A slug from a file's or profile's name: letters, digits, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:80] or "prompt"


def read(text: str, name: str, *, taggui: bool = False) -> PromptFile:
    """A prompt file. PromptError names the line of the front matter that is wrong. `name`: the file's name."""
    text = text.lstrip("\ufeff").replace("\r\n", "\n")
    front = _FRONT.match(text)
    values = _front_matter(front.group(1), name) if front else {}
    body = text[front.end() :] if front else text
    parts = _PART.split(body)
    if len(parts) > 1 and not parts[0].strip():
        found = dict(zip(parts[1::2], parts[2::2], strict=True))
        system, template = found.get("system", "").strip(), found.get("template", "").strip()
    else:
        system, template = "", body.strip()
    if taggui:
        system, template = from_taggui(system), from_taggui(template)
    stem = Path(name).stem
    return PromptFile(
        slug=values.get("slug") or slug_of(stem),
        template=template,
        system=system,
        name=values.get("name", stem),
        task=values.get("task", "tags"),
        families=tuple(values.get("families", ())),
        message=values.get("message", ""),
        response_schema=values.get("response_schema"),
    )


def _front_matter(text: str, name: str) -> dict[str, Any]:
    def wrong(line: int, message: str) -> PromptError:
        return PromptError([TemplateProblem(name, line, message)])

    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        raise wrong(mark.line + 2 if mark else 1, f"the front matter cannot be read: {problem}") from None
    if not isinstance(values, dict):
        raise wrong(2, "the front matter has lines such as `task: tags`")
    lines = text.splitlines()
    for key, value in values.items():
        at = next((i for i, line in enumerate(lines, 2) if line.startswith(f"{key}:")), 2)
        if key not in _FIELDS:
            raise wrong(at, f"unknown field {key!r}; there are {', '.join(_FIELDS)}")
        if not isinstance(value, _FIELDS[key]):
            raise wrong(at, f"{key} is {'text' if _FIELDS[key] is str else 'a ' + _FIELDS[key].__name__}")
        if key == "task" and value not in _TASKS:
            raise wrong(at, f"unknown task {value!r}; there are {', '.join(_TASKS)}")
        if key == "families" and not all(isinstance(f, str) for f in value):
            raise wrong(at, "families is a list of names")
    return values


def write(prompt: PromptFile) -> str:
    """The file that `read` reads back as the same prompt."""
    values: dict[str, Any] = {"slug": prompt.slug, "name": prompt.name, "task": prompt.task}
    if prompt.families:
        values["families"] = list(prompt.families)
    if prompt.message:
        values["message"] = prompt.message
    if prompt.response_schema is not None:
        values["response_schema"] = prompt.response_schema
    front = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10_000)
    system = f"## system\n{prompt.system}\n" if prompt.system else ""
    return f"---\n{front}---\n{system}## template\n{prompt.template}\n"


def read_folder(folder: Path, *, taggui: bool = False) -> list[PromptFile]:
    """All prompt files of a folder, by name. PromptError names every file that cannot be used."""
    found: list[PromptFile] = []
    problems: list[TemplateProblem] = []
    for path in sorted(folder.iterdir()):
        if path.suffix.casefold() not in ENDINGS or path.name.startswith(".") or not path.is_file():
            continue
        try:
            if path.stat().st_size > MAX_BYTES:
                raise PromptError([TemplateProblem(path.name, 0, "larger than 1 MB")])
            found.append(read(path.read_text(encoding="utf-8-sig"), path.name, taggui=taggui))
        except UnicodeDecodeError:
            problems.append(TemplateProblem(path.name, 0, "not UTF-8"))
        except PromptError as error:
            problems.extend(error.problems)
    problems += _repeated(found)
    if problems:
        raise PromptError(problems)
    return found


def read_files(files: Iterable[tuple[str, bytes]], form: str = "ours") -> list[PromptFile]:
    """Prompts of several files (name, bytes); a .zip counts as the files in it, a .json as a profile of Imageworks.

    `form`: ours, taggui or imageworks. PromptError names every file that cannot be used.
    """
    found: list[PromptFile] = []
    problems: list[TemplateProblem] = []
    for name, data in _unpacked(files, problems):
        try:
            text = data.decode("utf-8-sig")
            profile = form == "imageworks" or name.casefold().endswith(".json")
            found += from_imageworks(text) if profile else [read(text, name, taggui=form == "taggui")]
        except UnicodeDecodeError:
            problems.append(TemplateProblem(name, 0, "not UTF-8"))
        except PromptError as error:
            problems += [TemplateProblem(name, p.line, p.message) for p in error.problems]
    problems += _repeated(found)
    if problems:
        raise PromptError(problems)
    if not found:
        raise PromptError([TemplateProblem("files", 0, f"no prompt was found: {', '.join(ENDINGS)} or .json")])
    return found


def _unpacked(files: Iterable[tuple[str, bytes]], problems: list[TemplateProblem]) -> Iterable[tuple[str, bytes]]:
    """Files, those of zips among them; what a zip holds besides prompts is left out."""
    for name, data in files:
        if not name.casefold().endswith(".zip"):
            yield name, data
            continue
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                inside = [i for i in archive.infolist() if not i.is_dir() and _is_prompt(i.filename)]
                if len(inside) > MAX_FILES or sum(i.file_size for i in inside) > MAX_FILES * 20_000:
                    problems.append(TemplateProblem(name, 0, f"holds over {MAX_FILES:,} prompts, or very long ones"))
                    continue
                for item in inside:
                    if item.file_size > MAX_BYTES:
                        problems.append(TemplateProblem(item.filename, 0, "larger than 1 MB"))
                    else:
                        yield item.filename.rpartition("/")[2], archive.read(item)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError) as error:
            problems.append(TemplateProblem(name, 0, f"not a zip that can be read: {error}"))


def _is_prompt(path: str) -> bool:
    name = path.rpartition("/")[2]
    hidden = name.startswith(".") or "__MACOSX" in path
    return not hidden and name.casefold().endswith((*ENDINGS, ".json"))


def _repeated(found: Iterable[PromptFile]) -> list[TemplateProblem]:
    slugs = [prompt.slug for prompt in found]
    return [TemplateProblem(s, 0, "two files have this slug") for s in sorted({s for s in slugs if slugs.count(s) > 1})]


_STAGES = {"caption": "caption", "keywords": "tags", "keyword": "tags", "description": "caption"}


def from_imageworks(text: str) -> list[PromptFile]:
    """A prompt profile of Imageworks' personal tagger (or several): one prompt per stage.

    A profile has a name or id and, for the stages caption, keywords and description, a `system` and a `user_template`;
    `{caption}`, `{keywords}` and other fields in braces become our variables where we have one and stay text otherwise.
    PromptError when it is not JSON or has no such stage.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        raise PromptError([TemplateProblem("profile", line, "not JSON")]) from None
    profiles = value.get("profiles", value) if isinstance(value, dict) else value
    if isinstance(profiles, dict):
        named = all(isinstance(p, dict) for p in profiles.values()) and not set(profiles) & {"stages", *_STAGES}
        profiles = [{"name": k, **p} for k, p in profiles.items()] if named else [profiles]
    found = [p for profile in profiles if isinstance(profile, dict) for p in _stages(profile)]
    if not found:
        raise PromptError([TemplateProblem("profile", 0, "no stage with a user_template was found")])
    return found


def _stages(profile: dict[str, Any]) -> Iterable[PromptFile]:
    name = str(profile.get("name") or profile.get("label") or profile.get("id") or "profile")
    stages = profile.get("stages")
    for stage, task in _STAGES.items():
        part = (stages if isinstance(stages, dict) else profile).get(stage)
        if not isinstance(part, dict):
            continue
        template = part.get("user_template") or part.get("user") or part.get("template")
        if not isinstance(template, str) or not template.strip():
            continue
        yield PromptFile(
            slug=slug_of(f"{name} {stage}"),
            name=f"{name}: {stage}",
            task=task,
            system=_fields(str(part.get("system") or "")),
            template=_fields(template),
            message=f"Imported from the Imageworks profile {name}"[:200],
        )


def _fields(text: str) -> str:
    """str.format fields as our variables, doubled braces as single ones."""
    text = text.replace("{{", "\x02").replace("}}", "\x03")
    names = {"caption": "caption", "keywords": "tags", "keyword_preview": "tags", "max_keywords": "max_tags"}
    text = re.sub(r"\{(\w+)\}", lambda m: f"{{{{ {names[m.group(1)]} }}}}" if m.group(1) in names else m.group(), text)
    return text.replace("\x02", "{").replace("\x03", "}")
