"""Loading, identity, memory, and everything that can be wrong with a source, a device or a batch."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig, AdapterError, ImageInput, ModelUnavailable, OutOfMemory, Request
from tagging.adapters.folders import ModelFolder
from tagging.adapters.vlm import family, memory, source
from tagging.adapters.vlm.chat import ChatModel

from .conftest import ask, picture

KEYS = ["vlm", "blip", "florence2", "promptgen", "git", "joycaption", "kosmos2", "moondream"]


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of a tiny checkpoint that a test may spoil."""

    def get(name: str = "llava") -> Path:
        return Path(shutil.copytree(checkpoint(name), tmp_path / name))

    return get


def build(folder: Path, key: str = "vlm", **changes: object):
    return registry.build(key, AdapterConfig(source=str(folder), **changes))


# -- imports -----------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from tagging.adapters import registry
from tagging.adapters.base import AdapterConfig
for key in %r:
    kind = registry.adapter_class(key)
    kind.Options.model_json_schema()
    kind.capabilities.as_dict()
    adapter = kind(AdapterConfig(source=%r))
    adapter.options()
    adapter.check()
    adapter.identity()
    adapter.estimate()
heavy = {"torch", "transformers", "torchvision", "tokenizers", "safetensors", "django"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def test_nothing_heavy_is_imported_before_load(checkpoint):
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT % (KEYS, str(checkpoint("llava")))], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# -- identity ----------------------------------------------------------------------------------------------------------


def test_identity_is_of_the_content_and_names_no_path(checkpoint, copy):
    folder = copy()
    first, second = build(checkpoint("llava")).identity(), build(folder).identity()
    assert first == second
    assert str(folder) not in json.dumps(first)
    assert first["quantization"] == "none"
    assert len(first["chat_template"]) == 64


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja", "tokenizer.json", "model.safetensors"])
def test_identity_changes_with_every_file_that_matters(copy, name):
    folder = copy()
    before = build(folder).identity()
    path = folder / name
    path.write_bytes(path.read_bytes() + b" ")
    assert build(folder).identity() != before


def test_quantization_and_the_code_of_the_model_are_part_of_it(copy):
    folder = copy()
    (folder / "modeling_x.py").write_text("x = 1")
    plain = build(folder).identity()
    assert build(folder, quantization="4bit").identity() != plain
    trusted = build(folder, options={"trust_remote_code": True}).identity()
    assert trusted != plain
    (folder / "modeling_x.py").write_text("x = 2")
    assert build(folder, options={"trust_remote_code": True}).identity() != trusted
    assert build(folder).identity() == plain  # untrusted code is never run


def test_the_words_that_an_empty_prompt_stands_for_are_part_of_it(checkpoint, monkeypatch):
    before = build(checkpoint("llava")).identity()
    monkeypatch.setattr(ChatModel, "default_prompt", "What is this?")
    assert build(checkpoint("llava")).identity() != before
    assert build(checkpoint("paligemma")).identity()["own_prompt"] == "caption en"


def test_large_files_are_digested_by_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "WHOLE", 1000)
    monkeypatch.setattr(source, "BLOCK", 64)
    monkeypatch.setattr(source, "BLOCKS", 16)
    data = bytearray(range(256)) * 20
    found = []
    for name, change in (("a", None), ("b", 0), ("c", len(data) - 1), ("d", None)):
        changed = bytearray(data)
        if change is not None:
            changed[change] ^= 255
        (tmp_path / name).write_bytes(changed)
        found.append(source.file_digest(tmp_path / name))
    assert found[0] == found[3]
    assert len(set(found)) == 3
    assert all(digest.startswith("sampled-") for digest in found)


def test_weights_in_the_hubs_cache_have_their_digest_in_their_name(tmp_path):
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"anything")
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert source.file_digest(tmp_path / "model.safetensors") == "ab" * 32


# -- sources -----------------------------------------------------------------------------------------------------------


