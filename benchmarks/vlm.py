"""Local vision-language models: one image after the other against the adapter's way, side by side in one run.

    python benchmarks/vlm.py [--images 16] [--tokens 32] [--batches 1 4 8] [--rounds 3] [--shape auto|small|3b]
                             [--device auto] [--terms 5000]

The model is Qwen2.5-VL with random weights, written to a temporary folder: `small` (some 7 million weights) on a
processor, `3b` (the shape of Qwen2.5-VL-3B, 3.8 billion) where there is a card with room for it. Random weights cost
what trained ones cost; every answer has exactly `--tokens` tokens, so that arms do the same work. Photographs are the
samples, scaled to 2 megapixels.

Arms: `plain`, the way of most programs (decode in full, processor, generate, one image at a time); `batch n`, the
adapter with n images a call and decoding threads ahead. Then, with the largest batch: held to a vocabulary of --terms
terms, and drawing with a temperature, each against greedy. Printed: images/s, ratio to plain, tokens/s, peak memory of
the card; on a card also the share of time in which it computed.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tagging.adapters.base import AdapterConfig, ImageInput, Request  # noqa: E402
from tagging.adapters.vlm import memory, runtime, source  # noqa: E402
from tagging.adapters.vlm.chat import ChatModel  # noqa: E402
from tests.fakes import tiny_vlm  # noqa: E402

SOURCES = ("honey-bee.jpg", "mountain-path.jpg", "fig-in-a-bowl.jpg", "forest-stream.jpg")
#: The published configuration of Qwen2.5-VL-3B, without what a random model needs not.
LARGE = {
    "text": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
             "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768},
    "vision": {"depth": 32, "hidden_size": 1280, "out_hidden_size": 2048, "num_heads": 16, "intermediate_size": 3420,
               "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
    "mrope": [16, 24, 24],
}  # fmt: skip
SMALL = {
    "text": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 8192, "max_position_embeddings": 32768},
    "vision": {"depth": 2, "hidden_size": 128, "out_hidden_size": 256, "num_heads": 4, "intermediate_size": 344,
               "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]},
    "mrope": [8, 12, 12],
}  # fmt: skip


def write_model(folder: Path, shape: dict[str, Any], torch: Any, transformers: Any, device: str) -> Path:
    """A checkpoint of that shape; weights in bf16 where they go to a card."""
    _, parts = tiny_vlm.BUILDERS["qwen2_5_vl"](transformers)
    tokenizer = parts[1]
    ids = {
        name: tiny_vlm.id_of(tokenizer, f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": shape["mrope"]}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**shape["text"], "rope_parameters": rope, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0},
        vision_config={**shape["vision"], "spatial_merge_size": 2, "temporal_patch_size": 2},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device.startswith("cuda") else torch.float32)
    with torch.device(device):
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    del model
    images = tiny_vlm.pil(transformers, "Qwen2VLImageProcessor")(min_pixels=56 * 56, max_pixels=336 * 336)
    for part in (images, tokenizer):
        part.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(parts[2][1])
    return folder


def photographs(count: int) -> list[ImageInput]:
    found = []
    for i in range(count):
        with Image.open(ROOT / "samples" / SOURCES[i % len(SOURCES)]) as opened:
            picture = opened.convert("RGB").resize((1600 - 8 * (i % 7), 1200))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=92)
        content = data.getvalue()
        found.append(ImageInput(f"{i}.jpg", f"{i:064x}", lambda content=content: io.BytesIO(content)))
    return found


def plain(adapter: ChatModel, pictures: Sequence[ImageInput], request: Request) -> int:
    """Decode, processor, generate, decode; one at a time. Answered images."""
    torch, processor, options = adapter._torch, adapter._processor, request.options
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": request.prompt}]}
    text = processor.tokenizer.apply_chat_template(
        [message], chat_template=processor.chat_template, tokenize=False, add_generation_prompt=True
    )
    for picture in pictures:
        image = Image.open(picture.open()).convert("RGB")
        image.thumbnail((options.max_image_side, options.max_image_side))
        inputs = processor(text=[text], images=[image], return_tensors="pt")
        moved = {name: adapter._moved(value) for name, value in inputs.items()}
        with torch.inference_mode():
            rows = adapter._model.generate(
                **moved, do_sample=False, max_new_tokens=options.max_new_tokens, min_new_tokens=options.max_new_tokens
            )
        processor.batch_decode(rows, skip_special_tokens=True)
    return len(pictures)


def batched(adapter: ChatModel, pictures: Sequence[ImageInput], request: Request, size: int) -> int:
    """The engine's loop without its database: threads prepare ahead, full batches are inferred. Tokens said."""
    said = 0
    with ThreadPoolExecutor(min(8, runtime_cores())) as threads:
        waiting, ahead = deque(pictures), deque()
        while waiting or ahead:
            while waiting and len(ahead) < 2 * size:
                ahead.append(threads.submit(adapter.prepare, waiting.popleft(), request))
            batch = [ahead.popleft().result() for _ in range(min(size, len(ahead)))]
            said += sum(reply.tokens_out or 0 for reply in adapter.infer(batch, request))
    return said


