"""An adapter of one's own. It has no weights: it looks how bright a picture is."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from tagging.adapters import base
from tagging.adapters.preparation import Framing

LABELS = base.LabelSet(("dark", "medium", "bright"), ("general",) * 3)


class Brightness(base.Adapter):
    key, label = "brightness", "Brightness"
    capabilities = base.Capabilities(outputs=frozenset({"tags"}), scores=True, threshold_categories=("general",))
    preparation = "brightness 1: squash to 64 x 64"
    about = base.About("Dark, medium or bright.", "None needed.", "Yours.", "Nothing.", "In iwtag's own tests.")

    class Options(base.AdapterOptions):  # "selection": chooses among stored scores, so that no new run is needed
        threshold: float = Field(0.5, title="Threshold", description="Lowest.", json_schema_extra={"selection": True})

    loaded = False

    def check(self):  # cheap: is everything there that load() needs?
        return [base.Problem(f"{self.config.source} is not used.", "Leave it empty.")] if self.config.source else []

    def identity(self):  # what the answer depends on besides image, prompt and options; never a path
        return {"model": "brightness", "version": 1, "labels": LABELS.digest}

    def load(self):  # import torch or onnxruntime here, never at the top
        if problems := self.check():
            raise base.ModelUnavailable(f"{problems[0].message} {problems[0].mend}")
        self.loaded = True

    def unload(self):
        self.loaded = False

    label_set = property(lambda self: LABELS)
    provider = property(lambda self: "cpu" if self.loaded else "")

    def prepare(self, image, request):  # in threads, ahead of infer(); AdapterError names a bad picture
        return Framing("squash", 64, 64).pixels(image).mean() / 255

    def infer(self, batch, request):  # one Reply or AdapterError for each, in order
        if not self.loaded:
            raise base.AdapterError("Brightness is not loaded: call load() first")
        for light in batch:
            scores = np.clip(1 - np.abs(light - np.array([0.1, 0.5, 0.9])) / 0.4, 0, 1)
            yield base.Reply(scores=base.PackedScores.pack(scores))

    @classmethod
    def thresholds(cls, labels, probabilities, options):
        return {"general": options.threshold}
