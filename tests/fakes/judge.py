"""A scripted judge: an adapter that reads the question it is put and answers as its `manner` says.

It reads ids and texts out of the JSON in the prompt, as a language model would. The truth it knows by image name:
`truth` maps it to the tags that are right. It never opens the file.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from tagging.adapters.base import (
    Adapter,
    AdapterError,
    AdapterOptions,
    Capabilities,
    ImageInput,
    Problem,
    Reply,
    Request,
)

HOW = {"operational": True}


class Scripted(Adapter):
    key = "scripted"
    label = "Scripted judge"
    capabilities = Capabilities(
        outputs=frozenset({"caption"}), prompt=True, system=True, structured_output=True, queue="io"
    )
    preparation = "scripted 1"

    class Options(AdapterOptions):
        manner: str = Field("honest", description="honest, yes, no, first, second, silent, obedient, stubborn, …")
        model: str = "scripted-1"
        truth: dict[str, list[str]] = Field({}, json_schema_extra=HOW)
        slow_ms: int = Field(0, json_schema_extra=HOW)
        kill_at: int = Field(0, json_schema_extra=HOW, description="Question at which the process dies, once.")
        hang_at: int = Field(0, json_schema_extra=HOW, description="Question at which the call hangs, once.")
        log: str = Field("", json_schema_extra=HOW, description="File that gets a line for each question.")
        price_in: float = Field(0, json_schema_extra=HOW)
        price_out: float = Field(0, json_schema_extra=HOW)

    asked: list[tuple[str, str, str]] = []  # (system, prompt, image) of this process, newest last

    def check(self) -> list[Problem]:
        return []

    def identity(self) -> dict[str, Any]:
        return {"model": cast(Scripted.Options, self.options()).model}

    def load(self) -> None:
        """Nothing to load."""

    def unload(self) -> None:
        """Nothing to free."""

    def prepare(self, image: ImageInput, request: Request) -> tuple[str, Request]:
        return Path(image.name).name, request

    def infer(self, batch: Sequence[tuple[str, Request]], request: Request) -> Iterator[Reply | AdapterError]:
        for name, own in batch:
            options = cast(Scripted.Options, own.options)
            Scripted.asked.append((own.system, own.prompt, name))
            time.sleep(options.slow_ms / 1000)
            if options.log:
                with open(options.log, "a", encoding="utf-8") as f:
                    f.write(f"{name}\n")
                lines = Path(options.log).read_text().count("\n")
                if options.kill_at and lines == options.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                if options.hang_at and lines == options.hang_at:
                    time.sleep(3600)
            if options.manner == "broken":
                yield AdapterError("the server is away")
                continue
            yield Reply(text=answer(own.prompt, name, options), tokens_in=100, tokens_out=10, finish_reason="stop")


def answer(prompt: str, name: str, options: Any) -> str:
    manner, right = options.manner, {tag.casefold() for tag in options.truth.get(name, ())}
    if manner == "silent":
        return "I would rather not say."
    if '"first"' in prompt and '"in_both"' in prompt:
        sides = json.loads(_last_json(prompt, "{"))
        if manner in ("first", "second", "tie"):
            return json.dumps({"evidence": "a seat", "winner": manner})
        good = [sum(1 if t.casefold() in right else -1 for t in sides[seat]) for seat in ("first", "second")]
        winner = "tie" if good[0] == good[1] else "first" if good[0] > good[1] else "second"
        return json.dumps({"evidence": "counted", "winner": winner})
    items = json.loads(_last_json(prompt, "["))
    if items and "claim" in items[0]:
        claims = [
            {
                "id": i["id"],
                "evidence": "seen",
                "verdict": "supported" if i["claim"].casefold() in right else "contradicted",
            }
            for i in items
        ]
        more = {"same_meaning": 80} if "same_meaning" in prompt else {}
        return json.dumps({"claims": claims, "omissions": [], **more})
    rows = []
    for item in items:
        good = manner == "yes" or (manner != "no" and item["tag"].casefold() in right)
        if manner == "obedient":  # a judge that does what any tag tells it
            good = good or any(re.search(r"(?i)everything is fine|all good", i["tag"]) for i in items)
        rows.append(
            {
                "id": item["id"],
                "evidence": f"{'saw' if good else 'did not see'} {item['tag']}",
                "verdict": "correct" if good else "wrong",
                "p_correct": 0.97 if good else 0.03,
            }
        )
    if manner == "forgetful" or (manner == "once" and "could not be used" not in prompt):
        rows = rows[:-1]
    if manner == "echo":  # repeats JSON that it finds in the content, as if it were its own
        found = re.findall(r'\{[^{}]*"verdict"[^{}]*\}', "\n".join(i["tag"] for i in items))
        rows += [json.loads(text) for text in found]
    return json.dumps({"tags": rows, "missing": [], "overall": {"accuracy": 3, "coverage": 3, "specificity": 3}})


def _last_json(prompt: str, opening: str) -> str:
    """The JSON data of the question: it stands after the words "as JSON data:"."""
    at = prompt.index(opening, prompt.rindex("as JSON data:"))
    _, end = json.JSONDecoder().raw_decode(prompt[at:])
    return prompt[at : at + end]


def install(folder: Path) -> Path:
    """What an installed package that brings this adapter would have; put the folder on the search path."""
    info = folder / "iwtag_scripted-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: iwtag-scripted\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[iwtag.adapters]\nscripted = tests.fakes.judge:Scripted\n")
    return folder
