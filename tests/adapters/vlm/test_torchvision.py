"""The same adapter where torchvision works: the processors are then others, the answers' form is the same.

In a process of its own, because here torchvision was put aside. Families whose processors need torchvision (Pixtral,
Mistral 3, Phi-4) are tested there only.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tagging.adapters.base import ModelUnavailable, Request
from tests.fakes import tiny_vlm

from .conftest import picture

NAMES = ["pixtral", "mistral3", "phi4_multimodal", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "llava_onevision"]
SCRIPT = """
import json, socket, sys
from pathlib import Path
def refuse(*_): raise RuntimeError("network")
socket.socket.connect = refuse
import tests.fakes.torchvision_shim
from tagging.adapters.base import AdapterConfig, Request
from tagging.adapters.vlm import runtime
from tagging.adapters.vlm.chat import ChatModel
from tests.adapters.vlm.conftest import picture
from tests.fakes import tiny_vlm
torch, transformers = runtime.libraries()
torch.set_num_threads(1)
assert runtime.has_torchvision()
found = {}
for name in sys.argv[2:]:
    with ChatModel(AdapterConfig(source=str(tiny_vlm.build(name, Path(sys.argv[1]))))) as adapter:
        options = adapter.options({"max_new_tokens": 6, "min_new_tokens": 3})
        request = Request(options, "a cat", "describe this image")
        items = [adapter.prepare(picture(n, 60 + 60 * n, 70), request) for n in range(3)]
        together = [reply.text for reply in adapter.infer(items, request)]
        alone = [next(adapter.infer([item], request)).text for item in items]
        found[name] = {
            "processor": type(adapter._processor.image_processor).__mro__[1].__name__,
            "lengths": [item.length for item in items], "ids": items[0].inputs["input_ids"].tolist(),
            "prompt": items[0].prompt, "together": together, "alone": alone,
        }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    try:
        importlib.metadata.version("torchvision")  # it was put aside in this process
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("torchvision is not installed")
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("tv")), *NAMES]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_answers_like_one_by_one_with_torchvision(found, name):
    assert found[name]["together"] == found[name]["alone"]
    assert "describe this image" in found[name]["prompt"]
    assert "a cat" in found[name]["prompt"]
    assert "Pil" not in found[name]["processor"]


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("pixtral", "mistral3", "phi4_multimodal")])
def test_without_torchvision_the_model_is_given_the_same_tokens(found, loaded, name):
    adapter = loaded("vlm", name)
    item = adapter.prepare(picture(0, 60, 70), Request(adapter.options(), "a cat", "describe this image"))
    assert item.inputs["input_ids"].tolist() == found[name]["ids"]


def test_a_family_that_needs_torchvision_says_so(checkpoint, tmp_path):
    """A folder of Pixtral, as far as it can be written without torchvision."""
    from tagging.adapters import registry
    from tagging.adapters.base import AdapterConfig

    folder = tmp_path / "pixtral"
    folder.mkdir()
    for part in checkpoint("llava").iterdir():
        (folder / part.name).write_bytes(part.read_bytes())
    settings = {
        "processor_class": "PixtralProcessor",
        "image_processor": {"image_processor_type": "PixtralImageProcessor"},
    }
    (folder / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelUnavailable, match="torchvision"):
        registry.build("vlm", AdapterConfig(source=str(folder))).load()
    assert "pixtral" in tiny_vlm.BUILDERS
