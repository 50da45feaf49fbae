"""Results that were imported: a name for them beside those of models. Nothing is ever inferred with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from .base import Adapter, AdapterError, Capabilities, ImageInput, ModelUnavailable, Problem, Reply, Request

_TEXT = "Imported results come from a file, not from a model: they can be compared, not made again."


class Imported(Adapter):
    """What a table, sidecars or another tagger said, as the channel of a run."""

    key: ClassVar[str] = "import"
    label: ClassVar[str] = "Imported results"
    capabilities: ClassVar[Capabilities] = Capabilities(
        outputs=frozenset({"tags", "caption", "rating"}), vision=False, queue="io"
    )

    def check(self) -> list[Problem]:
        return [Problem(_TEXT, "Import a file instead: the page of imports makes such runs.")]

    def identity(self) -> dict[str, Any]:
        return {"import": self.config.revision}

    def load(self) -> None:
        raise ModelUnavailable(_TEXT)

    def unload(self) -> None:
        """Nothing was loaded."""

    def prepare(self, image: ImageInput, request: Request) -> Any:
        raise AdapterError(_TEXT, permanent=True)

    def infer(self, batch: Sequence[Any], request: Request) -> Iterator[Reply | AdapterError]:
        for _ in batch:
            yield AdapterError(_TEXT, permanent=True)
