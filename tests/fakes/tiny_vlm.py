"""Tiny vision-language checkpoints with random weights, written to disk as the real ones are: configuration, weights,
processor, tokenizer. One for each architecture; what they say is gibberish, how they load and generate is real.

`build(name, folder)` in a process in which transformers can be imported (see `tagging.adapters.vlm.runtime`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SENTENCES = [
    "a photo of a cat on a table",
    "a dog playing in the park",
    "a cup of coffee",
    "mountains and a lake under a blue sky",
    "describe this image in one or two sentences",
    "caption en, tags: people, street, car, tree, flower, beach, sunset, black cat, cat tree, dog house",
]
CLIP_SIDE = 64
SIZE = {"height": CLIP_SIDE, "width": CLIP_SIDE}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP = {**VISION, "image_size": CLIP_SIDE, "patch_size": 16}
LLAVA_CHAT = (
    "{% for m in messages %}{{ m['role'].upper() }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}MARK{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IDEFICS_CHAT = (
    "{% for m in messages %}{{ m['role']|capitalize }}:{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}<start_of_turn>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<start_of_image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for m in messages %}[INST]{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}[IMG]{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}[/INST]{% endfor %}"
)
LLAMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|image|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

Parts = tuple[Any, list[Any]]
BUILDERS: dict[str, Callable[[Any], Parts]] = {}


def builder(function: Callable[[Any], Parts]) -> Callable[[Any], Parts]:
    BUILDERS[function.__name__] = function
    return function


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint `name` into `folder`/`name`; the same bytes of weights every time."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    model, parts = BUILDERS[name](t)
    path = folder / name
    _lively(torch, model)
    model.save_pretrained(path)
    for part in parts:
        if isinstance(part, tuple):  # a file's name and content
            (path / part[0]).write_text(part[1] if isinstance(part[1], str) else json.dumps(part[1]))
        else:
            part.save_pretrained(path)
    return path


def _lively(torch: Any, model: Any) -> None:
    """Wider weights: with the usual narrow ones every picture would get the same answer."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "position" not in name:
                weight.mul_(3.0)


# -- tokenizers -------------------------------------------------------------------------------------------------------


def byte_tokenizer(t: Any, specials: list[str], *, template: str = "", **settings: Any) -> Any:
    """Byte-level BPE over the sentences. `template` puts special tokens around a text: "<s> $A </s>"."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    found.train_from_iterator(SENTENCES * 20, trainer)
    if template:
        names = [part for part in template.split() if part != "$A"]
        found.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, found.token_to_id(name)) for name in names]
        )
    return t.PreTrainedTokenizerFast(tokenizer_object=found, model_max_length=2048, padding_side="left", **settings)


def metaspace_tokenizer(t: Any, specials: list[str], **settings: Any) -> Any:
    """Words with the underline of SentencePiece, single letters for the rest; a space is put before a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = dict.fromkeys("▁" + w for s in SENTENCES for w in s.replace(",", " ").replace(":", " ").split())
    letters = dict.fromkeys([*"▁,.:;!?'\n", *map(chr, range(97, 123)), *map(chr, range(65, 91)), *"0123456789"])
    vocabulary = [*specials, *letters, *(w for w in words if w not in letters)]
    merges = []
    known = set(vocabulary)
    for word in words:
        for end in range(2, len(word) + 1):
            merges.append((word[: end - 1], word[end - 1]))
            if word[:end] not in known:
                known.add(word[:end])
                vocabulary.append(word[:end])
    found = Tokenizer(
        models.BPE({w: i for i, w in enumerate(vocabulary)}, list(dict.fromkeys(merges)), unk_token="<unk>")
    )
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.decoder = decoders.Metaspace()
    return t.PreTrainedTokenizerFast(
        tokenizer_object=found, model_max_length=2048, padding_side="left", unk_token="<unk>", **settings
    )


