"""RAM and RAM++: the graph against independent formulations, the file formats, thresholds, languages, wrong files."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tagging.adapters import ram_model  # noqa: E402
from tagging.adapters.base import AdapterConfig, ModelUnavailable, Request  # noqa: E402
from tagging.adapters.folders import ModelFolder  # noqa: E402
from tagging.adapters.preparation import IMAGENET  # noqa: E402
from tagging.adapters.ram import SHIPPED, RamTagger, read_cuts, read_lines  # noqa: E402
from tests.fakes import ram_checkpoint as fake  # noqa: E402

from .contract import AdapterContract, Case, close_scores, no_room_in_torch  # noqa: E402
from .helpers import encoded, image_input, reference_picture  # noqa: E402


class TestContract(AdapterContract):
    key = "ram"

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory):
        folder = fake.build(tmp_path_factory.mktemp("models") / "ram-of-the-test")
        return Case(
            lambda: RamTagger(AdapterConfig(source=str(folder), device="cpu")),
            no_room_in_torch,
            folder=folder,
            elsewhere=lambda copy: RamTagger(AdapterConfig(source=str(shutil.copytree(folder, copy)), device="cpu")),
            same=close_scores,
        )


@pytest.fixture(scope="module", params=[True, False], ids=["RAM++", "RAM"])
def plus(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, plus):
    return fake.build(tmp_path_factory.mktemp("ram"), plus=plus)


def pixels(n=2, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, 3, fake.SIDE, fake.SIDE), dtype=np.uint8)


# -- independent formulations ---------------------------------------------------------------------------------------
def swin_of_transformers(state):
    """transformers' own Swin with these weights."""
    from tagging.adapters.vlm import runtime

    runtime.without_broken_torchvision()
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        image_size=fake.SIDE,
        patch_size=4,
        num_channels=3,
        embed_dim=fake.WIDTH,
        depths=list(fake.DEPTHS),
        num_heads=list(fake.HEADS),
        window_size=fake.WINDOW,
        mlp_ratio=4.0,
        qkv_bias=True,
        hidden_act="gelu",
    )
    model = transformers.SwinModel(config, add_pooling_layer=True).eval()
    own = {}
    for name, tensor in state.items():
        if not name.startswith("visual_encoder.") or name.endswith(("relative_position_index", "attn_mask")):
            continue
        name = name.removeprefix("visual_encoder.")
        if name.startswith("patch_embed."):
            name = name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
            name = name.replace("patch_embed.norm", "embeddings.norm")
        elif name.startswith("norm."):
            name = "layernorm." + name.removeprefix("norm.")
        else:
            name = "encoder." + name
        for old, new in {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "attn.proj": "attention.o_proj",
            "attn.relative_position_bias_table": "attention.relative_position_bias.relative_position_bias_table",
        }.items():
            name = name.replace(old, new)
        if "attn.qkv" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                own[name.replace("attn.qkv", f"attention.{part}_proj")] = piece
        else:
            own[name] = tensor
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert not unexpected
    assert not missing
    return model


