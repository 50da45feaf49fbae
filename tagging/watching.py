"""Steps of a watch that other apps bring: tagging knows how to look and to tag, an app to its right how to export.

A step is registered at start-up. Its settings live in `Watch.steps` under its name and are checked by the step itself;
the watch calls `run` about once a minute while the step is switched on, never twice at once for one collection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from django.http import QueryDict
    from django.utils.safestring import SafeString

    from .models import Collection, Watch


class StepForm(ABC):
    """The part of the watch page that belongs to a step."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What was posted, as `Step.check` takes it. ValidationError keyed by the input."""

    @abstractmethod
    def render(self, errors: Mapping[str, list[str]]) -> SafeString: ...


class Step(ABC):
    name: ClassVar[str]
    label: ClassVar[str]
    legend: ClassVar[str]  # over its part of the page

    @abstractmethod
    def check(self, collection: Collection, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings as they are kept, with "enabled". ValidationError keyed by what is wrong with them."""

    @abstractmethod
    def run(self, watch: Watch, settings: Mapping[str, Any], last: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """Do what there is to do now, and return what happened: {"text": for people, "error"?: …, whatever the step
        wants back as `last`}. Quick: long work goes to the queue. What is raised is kept as the error."""

    @abstractmethod
    def form(self, watch: Watch, data: QueryDict | None) -> StepForm: ...


_steps: dict[str, str] = {}


def register_step(name: str, target: str) -> None:
    """`target` is "module:Class" of a `Step`, imported when it is first asked for."""
    _steps[name] = target


@cache
def _built(target: str) -> Step:
    module, _, name = target.partition(":")
    step = getattr(import_module(module), name)()
    if not isinstance(step, Step):
        raise TypeError(f"{target} is not a Step")
    return step


def steps() -> dict[str, Step]:
    """All registered steps by name."""
    return {name: _built(target) for name, target in _steps.items()}
