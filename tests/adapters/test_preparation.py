"""Preparation: the same pixels as the plain way, with less work."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from tagging.adapters.base import AdapterError
from tagging.adapters.preparation import IMAGENET, Framing, Norm, centre_crop, padded_square, resample

from .helpers import encoded, image_input, psnr, reference_crop, reference_picture, reference_square

SIDE = 448


def photograph(samples, name="mountain-path.jpg", size=None) -> Image.Image:
    image = Image.open(samples / name).convert("RGB")
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC) if size else image


def test_it_keeps_50_db_on_every_sample_jpeg(samples):
    paths = sorted(samples.glob("*.jpg"))
    assert len(paths) >= 20
    for path in paths:
        picture = image_input(path)
        assert psnr(padded_square(picture, SIDE), reference_square(path, SIDE)) >= 50, path.name
        assert psnr(centre_crop(picture, 260, 32), reference_crop(path, 260, 32)) >= 50, path.name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_keeps_50_db_however_the_picture_is_turned(samples, orientation):
    # odd sizes: the reduced picture ends inside its last column, which turning moves to another side
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = encoded(photograph(samples, "autumn-hills.jpg", (2405, 1603)), "JPEG", quality=90, exif=exif)
    picture = image_input(jpeg)
    assert psnr(padded_square(picture, SIDE), reference_square(jpeg, SIDE)) >= 50
    assert psnr(centre_crop(picture, 260, 32), reference_crop(jpeg, 260, 32)) >= 50


@pytest.mark.parametrize("size", [(4000, 3000), (3001, 1999), (1201, 3603)])
def test_it_keeps_50_db_on_camera_sizes(samples, size):
    jpeg = encoded(photograph(samples, size=size).filter(ImageFilter.UnsharpMask(2)), "JPEG", quality=92)
    assert psnr(padded_square(image_input(jpeg), SIDE), reference_square(jpeg, SIDE)) >= 50


def test_it_decodes_a_large_jpeg_small(samples):
    jpeg = encoded(photograph(samples, size=(6000, 4000)), "JPEG", quality=85)
    decoded = []

    original = Image.Image.resize

    def resize(self, *args, **kwargs):
        decoded.append(self.size)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", resize)
        padded_square(image_input(jpeg), SIDE)
    ((width, height),) = decoded
    assert width == 1500
    assert height <= 1500


@pytest.mark.parametrize("name", ["coffee-cutout.png", "cat-face.jpg", "cameraman.jpg"])
def test_it_equals_the_reference_where_nothing_is_drafted(samples, name):
    path = samples / name
    assert np.array_equal(padded_square(image_input(path), 260), reference_square(path, 260))
    png = encoded(photograph(samples, name))
    assert np.array_equal(padded_square(image_input(png), SIDE), reference_square(png, SIDE))
    assert np.array_equal(centre_crop(image_input(png), 260, 32), reference_crop(png, 260, 32))


def test_transparent_pixels_become_white():
    clear = encoded(Image.new("RGBA", (50, 50), (255, 0, 0, 0)))
    assert (padded_square(image_input(clear), 16) == 255).all()
    palette = Image.new("P", (50, 50), 0)
    palette.putpalette([10, 20, 30])
    assert (padded_square(image_input(encoded(palette, transparency=0)), 16) == 255).all()


@pytest.mark.parametrize(
    ("mode", "fill", "expected"),
    [("L", 100, 100), ("LA", (100, 255), 100), ("1", 1, 255), ("I;16", 25700, 100), ("CMYK", (0, 0, 0, 0), 255)],
)
def test_it_reads_every_mode(mode, fill, expected):
    image = Image.new(mode, (40, 40), fill)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    assert (padded_square(image_input(data), 16) == expected).all()


def test_it_pads_a_line_without_a_giant_canvas():
    line = encoded(Image.new("RGB", (40000, 2), "black"))
    tracemalloc.start()
    pixels = padded_square(image_input(line), 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.shape == (64, 64, 3)
    assert (pixels[0] == 255).all()
    assert peak < 50e6


def test_one_pixel_is_a_picture():
    pixel = encoded(Image.new("RGB", (1, 1), (1, 2, 3)))
    assert (padded_square(image_input(pixel), 8) == (1, 2, 3)).all()
    assert (centre_crop(image_input(pixel), 8, 1) == (1, 2, 3)).all()


def test_it_takes_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (padded_square(image_input(gif), 8) == (255, 0, 0)).all()


def test_it_reads_heic(samples):
    import pillow_heif

    heif = pillow_heif.from_pillow(photograph(samples, "cat-face.jpg"))
    stream = io.BytesIO()
    heif.save(stream, quality=95)
    pixels = padded_square(image_input(stream.getvalue()), 128)
    assert psnr(pixels, reference_square(samples / "cat-face.jpg", 128)) > 30


@pytest.mark.parametrize(
    "data",
    [b"", b"not a picture", b"\xff\xd8\xff\xe0broken", b"\x89PNG\r\n\x1a\n0000"],
    ids=["empty", "text", "jpeg head", "png head"],
)
def test_what_is_no_picture_is_named(data):
    with pytest.raises(AdapterError, match=r"holiday\.jpg") as caught:
        padded_square(image_input(data, "holiday.jpg"), 64)
    assert caught.value.permanent


def test_a_truncated_file_is_named(samples):
    for name in ("honey-bee.jpg", "coffee-cutout.png"):
        data = (samples / name).read_bytes()
        with pytest.raises(AdapterError, match=f"{name}: .*(truncated|cut off)"):
            padded_square(image_input(data[: len(data) // 2], name), 64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AdapterError, match=r"gone\.jpg"):
        padded_square(image_input(tmp_path / "gone.jpg"), 64)


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr("tagging.imaging.load.MAX_PIXELS", 100)
    with pytest.raises(AdapterError, match="40 × 40"):
        padded_square(image_input(encoded(Image.new("L", (40, 40)))), 8)


def plain_framing(source, framing: Framing) -> np.ndarray:
    """Full decode, white below transparency, the whole picture resized, then cut or surrounded."""
    picture = reference_picture(source)
    width, height = picture.size
    if framing.how == "squash":
        content = (framing.width, framing.height)
    elif framing.how == "fit":
        ratio = min(framing.width / width, framing.height / height)
        content = tuple(
            max(1, int(v * ratio + 1e-9) if framing.truncate else round(v * ratio)) for v in (width, height)
        )
    else:
        long = int(framing.short * max(width, height) / min(width, height))
        content = (framing.short, long) if width <= height else (long, framing.short)
    resized = picture.resize(content, Image.Resampling(framing.resample))
    if framing.how == "cover":
        left, top = round((content[0] - framing.width) / 2), round((content[1] - framing.height) / 2)
        return np.asarray(resized.crop((left, top, left + framing.width, top + framing.height)))
    canvas = Image.new("RGB", (framing.width, framing.height), framing.colour)
    canvas.paste(resized, ((framing.width - content[0]) // 2, (framing.height - content[1]) // 2))
    return np.asarray(canvas)


FRAMINGS = {
    "ram": Framing("squash", 384, 384, Image.Resampling.BILINEAR),
    "pixai": Framing("squash", 448, 448, Image.Resampling.BICUBIC),
    "camie v2": Framing("fit", 512, 512, Image.Resampling.LANCZOS, (124, 116, 104), truncate=True),
    "camie v1": Framing("fit", 512, 512, Image.Resampling.LANCZOS, (0, 0, 0)),
    "timm": Framing("cover", 224, 224, Image.Resampling.BICUBIC, short=256),
    "wide": Framing("fit", 320, 240, Image.Resampling.BILINEAR),
}


class TestFramings:
    @pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
    def test_they_keep_50_db_on_photographs(self, framing, samples):
        for path in sorted(samples.glob("*.jpg"))[:8]:
            found = framing.pixels(image_input(path))
            assert found.shape == (framing.height, framing.width, 3)
            assert psnr(found, plain_framing(path, framing)) >= 50, path.name

    @pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
    @pytest.mark.parametrize("size", [(4000, 3000), (3001, 1999), (1201, 3603)])
    def test_they_keep_50_db_on_camera_sizes(self, framing, size, samples):
        jpeg = encoded(photograph(samples, size=size).filter(ImageFilter.UnsharpMask(2)), "JPEG", quality=92)
        assert psnr(framing.pixels(image_input(jpeg)), plain_framing(jpeg, framing)) >= 50

    @pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
    @pytest.mark.parametrize("size", [(3, 2), (1, 900), (640, 361), (361, 640), (500, 500)])
    def test_other_pictures_come_out_as_the_plain_way(self, framing, size, samples):
        png = encoded(photograph(samples, size=size))
        found, plain = framing.pixels(image_input(png)), plain_framing(png, framing)
        assert psnr(found, plain) >= 50  # cutting before resizing costs rounding

    def test_transparency_lies_on_white(self):
        png = encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 0)))
        assert (Framing("squash", 8, 8).pixels(image_input(png)) == 255).all()

    def test_what_a_model_takes(self, samples):
        pixels = Framing("squash", 8, 6).pixels(image_input(samples / "cat-face.jpg"))
        chw = IMAGENET.floats(IMAGENET.arranged(pixels)[None])
        assert chw.shape == (1, 3, 6, 8)
        plain = (pixels.transpose(2, 0, 1)[None] / 255 - np.reshape(IMAGENET.mean, (1, 3, 1, 1))) / np.reshape(
            IMAGENET.std, (1, 3, 1, 1)
        )
        assert np.allclose(chw, plain, atol=1e-6)
        bgr = Norm(scale=1, layout="NHWC", order="BGR")
        assert (bgr.floats(bgr.arranged(pixels)[None])[0] == pixels[:, :, ::-1]).all()

    def test_an_unknown_filter_is_named(self):
        with pytest.raises(ValueError, match="cubic-ish"):
            resample("cubic-ish")
