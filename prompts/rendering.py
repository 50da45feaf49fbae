"""Prompt templates: Jinja2 in a sandbox with strict undefined, checked when they are saved.

Variables: `image.name`, `image.stem`, `image.folder`, `image.collection`, `image.captured_at`; `exif.Model` and any
other EXIF field (empty where the image has none); `tags` (the reviewed ones, or `tags('wd')` from a named run or
channel), each with `.name`, `.score`, `.category`; `caption` (or `caption('wd')`); `wordlist('slug')`; `max_tags`.
Any other name is a free variable and needs a default: `{{ subject | default('photograph') }}`. Single braces are plain
text, so JSON examples survive.

This module knows neither Django nor the database.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from .values import RenderContext, TagValues, WordValues

MAX_TEMPLATE = 50_000
MAX_RENDERED = 400_000
IMAGE_FIELDS = ("name", "stem", "folder", "collection", "captured_at")
VARIABLES = ("image", "exif", "tags", "caption", "wordlist", "max_tags")
#: methods and filters that make much out of little
_BOMBS = frozenset(["format", "format_map", "center", "ljust", "rjust", "zfill", "expandtabs", "replace", "translate"])
_BOMB_FILTERS = ("format", "center", "indent", "xmlattr", "replace", "pprint", "tojson")


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """What is wrong, where: `part` is "system" or "template", `line` counts from 1 (0: not known)."""

    part: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.part}, line {self.line}: {self.message}" if self.line else f"{self.part}: {self.message}"


class PromptError(ValueError):
    """A prompt cannot be saved or rendered; `problems` names each place."""

    def __init__(self, problems: Sequence[TemplateProblem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(str(p) for p in self.problems))


@dataclass(frozen=True, slots=True)
class Rendered:
    """What is sent to the model; part of a prediction's identity."""

    system: str
    prompt: str


class _Sandbox(ImmutableSandboxedEnvironment):
    """No attribute tricks, no huge strings from small templates."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _BOMBS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No `format` at all: a width is a bomb."""
        return None

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = all(isinstance(v, int | float) and abs(v) < 10**9 for v in (left, right))
        if operator == "**" or (operator in "*%" and not numbers):
            raise SecurityError(f"`{operator}` works on numbers only here")
        if operator == "+" and isinstance(left, str) and isinstance(right, str) and len(left) + len(right) > 100_000:
            raise SecurityError("the text grows too long")
        return super().call_binop(context, operator, left, right)


def _environment() -> _Sandbox:
    env = _Sandbox(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False, extensions=[])
    for name in _BOMB_FILTERS:
        env.filters.pop(name, None)
    env.globals = {"range": lambda *args: range(*args)[:1000]}
    env.filters["tojson"] = _tojson
    env.filters["replace"] = _replace
    return env


def _replace(value: Any, old: str, new: str) -> str:
    """Each `old` as `new`, as far as the text stays reasonable."""
    text, old, new = str(value), str(old), str(new)
    if len(text) + text.count(old) * len(new) > 100_000:
        raise SecurityError("the text grows too long")
    return text.replace(old, new)


def _tojson(value: Any) -> str:
    """Compact JSON of texts, numbers, tags and words."""
    if isinstance(value, TagValues | WordValues):
        value = [str(item) for item in value]
    return json.dumps(
        value if isinstance(value, str | int | float | list | dict | None) else str(value), ensure_ascii=False
    )


_env = _environment()


@lru_cache(maxsize=256)
def _template(source: str) -> Template:
    return _env.from_string(source)


# -- check at save time ----------------------------------------------------------------------------------------------
def check_template(
    source: str, *, part: str = "template", wordlists: Collection[str] | None = None, variables: Collection[str] = ()
) -> list[TemplateProblem]:
    """Everything wrong with a template: syntax, unknown variables, fields, filters and lists, with their lines.

    `wordlists`: the slugs there are (None: not checked). `variables`: free variables that will be given.
    """
    if len(source) > MAX_TEMPLATE:
        return [TemplateProblem(part, 0, f"longer than {MAX_TEMPLATE:,} characters")]
    try:
        tree = _env.parse(source)
        _env.compile(tree)
        tree = _env.parse(source)
    except TemplateSyntaxError as error:
        return [TemplateProblem(part, error.lineno, error.message or "cannot be read")]
    except RecursionError:
        return [TemplateProblem(part, 0, "nested too deeply")]
    problems = _unsupported(tree, part)
    problems += _unknown_names(tree, part, {*VARIABLES, *variables, *_env.globals})
    for getattr_node in tree.find_all(nodes.Getattr):
        problems += _unknown_field(getattr_node, getattr_node.attr, part)
    for getitem in tree.find_all(nodes.Getitem):
        problems += _unknown_field(getitem, getattr(getitem.arg, "value", None), part)
    if wordlists is not None:
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "wordlist":
                problems += _unknown_list(call, part, wordlists)
    return sorted(set(problems), key=lambda p: (p.line, p.message))


