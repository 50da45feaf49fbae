"""docs/adapters.md, drawn from what the adapters say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import onnx_manifest, registry, variants
from .base import Adapter

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "iwtag-brightness"

HEAD = """\
# Models and their adapters

<!-- Drawn by `manage.py adapter_docs` from the adapters themselves: change them, not this page. -->

An adapter speaks to one family of models. A model is added in the administration (or found there, in the folders that
`IWTAG_MODELS_DIRS` names and in the hub's cache): its kind is the adapter's key, its source a folder, a name in a
models folder, a hub id or an address. What an adapter can do and which options it takes is data; the forms, the API and
this page are drawn from it.

In the tables of options, *chooses* marks an option that only chooses among stored scores and *how* one that only says
how the work is done: changing those runs no model again. All others are part of a prediction's identity. *model*
marks a setting of the configured model, made in its administration: no run, recipe or judge changes it.
"""
#: What is said of an option beside its help, and the mark in its schema that it stands for.
MARKS = {"chooses": "selection", "how": "operational", "model": "row"}

PROXIES = """\
## Originals or proxies

A run reads the original files or, with `read: proxy` (in the form, the API and `manage.py tag --read proxy`), the
1,024-pixel WebP renditions made at indexing. That takes a small part of the decoding and needs the originals not at
all. Proxies are sRGB, upright and lossy: probabilities differ a little (photo-lite on the sample photographs: 0.1 at
most, 0.2 on a transparent cut-out), so that what is read is part of a prediction's identity. An image without a proxy
is read from its original; its proposal is flagged `original_read`.
"""

DEVICES = """\
## Devices of the ONNX taggers

`device` is `auto`, `cpu`, or one of the providers that the installed onnxruntime brings: `cuda`, `tensorrt`, `rocm`,
`migraphx`, `directml`, `coreml`, `openvino`; `cuda:1` is the second card. `auto` takes the first of CUDA, MIGraphX,
ROCm, DirectML and CoreML that is there; TensorRT and OpenVINO are used by name only. A named device that does not start
is an error with its mend; `auto` falls back to the processor and says so on the run: the run's page shows the provider
that really computed. Only the processor was at hand for the tests; the order and the fallback are tested with the
lists that onnxruntime reports. On a processor one image a call on every core at once is fastest; on a device batches
grow while that pays and never above what fitted (`tagging/adapters/batching.py`).
"""

VARIANTS = """\
## Smaller forms

`manage.py quantize_model SLUG --to int8 --add` makes a form of an ONNX tagger in 8 bits beside its file, measures on
pictures (`--collection`, `--images`, else the samples) how far its scores are from the original's, writes that into a
JSON file of the same name, and adds a model that uses it. Kinds: {kinds}. Such a model has an identity of its own, so
that its scores are never mixed with the original's; a variant whose original was replaced is refused.
"""

MANIFEST = """\
## A manifest for `onnx`

`iwtag-model.yaml` (or `.json` with the same content) beside the model:

```yaml
{example}
```

`resize` is `crop` (the shorter side to `shorter_side`, the centre cut out), `pad` (all of it, a `border` around) or
`squash`. `scale` is applied to 0..255 first, then `mean` and `std`. `activation` is what turns the output into
probabilities: `none`, `sigmoid` or `softmax`. Labels are a list, a text file, a JSON file, or a CSV with `name` and
`category`. Each fault is named with its field.
"""

OWN = """\
## Your own adapter

A package adds adapters by the entry point group `iwtag.adapters`. This one is `docs/examples/iwtag-brightness`; the
tests install it with pip and hold it to the suite that all adapters pass (`tests/adapters/contract.py`).

```toml
{project}
```

```python
{code}
```
"""


def document() -> str:
    """The whole page."""
    kinds = "; ".join(f"`{kind}` ({what})" for kind, what in variants.KINDS.items())
    example = onnx_manifest.__doc__ or ""
    lines = [line[4:] for line in example.partition("\n\n")[2].splitlines()]
    project = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    code = (EXAMPLE / "iwtag_brightness.py").read_text(encoding="utf-8")
    families = [registry.adapter_class(key) for key in registry.BUILT_IN]
    families = sorted((f for f in families if f.about is not None), key=lambda f: f.label.lower())
    parts = [
        HEAD,
        "\n".join(overview(families)) + "\n",
        *("\n".join(section(family)) for family in families),
        PROXIES,
        DEVICES,
        VARIANTS.format(kinds=kinds),
        MANIFEST.format(example="\n".join(lines).strip()),
        OWN.format(project=project.strip(), code=code.strip()),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def overview(families: list[type[Adapter]]) -> Iterator[str]:
    yield "| key | family | gives | prompt | runs on |"
    yield "|---|---|---|---|---|"
    for family in families:
        told = family.capabilities
        gives = ", ".join(sorted(told.outputs)) + (" with probabilities" if told.scores else "")
        where = "an endpoint" if told.queue == "io" else "this machine"
        yield f"| `{family.key}` | {_cell(family.label)} | {gives} | {'yes' if told.prompt else 'no'} | {where} |"


def section(family: type[Adapter]) -> Iterator[str]:
    """One family."""
    about, told = family.about, family.capabilities
    assert about is not None
    yield f"## {family.label}"
    yield ""
    yield f"Key `{family.key}`. {about.summary}"
    yield ""
    yield f"- **Weights.** {about.weights}"
    yield f"- **Licence.** {about.licence}"
    yield f"- **Memory.** {about.memory}"
    yield f"- **Tested.** {about.tested}"
    if told.quantizations != ("none",):
        yield f"- **Quantization.** {', '.join(f'`{q}`' for q in told.quantizations)}"
    yield from (f"- {note}" for note in about.notes)
    rows = list(options(family))
    if rows:
        yield ""
        yield "| option | default | values | what it does |"
        yield "|---|---|---|---|"
        yield from rows
    yield ""


def options(family: type[Adapter]) -> Iterator[str]:
    """Rows of the table of options."""
    schema = family.Options.model_json_schema()
    for name, rule in schema.get("properties", {}).items():
        marks = [word for word, key in MARKS.items() if rule.get(key)]
        text = str(rule.get("description", "")).strip()
        mark = f" *{', '.join(marks)}*" if marks else ""
        default = _value(rule.get("default", ""))
        yield f"| `{name}` | {default} | {_cell(_range(rule, schema.get('$defs', {})))} | {_cell(text)}{mark} |"


def _range(rule: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    if "anyOf" in rule:
        kinds = [option for option in rule["anyOf"] if option.get("type") != "null"]
        text = " or ".join(_range(kind, named) for kind in kinds)
        return text + (", or empty" if len(kinds) < len(rule["anyOf"]) else "")
    if ref := rule.get("$ref"):
        return _range(named.get(str(ref).rpartition("/")[2], {}), named)
    if "enum" in rule:
        return ", ".join(str(value) for value in rule["enum"])
    if "const" in rule:
        return str(rule["const"])
    kind = str(rule.get("type", "anything"))
    low = rule.get("minimum", rule.get("exclusiveMinimum"))
    high = rule.get("maximum", rule.get("exclusiveMaximum"))
    words = {"boolean": "yes or no", "string": "text", "array": "a list", "object": "a mapping"}
    if kind not in ("number", "integer"):
        return words.get(kind, kind)
    whole = "whole number" if kind == "integer" else "number"
    if low is None and high is None:
        return whole
    if high is None:
        return f"{whole} from {low:g}"
    return (
        f"{whole} up to {high:g}" if low is None else f"{low:g} to {high:g}" + (", whole" if kind == "integer" else "")
    )


def _value(value: Any) -> str:
    if value in ("", None, [], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{_cell(str(value))}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
