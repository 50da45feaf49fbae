"""Preparation: the same pixels as the plain way, with less work."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from tagging.adapters.base import AdapterError
from tagging.adapters.preparation import centre_crop, padded_square

from .helpers import encoded, image_input, psnr, reference_crop, reference_square

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
