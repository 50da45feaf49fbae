"""Any image-text-to-text model of transformers, asked by its chat template, or as its family is asked without one."""

from __future__ import annotations

from typing import Any, ClassVar

from ..base import About, AdapterError, AdapterOptions, Capabilities, Problem, Request
from ..folders import Guess, ModelFolder
from . import processors, source
from .cold import capabilities
from .family import VisionLanguage
from .options import ChatOptions

#: How families are asked whose checkpoints come without a chat template. {image} is the processor's marker.
WITHOUT_TEMPLATE = {
    "llava": "{system}USER: {image}\n{prompt} ASSISTANT:",
    "vipllava": "{system}USER: {image}\n{prompt} ASSISTANT:",
    "llava_next": "{system}USER: {image}\n{prompt} ASSISTANT:",
    "llava_onevision": "{system}USER: {image}\n{prompt} ASSISTANT:",
    "paligemma": "{image}{system}{prompt}",
    "mllama": "{image}{bos}{system}{prompt}",
    "pixtral": "{bos}[INST]{system}{prompt}{image}[/INST]",
    "mistral3": "{bos}[INST]{system}{prompt}{image}[/INST]",
    "idefics2": "{system}User:{image}{prompt}<end_of_utterance>\nAssistant:",
    "idefics3": "{bos}{system}User:{image}{prompt}<end_of_utterance>\nAssistant:",
    "smolvlm": "{bos}{system}User:{image}{prompt}<end_of_utterance>\nAssistant:",
    "phi4_multimodal": "<|user|>{image}{system}{prompt}<|end|><|assistant|>",
}
#: Families that were tried here, and their relatives.
KNOWN = frozenset(WITHOUT_TEMPLATE) | {
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "internvl", "gemma3", "gemma3n",
    "gemma4", "aya_vision", "glm4v", "glm46v", "llama4", "lfm2_vl", "ovis2", "perception_lm", "molmo2", "fast_vlm",
    "deepseek_vl",
}  # fmt: skip
PLAIN = "{system}{image}\n{prompt}\n"
#: Families that are trained on short commands instead of questions.
PROMPTS = {"paligemma": "caption en"}


class ChatModel(VisionLanguage):
    """LLaVA, Qwen-VL, InternVL, SmolVLM, Idefics, Gemma, PaliGemma, Mllama, Pixtral, Phi-4 and others."""

    key: ClassVar[str] = "vlm"
    label: ClassVar[str] = "Vision-language model (transformers)"
    capabilities: ClassVar[Capabilities] = capabilities(system=True, vocabulary=True)
    default_prompt: ClassVar[str] = "Describe this image in one or two sentences."
    about = About(
        summary="Any image-text-to-text model that transformers knows: captions, tags in words, answers to a prompt. "
        "LLaVA 1.5, NeXT and OneVision, Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, SmolVLM, Idefics, Gemma 3 and 4, "
        "PaliGemma, Mllama, Pixtral, Mistral 3, Phi-4-multimodal and others.",
        weights="A hub id (Qwen/Qwen2.5-VL-7B-Instruct), a folder, or a name in IWTAG_MODELS_DIRS, with config.json, "
        "the .safetensors, the tokenizer's and the processor's files. Extra: "
        ".venv/bin/pip install '.[vlm]' in iwtag's folder.",
        licence="Each model has its own: Apache-2.0 for many (Qwen2.5-VL 7B, SmolVLM, Pixtral), MIT (Phi-4), Gemma, "
        "Llama "
        "and Qwen research licences with conditions. Read the model's page.",
        memory="Weights: 2 bytes a parameter in bf16 (7 billion: 14 GB), about 1.1 in 8 bit, 0.65 in 4 bit; each "
        "image of "
        "a batch adds its tokens' cache, 0.1 to 1 GB. Estimates; check() and a failed load name the model's own.",
        tested="Tiny random checkpoints of LLaVA (1.5, NeXT, OneVision), Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, "
        "SmolVLM, "
        "Idefics3, Gemma 3 and 4, PaliGemma, Mllama, Pixtral, Mistral 3 and Phi-4-multimodal through loading, "
        "processor "
        "and generation on a processor, without the network: a batch answers like one by one, greedy answers equal the "
        "plain library's. No published weights and no card were at hand: quality, CUDA and bitsandbytes are untested.",
        notes=(
            "An empty prompt asks for one or two sentences; PaliGemma is asked 'caption en', as it was trained.",
            "System words go where the chat template has a place for them, else before the prompt.",
            "With a temperature, each image, sample and seed draws its own numbers, whatever else is in the batch.",
            "Without torchvision, or with one that does not fit torch, pictures are prepared with Pillow; Pixtral, "
            "Mistral 3 and Phi-4-multimodal cannot do without it.",
        ),
    )

    class Options(ChatOptions):
        """All options of local vision-language models."""

    @classmethod
    def recognises(cls, folder: ModelFolder) -> Guess | None:
        kind = folder.model_type
        if not kind or not folder.has("*.safetensors") or processors.owner_of(kind) != "vlm":
            return None
        if kind in KNOWN:
            return Guess(f"config.json names the model type {kind!r}", 80)
        sees = "vision_config" in folder.config or folder.has("preprocessor_config.json")
        speaks = any(name.endswith(("ForConditionalGeneration", "ForCausalLM")) for name in folder.architectures)
        if sees and speaks:
            return Guess(f"config.json has a part for pictures and generates text (model type {kind!r})", 40)
        return None

    def wrong_family(self, folder: source.Folder) -> Problem | None:
        found = super().wrong_family(folder)
        kind = str(folder.config.get("model_type", ""))
        if found is None and not self.model_types and (owner := processors.owner_of(kind)) != "vlm":
            return Problem(f"A {kind!r} model has prompt and output rules of its own.", f"Use the adapter {owner!r}.")
        return found

    def system(self, request: Request) -> str:
        return request.system.strip()

    def render(self, processor: Any, request: Request, prompt: str, start: str) -> tuple[str, bool]:
        kind = self._kind
        asked = prompt.strip() or self.own_prompt
        asked = processors.without_tokens(processor, asked)
        system = processors.without_tokens(processor, self.system(request))
        template = template_of(processor)
        if template:
            thinking = bool(getattr(request.options, "thinking", False))
            text = chat_text(processor, template, system, asked, thinking)
        else:
            text = plain_text(processor, kind, system, asked)
        if not start:
            return text, False
        glue = "" if not text or text[-1].isspace() or text.endswith((">", "]")) else " "
        return text + glue + start, True

    @property
    def own_prompt(self) -> str:
        return PROMPTS.get(self._kind, self.default_prompt)

    @property
    def _kind(self) -> str:
        return str(self._folder.config.get("model_type", "")) if self._folder else ""

    def inputs(self, processor: Any, text: str, picture: Any, options: AdapterOptions) -> dict[str, Any]:
        bos = getattr(processors.tokenizer_of(processor), "bos_token", None)
        extra = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        return dict(processor(text=[text], images=[picture], return_tensors="pt", **extra))