def runtime_cores() -> int:
    from tagging.adapters.onnx_session import cores

    return cores()


def measure(torch: Any, device: str, rounds: int, arms: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Arm → (median seconds, peak GB of the card); rounds interleaved, after one warm-up of each."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    peaks = dict.fromkeys(arms, 0.0)
    for number in range(rounds + 1):
        for name, run in arms.items():
            if device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            run()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated() / 1e9
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: (statistics.median(times), peaks[name]) for name, times in seconds.items()}


def terms_of(count: int) -> tuple[str, ...]:
    letters, rng = "abcdefghijklmnoprstuvwyz", random.Random(1)

    def word() -> str:
        return "".join(rng.choice(letters) for _ in range(rng.randint(3, 9)))

    return tuple(dict.fromkeys(" ".join(word() for _ in range(rng.randint(1, 3))) for _ in range(count)))


def busy_share(torch: Any, run: Callable[[], Any]) -> float:
    """Share of the time of `run` in which the card computed."""
    from torch.profiler import ProfilerActivity, profile

    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize()
    taken = time.perf_counter() - began
    return sum(event.device_time_total for event in found.key_averages()) / 1e6 / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=["auto", "small", "3b"], default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--terms", type=int, default=5000)
    given = parser.parse_args()
    torch, transformers = runtime.libraries()
    device = runtime.choose_device(torch, given.device)
    card = device.startswith("cuda")
    large = given.shape == "3b" or (given.shape == "auto" and card and (runtime.free_bytes(torch, device) or 0) > 12e9)
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_model(Path(temporary), LARGE if large else SMALL, torch, transformers, device)
        print(f"{torch.cuda.get_device_name(device) if card else 'processor'}, {'3b' if large else 'small'}")
        print("estimate:", memory.estimate(source.Folder(folder), dtype="bf16" if card else "fp32").text())
        with ChatModel(AdapterConfig(source=str(folder), device=device)) as adapter:
            compare(adapter, torch, device, given)


def compare(adapter: ChatModel, torch: Any, device: str, given: argparse.Namespace) -> None:
    pictures = photographs(given.images)
    exactly = {"max_new_tokens": given.tokens, "min_new_tokens": given.tokens}
    request = Request(adapter.options(exactly), prompt="Describe this image.")
    print(f"{adapter.provider}; batch that the adapter would begin with: {adapter.batch_size}")
    arms: dict[str, Callable[[], Any]] = {"plain": lambda: plain(adapter, pictures, request)}
    for size in given.batches:
        arms[f"batch {size}"] = lambda size=size: batched(adapter, pictures, request, size)
    found = measure(torch, device, given.rounds, arms)
    base = found["plain"][0]
    for name, (seconds, peak) in found.items():
        rate, tokens = given.images / seconds, given.images * given.tokens / seconds
        room = f", {peak:.1f} GB" if peak else ""
        print(f"{name:>10}: {rate:7.2f} images/s, {tokens:8.0f} tokens/s, {base / seconds:5.2f} x plain{room}")
    largest = max(given.batches)
    if device.startswith("cuda"):
        share = busy_share(torch, lambda: batched(adapter, pictures, request, largest))
        print(f"the card computed {share:.0%} of the time at batch {largest}")
    steer(adapter, torch, device, given, pictures, largest)


def steer(
    adapter: ChatModel, torch: Any, device: str, given: argparse.Namespace, pictures: Sequence[ImageInput], size: int
) -> None:
    """What a vocabulary and sampling add, in time for each token."""
    terms = terms_of(given.terms)
    length = {"max_new_tokens": given.tokens}
    free = Request(adapter.options({**length, "min_new_tokens": given.tokens}), prompt="Tags:")
    drawn = Request(
        adapter.options({**length, "min_new_tokens": given.tokens, "temperature": 1.0, "top_p": 0.9}), prompt="Tags:"
    )
    only = Request(
        adapter.options({**length, "vocabulary": "only", "max_terms": 1000, "temperature": 1.0}),
        prompt="Tags:",
        terms=terms,
    )
    began = time.perf_counter()
    adapter.vocabulary(terms, only.options, adapter._processor.tokenizer, [2])
    print(f"tries of {len(terms)} terms, once: {time.perf_counter() - began:.2f} s")
    said: dict[str, int] = {}

    def run(name: str, request: Request) -> Callable[[], None]:
        def call() -> None:
            said[name] = batched(adapter, pictures, request, size)

        return call

    found = measure(
        torch,
        device,
        given.rounds,
        {n: run(n, r) for n, r in (("greedy", free), ("drawn", drawn), ("vocabulary", only))},
    )
    base = found["greedy"][0] / said["greedy"]
    for name, (seconds, _) in found.items():
        each = seconds / said[name]
        print(f"{name:>10}: {each * 1000:6.2f} ms a token, {each / base:4.2f} x greedy ({said[name]} tokens)")


if __name__ == "__main__":
    main()
