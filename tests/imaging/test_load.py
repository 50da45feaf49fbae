from __future__ import annotations

import struct
import subprocess
import sys
import threading
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tagging.imaging import load
from tagging.imaging.load import ImageProblem, decode, open_image

from . import files


def corners(image):
    """Left top, right bottom."""
    w, h = image.size
    return image.getpixel((w // 20, h // 20))[:3], image.getpixel((w - 1 - w // 20, h - 1 - h // 20))[:3]


def assert_upright(image):
    first, last = corners(image)
    assert first == pytest.approx((242, 13, 40), abs=30), "red at the left, no green at the top"
    assert last == pytest.approx((13, 242, 40), abs=30)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_turns_pictures_upright(format, orientation):
    data = files.encoded(files.turned(files.photo(), orientation), format, exif=files.exif(orientation))
    picture = decode(data)
    assert (picture.format, picture.width, picture.height, picture.orientation) == (format, 120, 80, orientation)
    assert picture.image.size == (120, 80)
    assert_upright(picture.image)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_turned_once(orientation):
    pillow_heif = pytest.importorskip("pillow_heif")
    heif = pillow_heif.from_pillow(files.turned(files.photo(), orientation))
    buffer = BytesIO()
    heif.save(buffer, exif=files.exif(orientation, "2024:05:06 07:08:09").tobytes())
    picture = decode(buffer.getvalue())
    assert (picture.format, picture.width, picture.height) == ("HEIF", 120, 80)
    assert picture.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert_upright(picture.image)


def test_draft_keeps_at_least_the_wanted_side():
    data = files.jpeg(1600, 1200)
    for side, expected in ((100, 200), (300, 400), (801, 1600), (5000, 1600)):
        picture = decode(data, min_side=side)
        assert (picture.width, picture.height) == (1600, 1200)
        assert max(picture.image.size) == expected
    assert min(open_image(data, min_side=300, cover=True).size) == 300


def test_draft_and_orientation_together():
    data = files.encoded(files.turned(files.photo(800, 600), 6), "JPEG", exif=files.exif(6))
    picture = decode(data, min_side=200)
    assert (picture.width, picture.height, picture.image.size) == (800, 600, (200, 150))
    assert_upright(picture.image)


def test_other_formats_are_reduced_in_strips_without_a_seam():
    image = files.photo(3000, 2000)
    small = decode(files.encoded(image, "PNG", compress_level=1), min_side=300).image
    assert small.size == (600, 400)
    expected = np.asarray(image.reduce(5), dtype=int)
    assert np.abs(np.asarray(small, dtype=int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "PA"])
def test_modes(mode):
    image = files.photo().convert("LA" if mode == "PA" else mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    if mode == "PA":
        data = files.encoded(files.photo().convert("P"), "PNG", transparency=0)
    else:
        data = files.encoded(image, "PNG")
    assert open_image(data).mode == ("RGBA" if "A" in mode else "RGB")


def test_flatten_lays_transparency_on_white():
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    image.putpixel((1, 1), (10, 20, 30, 255))
    flat = load.flatten(open_image(files.encoded(image, "PNG")))
    assert flat.getpixel((0, 0)) == (255, 255, 255)
    assert flat.getpixel((1, 1)) == (10, 20, 30)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format):
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    image = open_image(files.encoded(Image.fromarray(ramp), format))
    assert image.mode == "RGB"
    assert [image.getpixel(p)[0] for p in ((0, 0), (8, 7), (15, 15))] == [0, 120, 255]


def test_floating_point_tiff():
    image = open_image(files.encoded(Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)), "TIFF"))
    assert (image.getpixel((0, 0))[0], image.getpixel((15, 15))[0]) == (0, 255)


def test_cmyk_jpeg_is_not_inverted():
    assert_upright(open_image(files.encoded(files.photo().convert("CMYK"), "JPEG", quality=95)))


def test_wide_gamut_is_brought_to_srgb():
    data = files.jpeg(icc_profile=files.wide_gamut(), quality=95)
    red, _green, blue = open_image(data).getpixel((3, 3))
    assert blue > 200 > 100 > red, "the profile swaps red and blue"
    assert open_image(data, srgb=False).getpixel((3, 3))[0] > 200
    assert decode(data).icc


def test_a_damaged_profile_is_ignored():
    assert_upright(open_image(files.jpeg(icc_profile=b"\0" * 200)))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(format):
    others = [Image.new("RGB", (120, 80), c) for c in ("blue", "green")]
    picture = decode(files.encoded(files.photo(), format, save_all=True, append_images=others))
    assert picture.frames == 3
    assert_upright(picture.image)


