"""A fake language model for whole stories: its answer follows from the image's name, the prompt and the temperature.

Of the ten things that `right` knows of an image it names as many as its `skill` and the prompt ask for; warmth puts
invented ones among them.
"""

from __future__ import annotations

import zlib
from typing import cast

from pydantic import Field

from tagging.adapters.base import Reply, Request
from tests.fakes.adapter import HOW, Talker

THINGS = "light leaf stone water sand metal glass paper wool clay straw bark shade smoke foam dust".split()


def right(name: str) -> list[str]:
    """Ten things that are on an image, the plainest first."""
    start = zlib.crc32(name.encode())
    return [f"{THINGS[(start + i) % len(THINGS)]} {1 + (start >> 4) % 9}" for i in range(10)]


def invented(name: str, n: int) -> list[str]:
    return [f"dream {(zlib.crc32(name.encode()) + i) % 12}" for i in range(n)]


class Teller(Talker):
    key = "fake-teller"
    label = "Fake teller"

    class Options(Talker.Options):
        temperature: float = Field(0.0, ge=0, le=2, description="How freely it invents.")
        price_in: float = Field(0, json_schema_extra=HOW)
        price_out: float = Field(0, json_schema_extra=HOW)
        currency: str = Field("", json_schema_extra=HOW)
        skill: int = Field(6, ge=0, le=10, json_schema_extra=HOW)

    def identity(self) -> dict[str, object]:
        return {"model": self.key, "skill": cast(Teller.Options, self.own).skill}

    def _reply(self, name: str, asked: Request, o: Talker.Options) -> Reply:
        own, warmth = cast(Teller.Options, self.own), cast(Teller.Options, o).temperature
        skill = cast(Teller.Options, self.own).skill + ("everything" in asked.prompt) * 2
        odd = zlib.crc32(f"{name} {asked.sample}".encode()) % 3 == 0
        tags = right(name)[: max(1, skill - round(2 * warmth) - odd)] + invented(name, round(4 * warmth) + odd)
        text = ", ".join(tags)
        cost = (len(asked.prompt) * own.price_in + len(text) * own.price_out) / 1e6
        return Reply(
            text=text,
            tokens_in=len(asked.prompt),
            tokens_out=len(text),
            finish_reason="stop",
            seconds=0.01,
            cost=cost or None,
            currency=own.currency if cost else "",
        )
