"""What every adapter must do, whatever its family: subclass `AdapterContract` in the family's test module.

    class TestContract(AdapterContract):
        key = "wd"

        @pytest.fixture(scope="class")
        @classmethod
        def case(cls, tmp_path_factory):
            folder = wd_model.tiny(tmp_path_factory.mktemp("wd"))
            return Case(lambda: WdTagger(AdapterConfig(source=str(folder))), folder=folder, fill_memory=no_room_in_onnx)

`tests/adapters/test_contract.py` checks that no registered adapter is left out.
"""

from __future__ import annotations

import getpass
import io
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tagging.adapters import registry
from tagging.adapters.base import (
    Adapter,
    AdapterConfig,
    AdapterError,
    LabelSet,
    ModelUnavailable,
    OutOfMemory,
    Reply,
    Request,
)

from .helpers import encoded, image_input

OUTPUTS = {"tags", "caption", "rating"}
_WRONG: dict[str, Any] = {"number": "much", "integer": "many", "boolean": "perhaps"}


@dataclass
class Case:
    """One family as the suite drives it."""

    #: A new adapter, not loaded, over the same model each time.
    fresh: Callable[[], Adapter]
    #: Makes the device call of a loaded adapter fail as its device does when it is full; None for remote ones.
    fill_memory: Callable[[pytest.MonkeyPatch, Adapter], None] | None = None
    #: Where its files are: must not show in its identity.
    folder: Path | None = None
    #: The same content at another place: must have the same identity.
    elsewhere: Callable[[Path], Adapter] | None = None
    #: Options that keep a call short.
    options: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""
    system: str = ""
    schema: dict[str, Any] | None = None
    #: Two replies to one image, alone and in a batch, are the same answer. Batched sums may differ in the last digits.
    same: Callable[[Reply, Reply], bool] | None = None

    def request(self, adapter: Adapter) -> Request:
        return Request(adapter.options(self.options), self.system, self.prompt, self.schema)


def answer(reply: Reply) -> tuple[Any, ...]:
    """What a reply says, without how long it took."""
    scores = reply.scores.to_bytes() if reply.scores is not None else None
    return scores, reply.tags, reply.caption, reply.text, reply.rating, reply.finish_reason


def close_scores(a: Reply, b: Reply) -> bool:
    """The same labels, probabilities within 0.002; for models whose batches add up in another order."""
    first, second = (dict(zip(r.scores.labels.tolist(), r.scores.probabilities.tolist(), strict=True)) for r in (a, b))
    near_floor = 0.06
    return all(
        abs(first.get(label, 0.0) - second.get(label, 0.0)) < 0.002
        or max(first.get(label, 0.0), second.get(label, 0.0)) < near_floor
        for label in {*first, *second}
    )