def test_a_hub_model_that_is_not_here_says_what_to_download(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    adapter = registry.build("vlm", AdapterConfig(source="nobody/nothing-vl", models_dirs=(tmp_path,)))
    (problem,) = adapter.check()
    assert not problem.fatal
    with pytest.raises(ModelUnavailable) as found:
        adapter.load()
    for words in ("nobody/nothing-vl", "switched off", "safetensors", str(tmp_path / "nothing-vl")):
        assert words in found.value.message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GatedRepoError", ["gated", "HF_TOKEN", "licence"]),
        ("RevisionNotFoundError", ["no revision 'v9'", "Correct the revision"]),
        ("RepositoryNotFoundError", ["no model", "Correct the source"]),
        ("LocalEntryNotFoundError", ["cannot be fetched", "boom"]),
    ],
)
def test_what_the_hub_refuses_comes_with_a_mend(monkeypatch, error, words):
    import huggingface_hub
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> str:
        raise type(error, (Exception,), {})("boom")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(source, "download_size", lambda config: 17_000_000_000)
    adapter = registry.build("vlm", AdapterConfig(source="some/model", revision="v9"))
    with pytest.raises(ModelUnavailable) as found:
        adapter.load()
    for word in [*words, "17.0 GB"]:
        assert word in found.value.message


def test_a_model_in_the_hubs_cache_is_named_by_its_commit(checkpoint, tmp_path, monkeypatch):
    import huggingface_hub

    commit = "c" * 40
    shutil.copytree(checkpoint("llava"), tmp_path / commit)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / commit))
    adapter = registry.build("vlm", AdapterConfig(source="some/model"))
    assert adapter.check() == []
    assert adapter.identity()["id"] == "some/model"
    assert adapter.identity()["revision"] == commit


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("{}"), "model_type"),
        (lambda f: (f / "model.safetensors").write_bytes(b"1234"), "not a whole safetensors file"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
            ),
            "model-00001-of-00002",
        ),
        (lambda f: [p.unlink() for p in f.glob("token*")], "could not be loaded|needs another package|no processor"),
        (lambda f: _set(f, model_type="nonsense_vl"), "Upgrade transformers"),
    ],
)
def test_a_broken_folder_names_what_is_broken(copy, spoil, word):
    folder = copy()
    spoil(folder)
    with pytest.raises(ModelUnavailable, match=word):
        build(folder).load()


def _set(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_another_familys_model_is_sent_to_its_adapter(checkpoint):
    assert "'blip'" in build(checkpoint("blip")).check()[0].mend
    assert "'vlm'" in build(checkpoint("llava"), "florence2").check()[0].mend
    with pytest.raises(ModelUnavailable, match="Use the adapter 'florence2'"):
        build(checkpoint("florence2")).load()


# -- devices, formats, memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "gpu"}, "Unknown device"),
        ({"device": "cuda:1"}, "device 'cuda:1' cannot be used"),
        ({"device": "mps"}, "Apple"),
        ({"quantization": "4bit", "device": "cpu"}, "needs an NVIDIA card"),
        ({"quantization": "4bit"}, "bitsandbytes|NVIDIA card"),
        ({"quantization": "3bit"}, "Unknown quantization"),
    ],
)
def test_a_device_or_quantization_that_is_not_here_comes_with_a_mend(checkpoint, changes, words):
    with pytest.raises(ModelUnavailable, match=words):
        build(checkpoint("llava"), **changes).load()


def test_the_number_format_is_used(checkpoint):
    adapter = build(checkpoint("llava"), options={"dtype": "bf16"})
    with adapter:
        assert adapter.provider == "cpu (bf16)"
        assert ask(adapter, picture(1), max_new_tokens=4)[0].tokens_out == 4


def test_too_little_memory_is_told_before_loading(checkpoint, monkeypatch):
    monkeypatch.setattr(memory, "free_ram", lambda: 1000)
    with pytest.raises(ModelUnavailable, match=r"needs about .* of a batch\), and cpu has"):
        build(checkpoint("llava")).load()


