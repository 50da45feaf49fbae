"""Make an int8 or fp16 variant of an ONNX tagger, with the error of its scores measured and told."""

from __future__ import annotations

from argparse import ArgumentParser
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from ...adapters import variants
from ...adapters.base import AdapterError, ImageInput
from ...models import ImageAsset, ModelAdapter
from .tag import find_collection

SAMPLES = Path(settings.BASE_DIR) / "samples"
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".tif", ".tiff", ".bmp", ".gif"}


class Command(BaseCommand):
    help = (
        "Makes a smaller form of an ONNX tagger beside its file (int8 for processors, fp16 for GPUs), and says how far "
        "its scores are from the original's. It is used by an adapter whose quantization is set to it."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("adapter", metavar="SLUG", help="the model, as it is configured")
        parser.add_argument("--to", choices=sorted(variants.KINDS), default="int8", help="which form (%(default)s)")
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--collection", metavar="NAME", help="measure on images of this collection")
        source.add_argument("--images", metavar="FOLDER", type=Path, help="measure on pictures in this folder")
        parser.add_argument("--count", type=int, default=24, help="how many of them (%(default)s)")
        parser.add_argument("--add", action="store_true", help="also add a model that uses it, named SLUG-int8")

    def handle(self, *args: Any, adapter: str, to: str, **options: Any) -> None:
        from ...adapters import quantize
        from ...adapters.onnx_tagger import OnnxTagger

        row = ModelAdapter.objects.filter(slug=adapter).first()
        if row is None:
            there = ", ".join(ModelAdapter.objects.values_list("slug", flat=True)[:20])
            raise CommandError(f"There is no model {adapter!r}; there is {there or 'none yet'}.")
        built = row.build()
        if not isinstance(built, OnnxTagger):
            raise CommandError(f"{row.label} is no ONNX tagger that has variants (it is of the kind {row.kind!r}).")
        try:
            path, measured = quantize.make(built, to, self.pictures(options))
        except AdapterError as error:
            raise CommandError(error.message) from None
        self.stdout.write(
            f"{path}: {measured.bytes / 1e6:.0f} MB instead of {measured.original_bytes / 1e6:.0f} MB.\n"
            f"On {measured.images} pictures probabilities differ by {measured.max_error:.4f} at most and "
            f"{measured.mean_error:.6f} on average; the tags at {quantize.AT} agree by {measured.same_tags:.1%} "
            f"(Jaccard).\n{measured.faster:.1f} x as fast as the original here, one picture at a time."
        )
        if options["add"]:
            self.add(row, to)
        else:
            self.stdout.write(f"Set the quantization of a model to {to!r} to use it (--add makes one).")

    def pictures(self, options: dict[str, Any]) -> list[ImageInput]:
        """What the error is measured on."""
        if options["collection"]:
            images = find_collection(options["collection"]).images.filter(state=ImageAsset.State.READY)
            chosen = images.order_by("sha256").select_related("collection")[: options["count"]]
            return [ImageInput(i.path, i.sha256, i.open) for i in chosen]
        folder = options["images"] or SAMPLES
        if not folder.is_dir():
            raise CommandError(f"{folder} is no folder. Name one with --images, or a --collection.")
        found = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in ENDINGS)
        pictures = [ImageInput(p.name, "", partial(p.open, "rb")) for p in islice(found, options["count"])]
        if not pictures:
            raise CommandError(f"{folder} holds no pictures. Name another folder with --images, or a --collection.")
        return pictures

    def add(self, row: ModelAdapter, to: str) -> None:
        slug = f"{row.slug}-{to}"
        made = ModelAdapter(
            slug=slug,
            label=f"{row.label}, {to}",
            kind=row.kind,
            source=row.source,
            revision=row.revision,
            device=row.device,
            quantization=to,
            options=row.options,
        )
        try:
            made.full_clean()
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        made.save()
        self.stdout.write(f"Added the model {slug!r}.")