def word_tokenizer(t: Any) -> Any:
    """BERT's word pieces."""
    words = sorted({w for s in SENTENCES for w in s.replace(":", " :").replace(",", " ,").split()})
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", ",", ".", "?", *words, *letters,
        *("##" + letter for letter in letters),
    ]  # fmt: skip
    return t.BertTokenizerFast(vocab={w: i for i, w in enumerate(dict.fromkeys(vocabulary))})


def id_of(tokenizer: Any, token: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(token))


def llama(size: int, **changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        **changes,
    }


def pil(t: Any, name: str) -> Any:
    return getattr(t, name + "Pil", None) or getattr(t, name)


def clip_images(t: Any) -> Any:
    return pil(t, "CLIPImageProcessor")(size={"shortest_edge": CLIP_SIDE}, crop_size=SIZE)


# -- chat families ----------------------------------------------------------------------------------------------------


def _llava_tokenizer(t: Any) -> Any:
    return metaspace_tokenizer(
        t, ["<unk>", "<s>", "</s>", "<pad>", "<image>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip


@builder
def llava(t: Any) -> Parts:
    tokenizer = _llava_tokenizer(t)
    text = llama(len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=3)
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**CLIP, projection_dim=32),
        text_config=t.LlamaConfig(**text),
        image_token_index=4,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
    )
    processor = t.LlavaProcessor(
        clip_images(t), tokenizer, patch_size=16, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=LLAVA_CHAT,
    )  # fmt: skip
    return t.LlavaForConditionalGeneration(config), [processor]


@builder
def joycaption(t: Any) -> Parts:
    """LLaVA with a SigLIP tower and a Llama 3 chat, as JoyCaption is."""
    names = ["<|end_of_text|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
             "<|reserved_special_token_69|>"]  # fmt: skip
    tokenizer = byte_tokenizer(
        t, names, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|end_of_text|>",
        extra_special_tokens={"image_token": "<|reserved_special_token_69|>"},
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=t.SiglipVisionConfig(**CLIP, vision_use_head=True),
        text_config=t.LlamaConfig(**llama(len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0)),
        image_token_index=5,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
        image_seq_length=16,
    )
    images = pil(t, "SiglipImageProcessor")(size=SIZE)
    # its content is a string and its picture's marker comes from the processor, as in the published template
    chat = (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{% if m['role'] == 'user' %}<|reserved_special_token_69|>{% endif %}{{ m['content'] | trim }}<|eot_id|>"
        "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    )
    processor = t.LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="full", num_additional_image_tokens=0,
        image_token="<|reserved_special_token_69|>", chat_template=chat,
    )  # fmt: skip
    return t.LlavaForConditionalGeneration(config), [processor]


@builder
def llava_next(t: Any) -> Parts:
    tokenizer = _llava_tokenizer(t)
    text = llama(len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=3)
    grid = [[64, 128], [128, 64], [128, 128]]
    config = t.LlavaNextConfig(
        vision_config=t.CLIPVisionConfig(**CLIP, projection_dim=32),
        text_config=t.LlamaConfig(**text),
        image_token_index=4,
        image_grid_pinpoints=grid,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
    )
    images = pil(t, "LlavaNextImageProcessor")(
        size={"shortest_edge": CLIP_SIDE}, crop_size=SIZE, image_grid_pinpoints=grid
    )
    processor = t.LlavaNextProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=LLAVA_CHAT,
    )  # fmt: skip
    return t.LlavaNextForConditionalGeneration(config), [processor]


QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
        "<|image_pad|>", "<|video_pad|>"]  # fmt: skip