def _unsupported(tree: nodes.Template, part: str) -> list[TemplateProblem]:
    kinds = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    return [
        TemplateProblem(part, node.lineno, "a prompt cannot include other templates") for node in tree.find_all(kinds)
    ]


def _unknown_names(tree: nodes.Template, part: str, known: set[str]) -> list[TemplateProblem]:
    unknown = meta.find_undeclared_variables(tree) - known
    if not unknown:
        return []
    defaulted: set[int] = set()
    for node in tree.find_all(nodes.Filter):
        if node.name in ("default", "d") and isinstance(node.node, nodes.Name):
            defaulted.add(id(node.node))
    for test in tree.find_all(nodes.Test):
        if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name):
            defaulted.add(id(test.node))
    return [
        TemplateProblem(
            part,
            name.lineno,
            f"unknown variable {name.name!r}: there are {', '.join(VARIABLES)}; "
            f"a free one needs a default, {{{{ {name.name} | default('…') }}}}",
        )
        for name in tree.find_all(nodes.Name)
        if name.ctx == "load" and name.name in unknown and id(name) not in defaulted
    ]


def _unknown_field(node: nodes.Getattr | nodes.Getitem, attr: Any, part: str) -> list[TemplateProblem]:
    if isinstance(node.node, nodes.Name) and node.node.name == "image" and attr not in IMAGE_FIELDS:
        known = ", ".join(f"image.{f}" for f in IMAGE_FIELDS)
        return [TemplateProblem(part, node.lineno, f"unknown variable 'image.{attr}': there are {known}")]
    return []


def _unknown_list(call: nodes.Call, part: str, wordlists: Collection[str]) -> list[TemplateProblem]:
    slug = call.args[0].value if len(call.args) == 1 and isinstance(call.args[0], nodes.Const) else None
    if not isinstance(slug, str):
        return [TemplateProblem(part, call.lineno, "wordlist takes the list's name in quotes: wordlist('slug')")]
    if slug not in wordlists:
        return [TemplateProblem(part, call.lineno, f"there is no wordlist {slug!r}")]
    return []


def free_variables(source: str) -> dict[str, Any]:
    """Free variables of a template with their defaults (None where the default is no plain value)."""
    tree = _env.parse(source)
    known = {*VARIABLES, *_env.globals}
    found: dict[str, Any] = dict.fromkeys(sorted(meta.find_undeclared_variables(tree) - known))
    for node in tree.find_all(nodes.Filter):
        if (
            node.name in ("default", "d")
            and isinstance(node.node, nodes.Name)
            and node.node.name in found
            and node.args
        ):
            found[node.node.name] = getattr(node.args[0], "value", None)
    return found


def names_used(source: str) -> set[str]:
    """Which variables a template asks for, ours and free ones: what it does not use need not be looked up.

    Empty where it cannot be read: rendering says so.
    """
    try:
        return meta.find_undeclared_variables(_env.parse(source)) if "{" in source else set()
    except TemplateError:
        return set()


def wordlists_used(source: str) -> set[str]:
    """Slugs of the lists that a template writes out: a new version of one changes what the model is asked."""
    return {
        call.args[0].value
        for call in _env.parse(source).find_all(nodes.Call)
        if isinstance(call.node, nodes.Name)
        and call.node.name == "wordlist"
        and call.args
        and isinstance(call.args[0], nodes.Const)
    }


# -- render ----------------------------------------------------------------------------------------------------------
def render(system: str, template: str, context: RenderContext) -> Rendered:
    """Both texts for one image, trimmed. PromptError names the part and the line."""
    values = context.as_dict()
    return Rendered(_render(system, "system", values), _render(template, "template", values))


def _render(source: str, part: str, values: Mapping[str, Any]) -> str:
    if "{" not in source:
        return source.strip()
    pieces: list[str] = []
    size = 0
    try:
        for piece in _template(source).generate(**values):
            size += len(piece)
            if size > MAX_RENDERED:
                raise SecurityError(f"the text grows beyond {MAX_RENDERED:,} characters")
            pieces.append(piece)
    except TemplateSyntaxError as error:
        raise PromptError([TemplateProblem(part, error.lineno, error.message or "cannot be read")]) from None
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise PromptError([TemplateProblem(part, _line(error), str(error) or type(error).__name__)]) from None
    return "".join(pieces).strip()


def _line(error: BaseException) -> int:
    """The template's line where rendering failed."""
    line, step = 0, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "<template>":
            line = step.tb_lineno
        step = step.tb_next
    return line
