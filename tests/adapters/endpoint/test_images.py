"""What an endpoint sees is the picture: upright, in true colours, on white, as large as was chosen, no more."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tagging.adapters.base import Request
from tagging.adapters.endpoint.images import bare_jpeg, bare_png
from tests.adapters.helpers import encoded, image_input, psnr

from .conftest import ask


def gradient(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def sent(endpoint, server, content, name="x.jpg", **options):
    ask(endpoint(**options), image=image_input(content, name))
    (mime, data) = server.asked[-1].pictures[0]
    picture = Image.open(io.BytesIO(data))
    picture.load()
    assert mime == Image.MIME[picture.format]
    return picture, data


def turned(picture: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "private words"
    return encoded(picture, "JPEG", quality=95, subsampling=0, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("long_edge", [0, 200])
def test_it_is_upright(endpoint, server, orientation, long_edge):
    content = turned(gradient(320, 200), orientation)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    found, _ = sent(endpoint, server, content, long_edge=long_edge, image_quality=95)
    if long_edge:
        scale = 200 / max(expected.size)
        expected = expected.resize([round(s * scale) for s in expected.size], Image.Resampling.LANCZOS)
    assert found.size == expected.size
    assert psnr(np.asarray(found.convert("RGB")), np.asarray(expected.convert("RGB"))) > 35
    assert found.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(("size", "long_edge", "expected"), [
    ((4000, 3000), 1024, (1024, 768)), ((3000, 4001), 1024, (768, 1024)), ((300, 200), 1024, (300, 200)),
    ((5000, 7), 100, (100, 1)), ((4000, 3000), 0, (4000, 3000)),
])  # fmt: skip
def test_the_long_edge_is_as_chosen_and_nothing_is_enlarged(endpoint, server, size, long_edge, expected):
    found, _ = sent(endpoint, server, encoded(gradient(*size), "JPEG"), long_edge=long_edge)
    assert found.size == expected


def test_scaling_keeps_the_pixels(endpoint, server):
    original = gradient(4000, 3000)
    found, _ = sent(endpoint, server, encoded(original, "JPEG", quality=97), image_format="png", long_edge=512)
    expected = original.resize((512, 384), Image.Resampling.LANCZOS)
    assert psnr(np.asarray(found), np.asarray(expected)) > 40


@pytest.mark.parametrize(("format", "kind"), [("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
@pytest.mark.parametrize("long_edge", [64, 0])
def test_the_format_is_as_chosen(endpoint, server, format, kind, long_edge):
    content = encoded(gradient(300, 200).convert("P"), "GIF")
    found, _ = sent(endpoint, server, content, "x.gif", image_format=format, long_edge=long_edge)
    assert found.format == kind


def test_transparency_is_laid_on_white(endpoint, server):
    picture = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    for long_edge in (0, 20):
        found, _ = sent(endpoint, server, encoded(picture), "x.png", long_edge=long_edge, image_format="png")
        assert found.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_colours_of_another_profile_are_brought_to_srgb(endpoint, server):
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    content = encoded(gradient(64, 64), "JPEG", icc_profile=wide)
    found, data = sent(endpoint, server, content, long_edge=0)
    assert "icc_profile" not in found.info
    assert data != content


def test_at_full_size_the_files_own_data_goes_out_without_its_metadata(endpoint, server):
    content = turned(gradient(320, 200), 1) + b"a film follows the picture"
    found, data = sent(endpoint, server, content, long_edge=0)
    assert np.array_equal(np.asarray(found), np.asarray(Image.open(io.BytesIO(content))))
    assert b"private words" not in data
    assert b"film" not in data
    assert not found.getexif()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 2}])
def test_bare_jpegs_decode_to_the_same_pixels(options):
    content = encoded(gradient(333, 217), "JPEG", quality=90, comment=b"secret", **options)
    bare = bare_jpeg(content)
    assert b"secret" not in bare
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bare))), np.asarray(Image.open(io.BytesIO(content))))


def test_bare_jpegs_of_printers_keep_their_colours():
    content = encoded(gradient(64, 64).convert("CMYK"), "JPEG", quality=95)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(bare_jpeg(content)))), np.asarray(Image.open(io.BytesIO(content)))
    )


def test_bare_pngs_keep_only_what_pixels_need():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "secret")
    picture = gradient(64, 64)
    bare = bare_png(encoded(picture, pnginfo=info))
    assert b"secret" not in bare
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bare))), np.asarray(picture))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00", b"GIF89a", b"\xff\xd8\xff\xda\x00\x02aaa"]
)
def test_what_cannot_be_followed_is_refused(content):
    with pytest.raises((ValueError, IndexError)):
        bare_jpeg(content)


def test_prompt_first_then_the_picture(endpoint, server):
    ask(endpoint(), prompt="What is it?")
    content = server.asked[0].body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]
    assert "detail" not in content[1]["image_url"]


def test_a_model_that_sees_nothing_gets_the_prompt_alone(endpoint, server):
    adapter = endpoint(send_image=False)
    ask(adapter, prompt="Merge these.")
    assert server.asked[0].body["messages"] == [{"role": "user", "content": "Merge these."}]
    assert adapter.sees is False
    assert endpoint().sees is True


def test_each_picture_is_asked_with_its_own_prompt(endpoint, server):
    adapter = endpoint(concurrency=1)
    from .conftest import picture

    requests = [Request(adapter.options(), prompt=p) for p in ("one", "two")]
    list(adapter.infer([adapter.prepare(picture(), r) for r in requests], Request(adapter.options())))
    assert [a.prompt for a in server.asked] == ["one", "two"]