def _qwen(t: Any, name: str, vision: dict[str, Any], rope: dict[str, Any], **text: Any) -> Parts:
    tokenizer = byte_tokenizer(
        t, QWEN, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|endoftext|>",
        extra_special_tokens={
            "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
        },
    )  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10000.0, **rope}
    numbers = llama(len(tokenizer), bos_token_id=0, eos_token_id=2, pad_token_id=0, rope_parameters=rope, **text)
    config = getattr(t, f"{name}Config")(
        text_config=numbers,
        vision_config=vision,
        image_token_id=id_of(tokenizer, "<|image_pad|>"),
        video_token_id=id_of(tokenizer, "<|video_pad|>"),
        vision_start_token_id=id_of(tokenizer, "<|vision_start|>"),
        vision_end_token_id=id_of(tokenizer, "<|vision_end|>"),
    )
    patch = vision["patch_size"]
    images = pil(t, "Qwen2VLImageProcessor")(
        patch_size=patch, min_pixels=(2 * patch) ** 2 * 4, max_pixels=(2 * patch) ** 2 * 16
    )
    chat = CHATML.replace("MARK", "<|vision_start|><|image_pad|><|vision_end|>")
    # as the real repositories are: no processor_config.json, the processor is found by the model's type
    model = getattr(t, f"{name}ForConditionalGeneration")(config)
    return model, [images, tokenizer, ("chat_template.jinja", chat)]


@builder
def qwen2_vl(t: Any) -> Parts:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 14,
              "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
    return _qwen(t, "Qwen2VL", vision, {"mrope_section": [1, 1, 2]})


@builder
def qwen2_5_vl(t: Any) -> Parts:
    vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4, "intermediate_size": 64,
              "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
              "fullatt_block_indexes": [1]}  # fmt: skip
    return _qwen(t, "Qwen2_5_VL", vision, {"mrope_section": [1, 1, 2]})


@builder
def qwen3_vl(t: Any) -> Parts:
    vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4, "intermediate_size": 64,
              "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64,
              "deepstack_visual_indexes": [0]}  # fmt: skip
    return _qwen(t, "Qwen3VL", vision, {"mrope_section": [2, 1, 1], "mrope_interleaved": True}, head_dim=8)