@pytest.mark.parametrize(
    ("date", "fraction", "offset", "expected"),
    [
        ("2024:05:06 07:08:09", "", "", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("2024:05:06 07:08:09", "25", "+02:00", datetime(2024, 5, 6, 5, 8, 9, 250000, tzinfo=UTC)),
        ("2024-05-06T07:08:09", "", "-03:30", datetime(2024, 5, 6, 10, 38, 9, tzinfo=UTC)),
        ("0000:00:00 00:00:00", "", "", None),
        ("    :  :     :  :  ", "", "", None),
        ("2024:13:45 99:99:99", "", "", None),
        ("2024:05:06 07:08:09", "abc", "+99:99", None),
    ],
)
def test_dates(date, fraction, offset, expected):
    found = files.exif(None, date, fraction, offset)
    assert decode(files.jpeg(exif=found.tobytes())).captured_at == expected


def test_damaged_exif_is_ignored():
    data = files.jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x99" * 40)
    assert (decode(data).orientation, decode(data).captured_at) == (1, None)


# -- RAW -------------------------------------------------------------------------------------------------------------
def test_raw_takes_the_embedded_preview_and_turns_it():
    preview = files.encoded(files.turned(files.photo(1500, 1000), 6), "JPEG")
    picture = decode(files.dng(1600, 1200, preview, orientation=6), min_side=1280)
    assert (picture.format, picture.width, picture.height, picture.orientation) == ("RAW", 1200, 1600, 6)
    assert picture.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert_upright(picture.image.resize((120, 80)))


def test_raw_without_a_good_preview_is_developed_at_half_size():
    picture = decode(files.dng(1600, 1200, files.jpeg(160, 120)), min_side=1280)
    assert (picture.format, picture.width, picture.height, picture.image.size) == ("RAW", 1600, 1200, (800, 600))
    red, green, blue = picture.image.getpixel((400, 300))
    assert red > green
    assert red > blue


def test_a_plain_tiff_named_as_raw_is_a_tiff():
    assert decode(files.encoded(files.photo(), "TIFF"), name="a/b.NEF").format == "TIFF"


# -- what cannot be used ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty"),
        (b"just some words\n" * 20, "content is text"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"\0" * 5000, "only zeros"),
        (bytes(range(7, 256)) * 3, "Not a picture in a format"),
        (b"\0\0\0\x20ftypisom" + b"\0" * 40, "video"),
        (files.jpeg(800, 600)[:9000], "JPEG file is truncated"),
        (files.jpeg()[:20], "JPEG, but its header is damaged"),
        (files.encoded(files.photo(), "PNG")[:3000], "PNG file is truncated"),
        (files.encoded(files.photo(), "WEBP")[:300], "WEBP file is damaged or cut off"),
        (files.encoded(files.photo(), "GIF")[:3000], "GIF file is truncated"),
        (files.encoded(files.photo(), "TIFF")[:3000], "TIFF"),
        (files.encoded(files.photo(), "BMP")[:3000], "BMP file is truncated"),
        (files.dng()[:3000], "damaged|cut off|truncated"),
        (b"8BPS" + b"\0" * 100, "Photoshop"),
    ],
)
def test_problems_name_themselves(data, text):
    with pytest.raises(ImageProblem, match=text):
        decode(data, min_side=200)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "DNG"])
def test_no_damage_raises_anything_else(format):
    """Cut and garbled anywhere, a file is a picture or an ImageProblem."""
    data = files.dng(64, 48, files.jpeg()) if format == "DNG" else files.encoded(files.photo(48, 32), format)
    rng = np.random.default_rng(1)
    for n in range(60):
        broken = bytearray(data[: int(rng.integers(1, len(data)))] if n % 2 else data)
        for at in rng.integers(0, len(broken), size=6):
            broken[at] = int(rng.integers(0, 256))
        with suppress(ImageProblem):
            assert decode(bytes(broken), min_side=20).image.mode in ("RGB", "RGBA")


def png_of_size(width, height, colour_type=2):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(ImageProblem, match=r"20,000 × 20,001 pixels are more than the limit of 400 million"):
        decode(png_of_size(20_000, 20_001))
    with pytest.raises(ImageProblem, match=r"20,000 × 20,000 pixels of PNG need about 1.6 GB"):
        decode(png_of_size(20_000, 20_000), min_side=1024)
    with pytest.raises(ImageProblem, match="IWTAG_MAX_PIXELS"):
        decode(files.jpeg(), max_pixels=100)


def test_memory_not_pixels_is_the_limit(monkeypatch):
    """A drafted JPEG needs little; the same picture as progressive JPEG or PNG needs all of it."""
    monkeypatch.setattr(load, "MAX_BYTES", 2_000_000)
    image = files.photo(2000, 1500)
    assert decode(files.encoded(image, "JPEG"), min_side=250).image.size == (250, 188)
    for format, options in (("PNG", {"compress_level": 1}), ("JPEG", {"progressive": True})):
        with pytest.raises(ImageProblem, match="of memory"):
            decode(files.encoded(image, format, **options), min_side=250)


def test_threads_share_the_memory_limit():
    room, order, first_in = load._Room(100), [], threading.Event()

    def second():
        first_in.wait()
        with room.hold(80):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with room.hold(60):
        first_in.set()
        thread.join(0.05)
        assert thread.is_alive(), "80 of 100 are not free yet"
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_it_works_in_a_fresh_process_and_imports_nothing_heavy(tmp_path):
    for format in ("TIFF", "WEBP", "AVIF", "PNG"):
        (tmp_path / f"{format}.bin").write_bytes(files.encoded(files.photo(), format))
    code = (
        "import sys, pathlib; from tagging.imaging import load\n"
        "for p in sys.argv[1:]: assert load.decode(pathlib.Path(p).read_bytes()).format in p\n"
        "assert not {'rawpy', 'pillow_heif', 'scipy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *map(str, tmp_path.iterdir())], check=True)
