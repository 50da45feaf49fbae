"""Which provider is asked for, in what order, and what is told when it does not start. No device is needed."""

from __future__ import annotations

import onnxruntime
import pytest

from tagging.adapters import onnx_session
from tagging.adapters.base import AdapterConfig, ModelUnavailable
from tagging.adapters.onnx_session import OnnxModel, _providers
from tagging.adapters.wd import WdTagger
from tests.fakes import wd_model

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
EVERYTHING = [
    TENSORRT, CUDA, "MIGraphXExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider",
    "CoreMLExecutionProvider", "OpenVINOExecutionProvider", CPU,
]  # fmt: skip


def names(device, available=EVERYTHING):
    return [p if isinstance(p, str) else p[0] for p in _providers(device, available)]


@pytest.mark.parametrize(
    ("available", "first"),
    [
        (EVERYTHING, CUDA),
        ([TENSORRT, CPU], CPU),  # only by name: it compiles for minutes
        (["OpenVINOExecutionProvider", CPU], CPU),
        (["MIGraphXExecutionProvider", "ROCMExecutionProvider", CPU], "MIGraphXExecutionProvider"),
        (["DmlExecutionProvider", CPU], "DmlExecutionProvider"),
        (["CoreMLExecutionProvider", CPU], "CoreMLExecutionProvider"),
        ([CPU], CPU),
    ],
)
def test_auto_takes_the_best_there_is(available, first):
    assert names("auto", available)[0] == first
    assert names("auto", available)[-1] == CPU


@pytest.mark.parametrize("device", [d for d in onnx_session.DEVICES if d != "auto"])
def test_a_named_device_comes_first_and_the_processor_last(device):
    found = names(device)
    assert found[0] == onnx_session.PROVIDERS[device][0]
    assert found[-1] == CPU


def test_what_tensorrt_cannot_compute_goes_to_cuda():
    assert names("tensorrt") == [TENSORRT, CUDA, CPU]
    assert names("tensorrt", [TENSORRT, CPU]) == [TENSORRT, CPU]


def test_the_card_is_named():
    asked = dict(p for p in _providers("tensorrt:1", EVERYTHING) if isinstance(p, tuple))
    assert asked[TENSORRT]["device_id"] == asked[CUDA]["device_id"] == "1"
    assert asked[CUDA]["arena_extend_strategy"] == "kSameAsRequested"
    assert dict([_providers("openvino:0", EVERYTHING)[0]]) == {"OpenVINOExecutionProvider": {"device_type": "GPU.0"}}


@pytest.mark.parametrize("device", ["cuda", "openvino", "migraphx"])
def test_a_provider_that_is_not_installed_names_its_package(device):
    with pytest.raises(ModelUnavailable, match=onnx_session.PROVIDERS[device][1]):
        _providers(device, [CPU])


class TestFallback:
    """onnxruntime starts the processor in silence where a device does not start."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        inside = onnxruntime.InferenceSession

        def session(path, options, providers):
            return inside(path, options, providers=[CPU])  # as with a broken driver

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        return wd_model.tiny(tmp_path / "wd")

    def test_auto_goes_on_and_tells_the_run(self, folder, caplog):
        with WdTagger(AdapterConfig(source=str(folder))) as adapter:
            assert adapter.provider == f"{CPU} ({CUDA} did not start)"
            assert adapter.batch_size == 2 * onnx_session.cores()
        assert CUDA in caplog.text

    def test_a_named_device_is_refused(self, folder):
        with pytest.raises(ModelUnavailable, match="driver"):
            WdTagger(AdapterConfig(source=str(folder), device="cuda")).load()


class TestBatches:
    """A device's session, played by the processor: one call a batch, sizes found while working."""

    @pytest.fixture
    def model(self, tmp_path, monkeypatch):
        monkeypatch.setattr(OnnxModel, "on_cpu", False)
        folder = wd_model.tiny(tmp_path / "wd")
        made = OnnxModel(folder / "model.onnx", "cpu")
        yield made
        made.close()

    def test_a_batch_is_one_call(self, model, monkeypatch):
        import numpy as np

        calls, call = [], OnnxModel._call
        monkeypatch.setattr(OnnxModel, "_call", lambda self, b: (calls.append(len(b)), call(self, b))[1])
        assert model.run(np.zeros((7, 8, 8, 3), np.float32)).shape == (7, 3)
        assert calls == [7]

    def test_what_did_not_fit_is_remembered_after_unloading(self, model, tmp_path, monkeypatch):
        import numpy as np

        from tagging.adapters.base import OutOfMemory

        def full(self, batch):
            raise RuntimeError("CUDA failure 2: out of memory")

        monkeypatch.setattr(OnnxModel, "_call", full)
        with pytest.raises(OutOfMemory):
            model.run(np.zeros((16, 8, 8, 3), np.float32))
        assert model.batch_size == 8
        again = OnnxModel(tmp_path / "wd" / "model.onnx", "cpu")
        assert again.batch_size == 8
        again.close()