def test_the_estimate_grows_with_what_it_should(checkpoint):
    folder = source.Folder(checkpoint("llava"))
    plain = memory.estimate(folder, dtype="fp32")
    assert plain.parameters == sum(_sizes(folder))
    assert plain.weights == 4 * plain.parameters
    assert memory.estimate(folder, dtype="bf16").weights == 2 * plain.parameters
    assert memory.estimate(folder, quantization="4bit").weights < memory.estimate(folder, quantization="8bit").weights
    assert memory.estimate(folder, new_tokens=4000).per_image > plain.per_image / 2
    assert plain.total(8) > plain.total(1) > plain.weights
    assert plain.batch_within(plain.per_image * 100) > plain.batch_within(plain.per_image * 10) >= 1


def _sizes(folder: source.Folder) -> list[int]:
    from safetensors import safe_open

    with safe_open(folder.path / "model.safetensors", "pt") as tensors:
        return [tensors.get_tensor(name).numel() for name in tensors.keys()]  # noqa: SIM118


def test_without_the_extra_the_mend_is_to_install_it(checkpoint, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "transformers" else real(name, *a)
    )
    adapter = build(checkpoint("llava"))
    assert ".[vlm]" in adapter.check()[0].mend
    with pytest.raises(ModelUnavailable, match=r"\.\[vlm\]"):
        adapter.load()


# -- batches -----------------------------------------------------------------------------------------------------------


def test_one_bad_image_harms_no_other(loaded):
    adapter = loaded("vlm", "llava")
    request = Request(adapter.options({"max_new_tokens": 4}))
    bad = ImageInput("bad.jpg", "0" * 64, lambda: io.BytesIO(b"not a picture"))
    with pytest.raises(AdapterError, match=r"bad\.jpg") as error:
        adapter.prepare(bad, request)
    assert error.value.permanent
    assert len(ask(adapter, picture(1), picture(2), max_new_tokens=4)) == 2


def test_want_of_memory_is_told_and_the_smaller_batch_is_remembered(checkpoint, monkeypatch):
    monkeypatch.setattr(family, "_LEARNED", {})
    adapter = build(checkpoint("llava"))
    with adapter:
        real = adapter._model.generate

        def full(**arguments):
            if len(arguments["input_ids"]) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return real(**arguments)

        monkeypatch.setattr(adapter._model, "generate", full)
        request = Request(adapter.options({"max_new_tokens": 3}))
        items = [adapter.prepare(picture(n), request) for n in range(4)]
        with pytest.raises(OutOfMemory, match="4 images"):
            list(adapter.infer(items, request))
        assert adapter.batch_size == 2
        assert len(list(adapter.infer(items[:2], request))) == 2
        adapter.unload()
        adapter.load()
        assert adapter.batch_size == 2


def test_another_failure_of_the_model_is_an_error_with_its_words(loaded, monkeypatch):
    adapter = loaded("vlm", "llava")

    def fail(**_: object):
        raise IndexError("index 7 is out of bounds")

    monkeypatch.setattr(adapter._model, "generate", fail)
    with pytest.raises(AdapterError, match="index 7 is out of bounds"):
        ask(adapter, picture(1))


def test_nothing_to_do_is_no_error(loaded):
    adapter = loaded("vlm", "llava")
    assert list(adapter.infer([], Request(adapter.options()))) == []


def test_pictures_are_prepared_in_many_threads(loaded):
    adapter = loaded("vlm", "qwen2_5_vl")
    request = Request(adapter.options({"max_new_tokens": 4}), prompt="describe this image")
    pictures = [picture(n, 60 + 10 * n, 80) for n in range(8)]
    alone = [adapter.prepare(image, request) for image in pictures]
    seen = set()

    def prepare(image):
        seen.add(threading.get_ident())
        return adapter.prepare(image, request)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(prepare, pictures * 3))
    assert len(seen) > 1
    for one, other in zip(alone * 3, together, strict=True):
        assert one.inputs["input_ids"].tolist() == other.inputs["input_ids"].tolist()
        assert one.inputs["pixel_values"].equal(other.inputs["pixel_values"])


