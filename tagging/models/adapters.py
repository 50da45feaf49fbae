"""Configured models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from pydantic import ValidationError as OptionsError

from ..adapters import registry

if TYPE_CHECKING:
    from ..adapters.base import Adapter, AdapterConfig


def check_kind(value: str) -> None:
    if value not in registry.registered():
        raise ValidationError(f"No adapter {value!r}; known: {', '.join(sorted(registry.registered()))}.")


class ModelAdapter(models.Model):
    """A row that configures one adapter: which family, which weights, where it runs, with which default options."""

    slug = models.SlugField(max_length=80, unique=True)
    label = models.CharField(max_length=120)
    kind = models.CharField(max_length=40, validators=[check_kind], help_text="The adapter's key.")
    source = models.CharField(
        max_length=400, blank=True, help_text="Hub id, local folder or endpoint address. Empty for the embedded model."
    )
    revision = models.CharField(max_length=80, blank=True)
    device = models.CharField(max_length=20, default="auto")
    quantization = models.CharField(max_length=20, default="none")
    options = models.JSONField(default=dict, blank=True)
    enabled = models.BooleanField(default=True)
    note = models.TextField(blank=True)
    last_error = models.TextField(blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.label

    @property
    def adapter_class(self) -> type[Adapter]:
        """The code behind this row. registry.UnknownAdapter when the package that brought it is gone."""
        return registry.adapter_class(self.kind)

    @property
    def lists_models(self) -> bool:
        """Its source is a server that can say which models it has."""
        try:
            return self.adapter_class.lists_models
        except (LookupError, ImportError, TypeError):
            return False

    def config(self) -> AdapterConfig:
        from ..adapters.base import AdapterConfig

        return AdapterConfig(
            source=self.source,
            revision=self.revision,
            device=self.device,
            quantization=self.quantization,
            options=dict(self.options),
            models_dirs=tuple(settings.IWTAG_MODELS_DIRS),
        )

    def build(self) -> Adapter:
        """An adapter instance, weights not loaded."""
        return registry.build(self.kind, self.config())

    def run_options(self, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The effective options of a run, recipe or judge that changes these, without the settings of this row: those
        are taken from it whenever the model is called. pydantic.ValidationError; ValidationError under "options" where
        one of the row's settings is to be changed. LookupError when the code is gone."""
        adapter, given = self.build(), dict(given or {})
        found, own = adapter.options(given).model_dump(mode="json"), adapter.Options.row_settings()
        if own & given.keys():
            mine = adapter.options().model_dump(mode="json")
            if foreign := sorted(name for name in own & given.keys() if found[name] != mine[name]):
                names = ", ".join(foreign)
                raise ValidationError(
                    {"options": f"{names}: set for {self.label} as a whole, in the administration of models."}
                )
        return {name: value for name, value in found.items() if name not in own}

    def settled(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as a recipe or judge keeps them, with this row's own settings as they are now."""
        try:
            own = self.adapter_class.Options.row_settings()
        except (LookupError, ImportError, TypeError):
            return dict(options)
        kept = {name: value for name, value in options.items() if name not in own}
        return {**kept, **{name: value for name, value in self.options.items() if name in own}}

    def clean(self) -> None:
        check_kind(self.kind)
        try:
            self.adapter_class.Options.model_validate(self.options)
        except OptionsError as e:
            raise ValidationError({"options": options_errors(e)}) from None


def options_errors(error: OptionsError) -> list[str]:
    """pydantic's findings as lines that start with the option's name."""
    return [f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors()]


def option_fields(adapter: type[Adapter]) -> dict[str, Any]:
    """The JSON schema that draws the options form."""
    return adapter.Options.model_json_schema()