def template_of(processor: Any) -> str:
    """The chat template; the first one where there are several by name."""
    for holder in (processor, processors.tokenizer_of(processor)):
        found = getattr(holder, "chat_template", None)
        if isinstance(found, dict) and found:
            found = found.get("default") or next(iter(found.values()))
        if isinstance(found, str) and found.strip():
            return found
    return ""


def chat_text(processor: Any, template: str, system: str, prompt: str, thinking: bool) -> str:
    """The conversation as the template writes it, up to where the model answers.

    Templates differ: some know no system role, some take a message only as a string, some put the picture there
    themselves. Each way is tried until the text has the prompt, the system words and one picture. AdapterError when
    none does.
    """
    marks = processors.image_tokens(processor)
    mark = marks[0] if marks else "<image>"
    picture, folded = {"type": "image"}, f"{system}\n\n{prompt}" if system else prompt
    parts = [picture, {"type": "text", "text": prompt}]
    apart = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    plain = [{"role": "system", "content": system}] if system else []
    ways: list[list[dict[str, Any]]] = [
        [*apart, {"role": "user", "content": parts}],
        [*plain, {"role": "user", "content": parts}],
        [{"role": "user", "content": [picture, {"type": "text", "text": folded}]}],
        [*plain, {"role": "user", "content": prompt}],
        [*plain, {"role": "user", "content": f"{mark}\n{prompt}"}],
        [{"role": "user", "content": f"{mark}\n{folded}"}],
    ]
    problem = "it leaves out the picture or the prompt"
    tokenizer = processors.tokenizer_of(processor)
    for messages in ways:
        try:
            text = str(
                tokenizer.apply_chat_template(
                    messages,
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=thinking,
                )
            )
        except Exception as error:  # whatever a template raises
            problem = source.first_line(error)
            continue
        if processors.pictures_in(processor, text) in (1, -1) and prompt in text and system in text:
            if "{'type'" in text:
                continue  # the parts of the message, printed
            return text
    raise AdapterError(
        f"The model's chat template cannot be used ({problem}). Download the model's newest files.", permanent=True
    )


def plain_text(processor: Any, kind: str, system: str, prompt: str) -> str:
    """The question as the family is asked without a chat template."""
    marks = processors.image_tokens(processor)
    bos = getattr(processors.tokenizer_of(processor), "bos_token", None) or ""
    written = WITHOUT_TEMPLATE.get(kind, PLAIN)
    return written.format(
        image=marks[0] if marks else "<image>", bos=bos, system=f"{system}\n" if system else "", prompt=prompt
    )
