"""A model that brings its own Python, with the calls of Moondream: what it says shows what it was asked."""

from __future__ import annotations

import json
from pathlib import Path

CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class Config(PretrainedConfig):
    model_type = "moondream1"

class Model(PreTrainedModel):
    config_class = Config
    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.post_init()
    def caption(self, image, length="normal", settings=None):
        assert image.mode == "RGB"
        number = torch.rand(1).item() if settings["temperature"] else 0
        return {"caption": f" a {length} caption of {image.width}x{image.height} {number:.6f}"}
    def query(self, image, question, settings=None):
        if question == "fail":
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return {"answer": question.upper()}
"""


def write_moondream(folder: Path) -> Path:
    """The model's folder: configuration, code, weights."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    (folder / "modeling_moon.py").write_text(CODE)
    code = {"AutoConfig": "modeling_moon.Config", "AutoModelForCausalLM": "modeling_moon.Model"}
    config = {"model_type": "moondream1", "architectures": ["Model"], "auto_map": code}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