def plain_decoder(state, picture, plus) -> np.ndarray:
    """Label embeddings, cross-attention and the last unit in numpy, image by image, label by label where it mixes."""
    w = {name: tensor.numpy().astype(np.float64) for name, tensor in state.items()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    gelu = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    answers = []
    for tokens in picture:
        tokens = linear(tokens, "image_proj")
        embeddings = w["label_embed"]
        if plus:
            mean = tokens[0] / np.linalg.norm(tokens[0])
            per = len(embeddings) // len(fake.TAGS)
            mixed = []
            for i in range(len(fake.TAGS)):
                own = embeddings[i * per : (i + 1) * per]
                mixed.append(softmax(np.exp(w["reweight_scale"]) * (own @ mean)) @ own)
            embeddings = np.stack(mixed)
        x = np.maximum(linear(embeddings, "wordvec_proj"), 0)
        for k in range(fake.DECODER):
            layer = f"tagging_head.encoder.layer.{k}"
            cross = f"{layer}.crossattention"
            q, key, value = (
                linear(x, f"{cross}.self.query"),
                linear(tokens, f"{cross}.self.key"),
                linear(tokens, f"{cross}.self.value"),
            )
            size = fake.HIDDEN // 4
            seen = []
            for head in range(4):
                part = slice(head * size, (head + 1) * size)
                seen.append(softmax(q[:, part] @ key[:, part].T / math.sqrt(size)) @ value[:, part])
            x = norm(linear(np.concatenate(seen, -1), f"{cross}.output.dense") + x, f"{cross}.output.LayerNorm")
            inner = gelu(linear(x, f"{layer}.intermediate.dense"))
            x = norm(linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
        answers.append(linear(x, "fc")[:, 0])
    return np.stack(answers)


class TestGraph:
    def test_the_picture_part_equals_transformers_swin(self):
        state = fake.tensors(plus=False)
        ours = ram_model.build({"model": state}, len(fake.TAGS)).visual_encoder
        theirs = swin_of_transformers(state)
        x = torch.from_numpy(IMAGENET.floats(pixels(3)))
        with torch.inference_mode():
            found, answer = ours(x), theirs(x)
        assert found[:, 1:].shape == answer.last_hidden_state.shape
        assert torch.allclose(found[:, 1:], answer.last_hidden_state, atol=1e-4)
        assert torch.allclose(found[:, 0], answer.pooler_output, atol=1e-4)

    def test_windows_are_moved_and_masked(self):
        """Without the mask the far edges would see each other: the check above would not notice a mask of zeros."""
        model = ram_model.build({"model": fake.tensors(plus=False)}, len(fake.TAGS))
        masks = [b.mask for layer in model.visual_encoder.layers for b in layer.blocks]
        assert [m is not None and bool((m < 0).any()) for m in masks] == [False, True, False, True, False, False]

    def test_the_decoder_equals_a_plain_formulation(self, plus):
        state = fake.tensors(plus=plus)
        model = ram_model.build({"model": state}, len(fake.TAGS))
        x = torch.from_numpy(IMAGENET.floats(pixels(3)))
        with torch.inference_mode():
            picture, found = model.visual_encoder(x), model(x)
        assert np.allclose(found.numpy(), plain_decoder(state, picture.numpy(), plus), atol=1e-4)

    def test_descriptions_are_mixed_for_each_picture(self):
        state = fake.tensors(plus=True)
        model = ram_model.build({"model": state}, len(fake.TAGS))
        with torch.inference_mode():
            mixed = model._labels(torch.randn(2, fake.EMBED))
        assert mixed.shape == (2, len(fake.TAGS), fake.EMBED)
        assert not torch.allclose(mixed[0], mixed[1])

    @pytest.mark.parametrize(("window", "side"), [(12, 384), (7, 224)])
    def test_the_published_sizes_follow_from_the_window(self, window, side):
        shape = ram_model.Shape(192, (2, 2, 18, 2), (6, 12, 24, 48), window, 4, 512, 768, 2, 3072, 4585, 51)
        assert shape.side == side


# -- through the adapter --------------------------------------------------------------------------------------------
def answer(adapter, source, **options):
    request = Request(adapter.options({"score_floor": 0.001, **options}))
    (reply,) = adapter.infer([adapter.prepare(image_input(source), request)], request)
    names = adapter.label_set.names
    return {names[i]: float(p) for i, p in zip(reply.scores.labels, reply.scores.probabilities, strict=True)}


def expected(state, source) -> np.ndarray:
    """Probabilities: Pillow's squash, ImageNet's normalisation, the graph."""
    picture = reference_picture(source).resize((fake.SIDE, fake.SIDE), Image.Resampling.BILINEAR)
    x = IMAGENET.floats(np.asarray(picture).transpose(2, 0, 1)[None])
    with torch.inference_mode():
        return torch.sigmoid(ram_model.build({"model": state}, len(fake.TAGS))(torch.from_numpy(x)))[0].numpy()


def small(samples, name) -> bytes:
    picture = Image.open(samples / name)
    picture.thumbnail((480, 480))
    return encoded(picture)


@pytest.mark.parametrize("form", ["pth", "safetensors", "logits", "sigmoid"])
def test_every_file_format_gives_the_same_scores(tmp_path, samples, plus, form):
    folder = fake.build(tmp_path / "ram", plus=plus, form=form)
    source = small(samples, "coffee-cutout.png")
    with RamTagger(AdapterConfig(source=str(folder), device="cpu")) as adapter:
        found = answer(adapter, source)
        assert adapter.provider == ("cpu" if form in ("pth", "safetensors") else "CPUExecutionProvider")
    for name, probability in zip(fake.TAGS, expected(fake.tensors(plus=plus), source), strict=True):
        assert found.get(name, 0) == pytest.approx(probability, abs=2e-3)


def test_scores_are_kept_below_the_thresholds(folder, samples):
    with RamTagger(AdapterConfig(source=str(folder), device="cpu")) as adapter:
        found = answer(adapter, small(samples, "cat-face.jpg"))
    cuts = dict(zip(fake.TAGS, fake.CUTS, strict=True))
    assert any(score < cuts[name] for name, score in found.items())
    assert found["switched off"] < 1


def test_half_precision_is_close_and_another_identity(folder, samples):
    source = small(samples, "cat-face.jpg")
    answers, identities = [], []
    for quantization in ("none", "bf16"):
        with RamTagger(AdapterConfig(source=str(folder), device="cpu", quantization=quantization)) as adapter:
            answers.append(answer(adapter, source))
            identities.append(adapter.identity())
    assert identities[0] != identities[1]
    for name in fake.TAGS:
        assert answers[1].get(name, 0) == pytest.approx(answers[0].get(name, 0), abs=0.1)


class TestThresholds:
    def cuts(self, folder, **options):
        adapter = RamTagger(AdapterConfig(source=str(folder)))
        scores = np.zeros(len(fake.TAGS), np.float32)
        return RamTagger.thresholds(adapter.label_set, scores, adapter.options(options))

    def test_each_tag_has_its_own(self, folder):
        cuts = self.cuts(folder)
        for name, value in zip(fake.TAGS, fake.CUTS, strict=True):
            assert cuts.lowest(name, "general") == pytest.approx(value)

    def test_a_multiplier_moves_all_but_what_is_switched_off(self, folder):
        cuts = self.cuts(folder, threshold_multiplier=0.5)
        assert cuts.lowest("cat", "general") == pytest.approx(0.25)
        assert cuts.lowest("switched off", "general") == 1.0
        assert self.cuts(folder, threshold_multiplier=1.5).lowest("tree", "general") == 1.0

    def test_they_hold_in_a_policy(self, folder, samples):
        from tagging.policy.pipeline import compile_policy

        with RamTagger(AdapterConfig(source=str(folder), device="cpu")) as adapter:
            request = Request(adapter.options())
            source = small(samples, "cat-face.jpg")
            (reply,) = adapter.infer([adapter.prepare(image_input(source), request)], request)
            labels, found = adapter.label_set, answer(adapter, source)
        policy = compile_policy({})
        kept = policy.apply(policy.select(labels, reply.scores, self.cuts(folder)), thresholds=self.cuts(folder)).names
        assert kept
        assert set(kept) == {n for n, cut in zip(fake.TAGS, fake.CUTS, strict=True) if found.get(n, 0) >= cut}

    def test_moving_them_needs_no_inference(self, folder):
        adapter = RamTagger(AdapterConfig(source=str(folder)))
        moved = adapter.options({"threshold_multiplier": 0.7})
        assert moved.inference_dict() == adapter.options().inference_dict()
        assert adapter.options({"language": "chinese"}).inference_dict() != adapter.options().inference_dict()


class TestLists:
    def test_chinese(self, folder, samples):
        config = AdapterConfig(source=str(folder), device="cpu", options={"language": "chinese"})
        with RamTagger(config) as adapter:
            assert set(answer(adapter, small(samples, "cat-face.jpg"))) <= set(fake.CHINESE)
            assert adapter.label_set.digest != RamTagger(AdapterConfig(source=str(folder))).label_set.digest

    def test_chinese_without_its_list_says_where_to_get_it(self, tmp_path):
        folder = fake.build(tmp_path / "ram")
        (folder / "ram_tag_list_chinese.txt").unlink()
        adapter = RamTagger(AdapterConfig(source=str(folder), options={"language": "chinese"}))
        assert "ram_tag_list_chinese.txt" in adapter.check()[0].message
        with pytest.raises(ModelUnavailable, match="recognize-anything"):
            adapter.load()

    def test_the_published_lists_are_shipped_with_their_licence(self):
        tags, cuts = read_lines(SHIPPED / "ram_tag_list.txt"), read_cuts(SHIPPED / "ram_tag_list_threshold.txt", 4585)
        assert len(tags) == len(cuts) == len(set(tags)) == 4585
        assert (tags[0], tags[-1]) == ("3D CG rendering", "zoo")
        assert (min(cuts), max(cuts)) == (0.45, 1.0)
        assert sum(cuts) / len(cuts) == pytest.approx(0.691, abs=1e-3)
        assert "Apache License" in (SHIPPED / "LICENSE").read_text()
        assert "recognize-anything" in (SHIPPED / "NOTICE").read_text()

    def test_a_folder_without_lists_takes_the_shipped_ones(self, tmp_path):
        folder = tmp_path / "ram"
        folder.mkdir()
        torch.save({"model": fake.tensors(plus=False, labels=4585)}, folder / "ram_swin_large_14m.pth")
        with RamTagger(AdapterConfig(source=str(folder), device="cpu")) as adapter:
            assert len(adapter.label_set.names) == 4585

    def test_a_list_of_ones_own_without_thresholds(self, tmp_path):
        folder = fake.build(tmp_path / "ram")
        (folder / "ram_tag_list_threshold.txt").unlink()
        assert set(RamTagger(AdapterConfig(source=str(folder))).label_set.published["tags"]) == {0.68}

    @pytest.mark.parametrize(
        ("name", "text", "pattern"),
        [
            ("ram_tag_list_threshold.txt", "0.5\nhigh\n", "line 2: 'high'"),
            ("ram_tag_list_threshold.txt", "0.5\n", "1 thresholds for 7 tags"),
            ("ram_tag_list.txt", "cat\n\ndog\n", "line 2"),
            ("ram_tag_list_chinese.txt", "猫\n", "has 1 tags"),
        ],
    )
    def test_broken_lists_are_named(self, tmp_path, name, text, pattern):
        folder = fake.build(tmp_path / "ram")
        (folder / name).write_text(text, encoding="utf-8")
        adapter = RamTagger(AdapterConfig(source=str(folder), options={"language": "chinese"}))
        with pytest.raises(ModelUnavailable, match=pattern):
            adapter.load()


class TestWrongFiles:
    def fails(self, folder, pattern, **config):
        with pytest.raises(ModelUnavailable, match=pattern):
            RamTagger(AdapterConfig(source=str(folder), device="cpu", **config)).load()

    def test_labels_of_another_model(self, tmp_path):
        folder = fake.build(tmp_path / "ram", plus=False)
        fake.write_lists(folder, [*fake.TAGS, "one more"])
        (folder / "ram_tag_list_threshold.txt").write_text("0.5\n" * 8)
        self.fails(folder, r"7 label embeddings, which is no multiple of 8 tags")

    def test_a_missing_tensor_is_named(self, tmp_path):
        folder, state = fake.build(tmp_path / "ram"), fake.tensors(plus=True)
        state.pop("tagging_head.encoder.layer.1.output.dense.bias")
        torch.save({"model": state}, folder / "ram_plus_swin_large_14m.pth")
        self.fails(folder, r"tagging_head\.encoder\.layer\.1\.output\.dense\.bias is missing")

    def test_another_models_checkpoint(self, tmp_path):
        folder = fake.build(tmp_path / "ram")
        torch.save({"conv.weight": torch.zeros(3)}, folder / "ram_plus_swin_large_14m.pth")
        self.fails(folder, "not the weights of RAM")

    def test_a_file_that_is_none(self, tmp_path):
        folder = fake.build(tmp_path / "ram")
        (folder / "ram_plus_swin_large_14m.pth").write_bytes(b"<html>not found</html>")
        self.fails(folder, "ram_plus_swin_large_14m")

    def test_a_pickle_that_would_run_code_is_not_opened(self, tmp_path):
        folder = fake.build(tmp_path / "ram")

        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        torch.save({"model": fake.tensors(plus=True), "x": Evil()}, folder / "ram_plus_swin_large_14m.pth")
        self.fails(folder, "more than tensors")
        assert not (tmp_path / "ran").exists()

    def test_the_authors_export_with_thresholds_inside(self, tmp_path):
        self.fails(fake.build(tmp_path / "ram", form="cut"), "0 and 1 instead of scores")

    @pytest.mark.parametrize(
        ("form", "quantization", "pattern"), [("pth", "int8", "no int8 form"), ("logits", "bf16", "no bf16 form")]
    )
    def test_a_form_that_there_is_not(self, tmp_path, form, quantization, pattern):
        self.fails(fake.build(tmp_path / "ram", form=form), pattern, quantization=quantization)

    def test_a_device_of_onnxruntime_for_a_checkpoint(self, folder):
        problems = RamTagger(AdapterConfig(source=str(folder), device="directml")).check()
        assert any("'directml'" in p.message for p in problems)


def test_older_names_of_the_decoder_are_read(tmp_path):
    state = {
        name.replace("tagging_head.", "vision_multi."): tensor for name, tensor in fake.tensors(plus=False).items()
    }
    assert ram_model.build(state, len(fake.TAGS)).shape.decoder_layers == fake.DECODER


def test_a_scan_offers_it(folder):
    seen = ModelFolder(folder, {p.name: p.stat().st_size for p in folder.iterdir()})
    guess = RamTagger.recognises(seen)
    assert guess is not None
    assert guess.certainty > 90