def _idefics(t: Any, name: str) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor."""
    names = ["<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>",
             "<global-img>", *(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7))]  # fmt: skip
    tokenizer = byte_tokenizer(
        t, names, bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|endoftext|>",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>", "image_token": "<image>",
            "end_of_utterance_token": "<end_of_utterance>", "global_image_token": "<global-img>",
        },
    )  # fmt: skip
    config = getattr(t, f"{name}Config")(
        text_config=t.LlamaConfig(**llama(len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0)),
        vision_config=CLIP,
        image_token_id=id_of(tokenizer, "<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    images = pil(t, f"{name}ImageProcessor")(
        size={"longest_edge": 128}, max_image_size={"longest_edge": 64}, do_image_splitting=True
    )
    return getattr(t, f"{name}ForConditionalGeneration")(config), tokenizer, images


@builder
def idefics3(t: Any) -> Parts:
    model, tokenizer, images = _idefics(t, "Idefics3")
    return model, [t.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=IDEFICS_CHAT)]


@builder
def smolvlm(t: Any) -> Parts:
    model, tokenizer, images = _idefics(t, "SmolVLM")
    settings = {"image_seq_len": 4, "processor_class": "SmolVLMProcessor"}
    return model, [images, tokenizer, ("processor_config.json", settings), ("chat_template.jinja", IDEFICS_CHAT)]


@builder
def paligemma(t: Any) -> Parts:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<image>", *(f"<loc{i:04d}>" for i in range(16))]
    tokenizer = byte_tokenizer(
        t, names, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    images = pil(t, "SiglipImageProcessor")(size=SIZE)
    images.image_seq_length = 16
    processor = t.PaliGemmaProcessor(images, tokenizer)
    text = llama(len(processor.tokenizer), tie_word_embeddings=True, head_dim=8, pad_token_id=0, eos_token_id=1,
                 bos_token_id=2)  # fmt: skip
    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**CLIP, vision_use_head=False),
        text_config=t.GemmaConfig(**text),
        image_token_index=id_of(processor.tokenizer, "<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return t.PaliGemmaForConditionalGeneration(config), [processor]


@builder
def gemma3(t: Any) -> Parts:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<image_soft_token>", "<start_of_image>", "<end_of_image>",
             "<start_of_turn>", "<end_of_turn>"]  # fmt: skip
    tokenizer = byte_tokenizer(
        t, names, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
        },
    )  # fmt: skip
    text = llama(len(tokenizer), head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=2, sliding_window=64)
    config = t.Gemma3Config(
        text_config=t.Gemma3TextConfig(**text),
        vision_config=t.SiglipVisionConfig(**CLIP, vision_use_head=False),
        mm_tokens_per_image=4,
        image_token_index=id_of(tokenizer, "<image_soft_token>"),
        boi_token_index=id_of(tokenizer, "<start_of_image>"),
        eoi_token_index=id_of(tokenizer, "<end_of_image>"),
    )
    images = pil(t, "Gemma3ImageProcessor")(size=SIZE)
    processor = t.Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=GEMMA_CHAT)
    return t.Gemma3ForConditionalGeneration(config), [processor]


@builder
def mllama(t: Any) -> Parts:
    names = ["<|end_of_text|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
             "<pad>", "<|python_tag|>"]  # fmt: skip
    tokenizer = byte_tokenizer(
        t, names, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<pad>",
        extra_special_tokens={"image_token": "<|image|>"},
    )  # fmt: skip
    size = id_of(tokenizer, "<|image|>")  # the first behind the vocabulary: only its embedding exists
    text = llama(size, bos_token_id=1, eos_token_id=2, pad_token_id=5)
    ratios = [[1, 1], [1, 2], [2, 1], [1, 3], [1, 4], [2, 2], [3, 1], [4, 1]]
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
        "attention_heads": 4, "image_size": CLIP_SIDE, "patch_size": 16, "max_num_tiles": 4, "norm_eps": 1e-5,
        "intermediate_layers_indices": [0], "vision_output_dim": 64, "supported_aspect_ratios": ratios,
    }  # fmt: skip
    config = t.MllamaConfig(
        vision_config=t.models.mllama.configuration_mllama.MllamaVisionConfig(**vision),
        text_config=t.models.mllama.configuration_mllama.MllamaTextConfig(
            **{
                **text,
                "cross_attention_layers": [1],
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            }
        ),
        image_token_index=size,
    )
    images = pil(t, "MllamaImageProcessor")(size=SIZE, max_image_tiles=4)
    processor = t.MllamaProcessor(images, tokenizer, chat_template=LLAMA_CHAT)
    return t.MllamaForConditionalGeneration(config), [processor]


@builder
def pixtral(t: Any) -> Parts:
    names = ["<unk>", "<s>", "</s>", "<pad>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"]
    tokenizer = byte_tokenizer(
        t, names, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={
            "image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]",
        },
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=t.PixtralVisionConfig(**CLIP),
        text_config=t.MistralConfig(
            **llama(len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=3, head_dim=8)
        ),
        image_token_index=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    images = pil(t, "PixtralImageProcessor")(size={"longest_edge": CLIP_SIDE}, patch_size={"height": 16, "width": 16})
    processor = t.PixtralProcessor(
        images, tokenizer, patch_size=16, image_token="[IMG]", image_break_token="[IMG_BREAK]",
        image_end_token="[IMG_END]", chat_template=MISTRAL_CHAT,
    )  # fmt: skip
    return t.LlavaForConditionalGeneration(config), [processor]


@builder
def internvl(t: Any) -> Parts:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<IMG_CONTEXT>", "<img>", "</img>", "<video>"]
    tokenizer = byte_tokenizer(
        t, names, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>",
        extra_special_tokens={
            "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )  # fmt: skip
    config = t.InternVLConfig(
        vision_config=t.InternVLVisionConfig(**{**CLIP, "image_size": [64, 64], "patch_size": [16, 16]}),
        text_config=t.Qwen2Config(**llama(len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0)),
        image_token_id=3,
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    images = pil(t, "GotOcr2ImageProcessor")(size=SIZE, crop_to_patches=True, min_patches=1, max_patches=4)
    chat = CHATML.replace("MARK", "<IMG_CONTEXT>\n")
    settings = {"image_seq_length": 4, "processor_class": "InternVLProcessor"}
    return t.InternVLForConditionalGeneration(config), [
        images, tokenizer, ("processor_config.json", settings), ("chat_template.jinja", chat),
    ]  # fmt: skip


@builder
def llava_onevision(t: Any) -> Parts:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tokenizer = byte_tokenizer(
        t, names, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
    )  # fmt: skip
    grid = [[64, 128], [128, 64], [128, 128]]
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**CLIP, vision_use_head=False),
        text_config=t.Qwen2Config(**llama(len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0)),
        image_token_index=3,
        video_token_index=4,
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    images = pil(t, "LlavaOnevisionImageProcessor")(size=SIZE, image_grid_pinpoints=grid)
    settings = {
        "num_image_tokens": 16, "vision_feature_select_strategy": "full", "processor_class": "LlavaOnevisionProcessor",
        "vision_aspect_ratio": "anyres_max_9",
    }  # fmt: skip
    return t.LlavaOnevisionForConditionalGeneration(config), [
        images, tokenizer, ("processor_config.json", settings),
        ("chat_template.jinja", CHATML.replace("MARK", "<image>\n")),
    ]  # fmt: skip


@builder
def gemma4(t: Any) -> Parts:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<|image|>", "<|image>", "<image|>", "<|turn>", "<turn|>", "<|audio|>",
             "<|audio>", "<audio|>", "<|video|>"]  # fmt: skip
    tokenizer = byte_tokenizer(
        t, names, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>",
            "boa_token": "<|audio>", "eoa_token": "<audio|>",
        },
    )  # fmt: skip
    text = llama(
        len(tokenizer), head_dim=8, global_head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        sliding_window=64, vocab_size_per_layer_input=len(tokenizer), hidden_size_per_layer_input=8,
        layer_types=["sliding_attention", "full_attention"], tie_word_embeddings=True,
    )  # fmt: skip
    vision = {
        **VISION, "num_key_value_heads": 4, "head_dim": 8, "patch_size": 16, "pooling_kernel_size": 2,
        "position_embedding_size": 64,
    }  # fmt: skip
    config = t.Gemma4Config(
        text_config=t.Gemma4TextConfig(**text),
        vision_config=t.Gemma4VisionConfig(**vision),
        audio_config=None,
        image_token_id=id_of(tokenizer, "<|image|>"),
        boi_token_id=id_of(tokenizer, "<|image>"),
        eoi_token_id=id_of(tokenizer, "<image|>"),
        audio_token_id=id_of(tokenizer, "<|audio|>"),
        boa_token_id=id_of(tokenizer, "<|audio>"),
        eoa_token_index=id_of(tokenizer, "<audio|>"),
        video_token_id=id_of(tokenizer, "<|video|>"),
    )
    images = pil(t, "Gemma4ImageProcessor")(patch_size=16, max_soft_tokens=70, pooling_kernel_size=2)
    chat = GEMMA_CHAT.replace("<start_of_image>", "<|image|>").replace("<start_of_turn>", "<|turn>")
    # as transformers 5 saves a processor: its parts in one file
    parts = {
        "image_processor": json.loads(images.to_json_string()),
        "feature_extractor": json.loads(t.Gemma4AudioFeatureExtractor().to_json_string()),
        "processor_class": "Gemma4Processor",
        "image_seq_length": 70,
    }
    return t.Gemma4ForConditionalGeneration(config), [
        tokenizer, ("processor_config.json", parts),
        ("chat_template.jinja", chat.replace("<end_of_turn>", "<turn|>")),
    ]  # fmt: skip


@builder
def mistral3(t: Any) -> Parts:
    names = ["<unk>", "<s>", "</s>", "<pad>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"]
    tokenizer = byte_tokenizer(
        t, names, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={
            "image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]",
        },
    )  # fmt: skip
    text = llama(len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=3, head_dim=8)
    config = t.Mistral3Config(
        vision_config=t.PixtralVisionConfig(**CLIP),
        text_config=t.MistralConfig(**text),
        image_token_index=4,
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    images = pil(t, "PixtralImageProcessor")(size={"longest_edge": CLIP_SIDE}, patch_size={"height": 16, "width": 16})
    processor = t.PixtralProcessor(
        images, tokenizer, patch_size=16, spatial_merge_size=2, image_token="[IMG]", image_break_token="[IMG_BREAK]",
        image_end_token="[IMG_END]", chat_template=MISTRAL_CHAT,
    )  # fmt: skip
    return t.Mistral3ForConditionalGeneration(config), [processor]


@builder
def phi4_multimodal(t: Any) -> Parts:
    names = ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|image|>", "<|audio|>"]
    tokenizer = byte_tokenizer(
        t, names, bos_token="<|endoftext|>", eos_token="<|end|>", pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image|>", "audio_token": "<|audio|>"},
    )  # fmt: skip
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4}
    config = t.Phi4MultimodalConfig(
        **llama(len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=0),
        vision_config={**small, "num_hidden_layers": 2, "image_size": 64, "patch_size": 2, "crop_size": 64,
                       "image_token_id": 5},
        audio_config={**small, "num_blocks": 1, "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16,
                      "nemo_conv_channels": 16, "audio_token_id": 6},
    )  # fmt: skip
    chat = (
        "{% for m in messages %}<|{{ m['role'] }}|>{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|image|>{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    images = t.Phi4MultimodalImageProcessor(size=SIZE, patch_size=2, dynamic_hd=4)
    audio = t.Phi4MultimodalFeatureExtractor()
    processor = t.Phi4MultimodalProcessor(images, audio, tokenizer, chat_template=chat)
    return t.Phi4MultimodalForCausalLM(config), [processor]


# -- families with rules of their own ---------------------------------------------------------------------------------


@builder
def blip(t: Any) -> Parts:
    tokenizer = word_tokenizer(t)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64,
        "projection_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
        "bos_token_id": id_of(tokenizer, "[DEC]"), "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id, "sep_token_id": tokenizer.sep_token_id,
    }  # fmt: skip
    config = t.BlipConfig(text_config=text, vision_config=CLIP, projection_dim=32)
    return t.BlipForConditionalGeneration(config), [t.BlipProcessor(pil(t, "BlipImageProcessor")(size=SIZE), tokenizer)]


def _qformer(size: int) -> dict[str, Any]:
    return {
        "vocab_size": size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "encoder_hidden_size": 32, "cross_attention_frequency": 1,
        "max_position_embeddings": 128,
    }  # fmt: skip


@builder
def blip2(t: Any) -> Parts:
    tokenizer = byte_tokenizer(
        t, ["<s>", "<pad>", "</s>", "<unk>", "<image>"], bos_token="</s>", eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip
    text = {
        "model_type": "opt", "vocab_size": len(tokenizer), "hidden_size": 32, "word_embed_proj_dim": 32,
        "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512,
        "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    config = t.Blip2Config(
        vision_config=CLIP, qformer_config=_qformer(30), text_config=text, num_query_tokens=4,
        image_token_index=id_of(tokenizer, "<image>"),
    )  # fmt: skip
    images = pil(t, "BlipImageProcessor")(size=SIZE)
    return t.Blip2ForConditionalGeneration(config), [t.Blip2Processor(images, tokenizer, num_query_tokens=4)]


@builder
def instructblip(t: Any) -> Parts:
    tokenizer = byte_tokenizer(
        t, ["<pad>", "</s>", "<unk>", "<image>"], eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        template="$A </s>",
    )  # fmt: skip
    text = {
        "model_type": "t5", "vocab_size": len(tokenizer), "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
        "num_decoder_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    words = word_tokenizer(t)
    config = t.InstructBlipConfig(
        vision_config=CLIP, qformer_config=_qformer(len(words)), text_config=text, num_query_tokens=4,
        image_token_index=id_of(tokenizer, "<image>"),
    )  # fmt: skip
    images = pil(t, "BlipImageProcessor")(size=SIZE)
    processor = t.InstructBlipProcessor(images, tokenizer, words, num_query_tokens=4)
    return t.InstructBlipForConditionalGeneration(config), [processor]


@builder
def git(t: Any) -> Parts:
    tokenizer = word_tokenizer(t)
    config = t.GitConfig(
        vision_config=CLIP, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=256, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id, eos_token_id=tokenizer.sep_token_id,
    )  # fmt: skip
    return t.GitForCausalLM(config), [t.GitProcessor(clip_images(t), tokenizer)]


@builder
def vit_gpt2(t: Any) -> Parts:
    end = "<|endoftext|>"
    tokenizer = byte_tokenizer(t, [end], bos_token=end, eos_token=end, pad_token=end)
    encoder = t.ViTConfig(**CLIP)
    decoder = t.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256, is_decoder=True,
        add_cross_attention=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = t.VisionEncoderDecoderModel(config=config)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id = settings.pad_token_id = settings.eos_token_id = 0
    return model, [pil(t, "ViTImageProcessor")(size=SIZE), tokenizer]


@builder
def florence2(t: Any) -> Parts:
    marks = ["od", "ocr", "cap", "ncap", "dcap", "grounding", "seg", "region_cap", "region_to_desciption", "proposal"]
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>", *(f"<loc_{i}>" for i in range(20)),
             *(f"<{end}{mark}>" for mark in marks for end in ("", "/")), "<sep>", "<poly>", "</poly>",
             "<and>"]  # fmt: skip
    tokenizer = byte_tokenizer(
        t, names, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"}, template="<s> $A </s>",
    )  # fmt: skip
    vision = {
        "in_channels": 3, "depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1),
        "patch_prenorm": (False, True), "embed_dim": (16, 32), "num_heads": (2, 4), "num_groups": (2, 4),
        "window_size": 4, "projection_dim": 32, "max_temporal_embeddings": 10, "max_position_embeddings": 50,
    }  # fmt: skip
    text = {
        "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "max_position_embeddings": 1024, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 2, "forced_eos_token_id": 2, "is_encoder_decoder": True,
    }  # fmt: skip
    config = t.Florence2Config(text_config=text, vision_config=vision, image_token_id=id_of(tokenizer, "<image>"))
    model = t.Florence2ForConditionalGeneration(config)
    stored = {"decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0,
              "forced_bos_token_id": 0, "forced_eos_token_id": 2}  # fmt: skip
    for name, value in stored.items():
        setattr(model.generation_config, name, value)
    images = pil(t, "CLIPImageProcessor")(
        size=SIZE, do_center_crop=False, crop_size=SIZE, image_seq_length=(CLIP_SIDE // 8) ** 2 + 1
    )
    processor = t.Florence2Processor(image_processor=images, tokenizer=tokenizer, num_additional_image_tokens=0)
    return model, [processor]


@builder
def kosmos2(t: Any) -> Parts:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = ["<s>", "<pad>", "</s>", "<unk>"]
    words = dict.fromkeys("▁" + w for s in SENTENCES for w in s.replace(",", " ").replace(":", " ").split())
    letters = dict.fromkeys([*"▁,.", *map(chr, range(97, 123)), *map(chr, range(65, 91))])
    vocabulary = [*names, *words, *(c for c in letters if c not in words)]
    found = Tokenizer(models.Unigram([(w, -1.0 if w in words else -8.0) for w in vocabulary], unk_id=3))
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.decoder = decoders.Metaspace()
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=found, model_max_length=2048, padding_side="left", bos_token="<s>", eos_token="</s>",
        pad_token="<pad>", unk_token="<unk>",
    )  # fmt: skip
    processor = t.Kosmos2Processor(clip_images(t), tokenizer, num_patch_index_tokens=1024)
    size = len(processor.tokenizer)
    text = {
        "vocab_size": size, "embed_dim": 32, "layers": 2, "ffn_dim": 64, "attention_heads": 4,
        "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    config = t.Kosmos2Config(text_config=text, vision_config=CLIP, latent_query_num=64)
    return t.Kosmos2ForConditionalGeneration(config), [processor]