def no_room_in_onnx(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    """onnxruntime as it speaks when a device's memory is full."""

    def call(self: object, images: object) -> object:
        raise RuntimeError("[ONNXRuntimeError] : 6 : BFCArena Failed to allocate memory for requested buffer")

    monkeypatch.setattr("tagging.adapters.onnx_session.OnnxModel._call", call)


def no_room_in_torch(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    """Every torch module's call fails as CUDA does when its memory is full."""
    import torch

    def call(self: object, *args: object, **kwargs: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.nn.Module, "__call__", call)


def pictures() -> list[tuple[str, bytes]]:
    """Name and bytes of pictures of every shape and mode: wide, tall, tiny, grey, with alpha, palette, CMYK."""
    noise = np.random.default_rng(5)

    def picture(width: int, height: int) -> Image.Image:
        small = noise.integers(0, 255, (3 + height // 40, 3 + width // 40, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

    alpha = picture(120, 90).convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    return [
        ("wide.jpg", encoded(picture(900, 200), "JPEG", quality=92)),
        ("tall.png", encoded(picture(150, 420))),
        ("tiny.png", encoded(picture(3, 2))),
        ("grey.jpg", encoded(picture(200, 180).convert("L"), "JPEG")),
        ("alpha.png", encoded(alpha)),
        ("palette.png", encoded(picture(97, 64).convert("P"))),
        ("print.jpg", encoded(picture(256, 256).convert("CMYK"), "JPEG")),
    ]


def numbers_in(schema: dict[str, Any]) -> dict[str, Any]:
    """Option → a value of the wrong type, for every number and switch of an options schema."""
    return {
        name: _WRONG[rule["type"]] for name, rule in schema.get("properties", {}).items() if rule.get("type") in _WRONG
    }


class AdapterContract:
    """The suite. `case` is a fixture of the subclass; `key` names the adapter in the registry."""

    key = ""

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Case:
        raise NotImplementedError("a subclass says how its adapter is made")

    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, case: Case):
        with case.fresh() as adapter:
            yield adapter

    @pytest.fixture(scope="class")
    @classmethod
    def inputs(cls):
        return [image_input(content, name) for name, content in pictures()]

    # -- what it says of itself -------------------------------------------------------------------------------------
    def test_it_is_registered_under_its_key(self, case):
        adapter = case.fresh()
        assert registry.adapter_class(self.key) is type(adapter)
        assert adapter.key == self.key
        assert adapter.label
        assert adapter.preparation, "the identity of a prediction must say how pixels are prepared"

    def test_capabilities_are_data(self, case):
        capabilities = case.fresh().capabilities
        told = json.loads(json.dumps(capabilities.as_dict(), allow_nan=False))
        assert set(told["outputs"]) <= OUTPUTS
        assert told["outputs"]
        assert told["queue"] in ("gpu", "io")
        assert told["images_per_call"] >= 1
        assert {"none"} <= set(told["quantizations"])

    def test_it_tells_people_what_it_is(self, case):
        about = case.fresh().about
        assert about is not None
        assert about.missing() == []

    def test_every_option_has_a_title_and_a_help_text(self, case):
        fields = type(case.fresh()).Options.model_fields
        bare = [name for name, f in fields.items() if not (f.title and f.description)]
        assert bare == []

    def test_the_options_schema_is_json_and_its_defaults_are_valid(self, case):
        options = type(case.fresh()).Options
        schema = json.loads(json.dumps(options.model_json_schema(), allow_nan=False))
        assert schema["additionalProperties"] is False
        assert "required" not in schema, "a form must start from defaults alone"
        defaults = options().model_dump(mode="json")
        assert options.model_validate(json.loads(json.dumps(defaults, allow_nan=False))) == options()

    def test_it_is_ready(self, case):
        assert [p for p in case.fresh().check() if p.fatal] == []

    # -- options ----------------------------------------------------------------------------------------------------
    def test_an_unknown_option_is_named(self, case):
        with pytest.raises(ValidationError, match="no_such_option"):
            case.fresh().options({"no_such_option": 1})

    def test_a_wrong_type_is_named(self, case):
        adapter = case.fresh()
        for name, value in numbers_in(type(adapter).Options.model_json_schema()).items():
            with pytest.raises(ValidationError, match=name):
                adapter.options({name: value})

    def test_thresholds_and_operational_options_need_no_new_inference(self, case):
        adapter = case.fresh()
        left_out = {
            name
            for name, f in type(adapter).Options.model_fields.items()
            if isinstance(f.json_schema_extra, dict) and {"selection", "operational"} & set(f.json_schema_extra)
        }
        assert not left_out & set(adapter.options().inference_dict())
        json.dumps(adapter.options().inference_dict(), allow_nan=False)

    # -- identity ---------------------------------------------------------------------------------------------------
    def test_identity_is_stable_and_names_no_place(self, case):
        first, second = case.fresh().identity(), case.fresh().identity()
        assert first == second
        text = json.dumps(first, allow_nan=False)
        places = [str(Path.home()), socket.gethostname(), str(Path.cwd())]
        places += [str(case.folder), case.folder.name] if case.folder else []
        user = getpass.getuser()
        places += [f"/{user}/", f"\\{user}\\"]
        assert [place for place in places if len(place) > 3 and place in text] == []

    def test_identity_is_the_same_elsewhere(self, case, tmp_path):
        if case.elsewhere is None:
            pytest.skip("has no files")
        assert case.elsewhere(tmp_path / "moved").identity() == case.fresh().identity()

    def test_loading_does_not_change_the_identity(self, case, loaded):
        assert loaded.identity() == case.fresh().identity()

    # -- life -------------------------------------------------------------------------------------------------------
    def test_load_and_unload_may_be_repeated(self, case, inputs):
        adapter = case.fresh()
        adapter.unload()
        adapter.load()
        adapter.load()
        assert adapter.provider
        assert adapter.batch_size >= 1
        request = case.request(adapter)
        prepared = adapter.prepare(inputs[0], request)
        adapter.unload()
        adapter.unload()
        if adapter.capabilities.queue == "gpu":
            assert adapter.provider == ""
            with pytest.raises(AdapterError, match="load"):
                list(adapter.infer([prepared], request))
        with adapter:
            (reply,) = adapter.infer([adapter.prepare(inputs[0], request)], request)
            assert isinstance(reply, Reply)

    # -- work -------------------------------------------------------------------------------------------------------
    def test_a_mixed_batch_is_answered_in_order(self, case, loaded, inputs):
        request = case.request(loaded)
        prepared = [loaded.prepare(i, request) for i in inputs]
        together = list(loaded.infer(prepared, request))
        assert len(together) == len(inputs)
        apart = [next(iter(loaded.infer([loaded.prepare(i, request)], request))) for i in inputs]
        same = case.same or (lambda a, b: answer(a) == answer(b))
        for picture, a, b in zip(inputs, together, apart, strict=True):
            assert isinstance(a, Reply), (picture.name, a)
            assert same(a, b), picture.name

    def test_no_images_no_answers(self, case, loaded):
        assert list(loaded.infer([], case.request(loaded))) == []

    def test_replies_keep_to_the_capabilities(self, case, loaded, inputs):
        request = case.request(loaded)
        (reply,) = loaded.infer([loaded.prepare(inputs[0], request)], request)
        told = loaded.capabilities
        if told.scores:
            assert reply.scores is not None
            labels = loaded.label_set
            assert isinstance(labels, LabelSet)
            assert reply.scores.labels.max(initial=0) < len(labels.names)
            assert (np.diff(reply.scores.probabilities) <= 0).all()
        if "caption" not in told.outputs:
            assert not reply.caption
        if "rating" not in told.outputs:
            assert reply.rating is None
        assert reply.seconds >= 0
        assert reply.finish_reason in ("", "stop", "length", "content_filter")

    def test_one_bad_image_leaves_the_others_alone(self, case, loaded, inputs):
        request, refused = case.request(loaded), []
        broken = [
            image_input(b"not a picture", "broken.jpg"),
            image_input(b"", "empty.png"),
            image_input(pictures()[0][1][:200], "cut.jpg"),
            _missing(),
        ]
        prepared = []
        for picture in (inputs[0], *broken, inputs[1]):
            try:
                prepared.append(loaded.prepare(picture, request))
            except AdapterError as error:
                refused.append((picture.name, error))
        answers = [r for r in loaded.infer(prepared, request) if isinstance(r, Reply)]
        assert len(answers) == 2
        assert [name for name, _ in refused] == [b.name for b in broken]
        for name, error in refused:
            assert error.permanent
            assert name in error.message

    def test_preparing_in_threads_gives_the_same(self, case, loaded, inputs):
        request = case.request(loaded)
        work = inputs * 3
        with ThreadPoolExecutor(6) as threads:
            prepared = list(threads.map(lambda i: loaded.prepare(i, request), work))
        found = list(loaded.infer(prepared[: len(inputs)], request))
        again = list(loaded.infer(prepared[-len(inputs) :], request))
        serial = list(loaded.infer([loaded.prepare(i, request) for i in inputs], request))
        assert [answer(r) for r in found] == [answer(r) for r in serial] == [answer(r) for r in again]

    def test_a_full_device_is_told_and_survived(self, case, loaded, inputs, monkeypatch):
        if case.fill_memory is None:
            pytest.skip("has no device of its own")
        request = case.request(loaded)
        prepared = [loaded.prepare(i, request) for i in inputs[:2]]
        before = [answer(r) for r in loaded.infer(prepared, request)]
        with monkeypatch.context() as full:
            case.fill_memory(full, loaded)
            with pytest.raises(OutOfMemory):
                list(loaded.infer(prepared, request))
        assert [answer(r) for r in loaded.infer(prepared, request)] == before

    # -- selection --------------------------------------------------------------------------------------------------
    def test_thresholds_are_probabilities_by_category(self, case, loaded):
        labels = loaded.label_set
        if labels is None:
            pytest.skip("has no fixed labels")
        cuts = type(loaded).thresholds(labels, np.zeros(len(labels.names), np.float32), loaded.options(case.options))
        assert set(cuts) <= {*labels.categories, *loaded.capabilities.threshold_categories}
        assert all(0 <= cut <= 1 for cut in cuts.values())

    # -- what is not there ------------------------------------------------------------------------------------------
    def test_a_source_that_is_not_there_has_a_mend(self, case, tmp_path):
        adapter = case.fresh()
        if adapter.capabilities.queue == "io":
            pytest.skip("an address is not looked up")
        config = AdapterConfig(source=str(tmp_path / "nowhere"), options=adapter.config.options)
        gone = type(adapter)(config)
        assert [p for p in gone.check() if p.fatal and p.message and p.mend]
        with pytest.raises(ModelUnavailable):
            gone.load()


def _missing() -> Any:
    def opening() -> io.BytesIO:
        raise FileNotFoundError(2, "No such file or directory")

    picture = image_input(b"", "gone.jpg")
    return type(picture)(picture.name, picture.sha256, opening, picture.kind)