def test_a_large_picture_is_scaled_down_and_a_clear_one_laid_on_white(loaded):
    adapter, sizes = loaded("vlm", "qwen2_5_vl"), []
    real = adapter.inputs

    class Spy(ChatModel):
        def inputs(self, processor, text, picture, options):
            sizes.append((picture.size, picture.mode, picture.getpixel((0, 0))))
            return real(processor, text, picture, options)

    spy = Spy(adapter.config)
    spy.__dict__.update(adapter.__dict__)
    clear = io.BytesIO()
    Image.new("RGBA", (400, 200), (0, 0, 0, 0)).save(clear, "PNG")
    image = ImageInput("clear.png", "1" * 64, lambda: io.BytesIO(clear.getvalue()))
    spy.prepare(image, Request(adapter.options({"max_image_side": 100})))
    spy.prepare(image, Request(adapter.options({"max_image_side": 1000})))
    assert sizes == [((100, 50), "RGB", (255, 255, 255)), ((400, 200), "RGB", (255, 255, 255))]


@pytest.mark.parametrize("key", KEYS)
def test_unknown_options_and_wrong_types_are_refused(key):
    kind = registry.adapter_class(key)
    with pytest.raises(ValidationError, match="nonsense"):
        kind.Options.model_validate({"nonsense": 1})
    with pytest.raises(ValidationError, match="max_image_side"):
        kind.Options.model_validate({"max_image_side": "large"})


def test_remote_code_is_off_and_comes_with_a_warning():
    field = ChatModel.Options.model_json_schema()["properties"]["trust_remote_code"]
    assert field["default"] is False
    assert "WARNING" in field["description"]


BROKEN = """
import sys, pathlib
folder = pathlib.Path(sys.argv[1])
(folder / "torchvision").mkdir()
(folder / "torchvision" / "__init__.py").write_text(
    "import torchvision.part\\nraise RuntimeError('operator torchvision::nms does not exist')"
)
(folder / "torchvision" / "part.py").write_text("")
sys.path.insert(0, str(folder))
from tagging.adapters.vlm import runtime
torch, transformers = runtime.libraries()
from transformers.utils import is_torchvision_available
assert not is_torchvision_available()
assert not runtime.has_torchvision()
assert "torchvision.part" not in sys.modules
transformers.AutoProcessor, transformers.CLIPImageProcessor
"""


def test_a_broken_torchvision_is_put_aside(tmp_path):
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", BROKEN, str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- finding models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("llava", "vlm"), ("qwen2_5_vl", "vlm"), ("gemma4", "vlm"), ("blip2", "blip"), ("florence2", "florence2"),
        ("kosmos2", "kosmos2"), ("git", "git"), ("vit_gpt2", "git"),
    ],
)  # fmt: skip
def test_a_folder_is_recognised_by_its_family(checkpoint, name, key):
    assert _best(checkpoint(name)) == key


def _best(path: Path) -> str:
    files = {p.name: p.stat().st_size for p in path.iterdir() if p.is_file()}
    folder = ModelFolder(path, files)
    guesses = {key: registry.adapter_class(key).recognises(folder) for key in KEYS}
    return max((guess.certainty, key) for key, guess in guesses.items() if guess)[1]


def test_names_tell_relatives_apart(checkpoint, tmp_path):
    assert _best(Path(shutil.copytree(checkpoint("florence2"), tmp_path / "PromptGen-v2"))) == "promptgen"
    assert _best(Path(shutil.copytree(checkpoint("joycaption"), tmp_path / "llama-JoyCaption-beta"))) == "joycaption"


def test_a_folder_of_something_else_is_not_taken(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    folder = ModelFolder(tmp_path, {"config.json": 60, "model.safetensors": 10})
    assert not any(registry.adapter_class(key).recognises(folder) for key in KEYS)


def test_the_memory_it_needs_is_told_without_loading(checkpoint, tmp_path):
    assert build(checkpoint("llava")).memory_needed() > memory.RUNTIME
    assert build(tmp_path / "nowhere").memory_needed() is None
