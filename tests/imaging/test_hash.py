from __future__ import annotations

from io import BytesIO

import imagehash
import numpy as np
import pytest
from PIL import Image

from tagging.imaging import hash, load, thumbnails

from . import files


def theirs(image):
    value = int(str(imagehash.phash(image)), 16)
    return value - 2**64 if value >= 2**63 else value


@pytest.mark.parametrize("seed", range(20))
def test_it_equals_imagehash(seed):
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (24, 31, 3), dtype=np.uint8)).resize((300 + seed, 200))
    assert hash.phash(noise) == theirs(noise)


def test_it_equals_imagehash_on_photographs(samples):
    for path in sorted(samples.glob("*.jpg"))[:6]:
        with Image.open(path) as image:
            assert hash.phash(image) == theirs(image), path


def test_it_fits_a_signed_column_and_flat_pictures_are_alike():
    values = {hash.phash(Image.new("RGB", (50, 50), (v, v, v))) for v in (10, 100, 255)}
    assert len(values) == 1
    assert -(2**63) <= values.pop() < 2**63


def test_a_thumbnail_has_the_hash_of_its_picture(samples):
    for path in sorted(samples.glob("*.jpg"))[:6]:
        picture = load.decode(path.read_bytes(), min_side=thumbnails.DECODE_SIDE)
        with Image.open(path) as image:
            assert hash.distance(thumbnails.render(picture).phash, hash.phash(load.open_image(path.open("rb")))) <= 2, (
                image
            )


def test_distance_counts_bits():
    assert hash.distance(-1, 0) == 64
    assert hash.distance(0b1011, 0b0001) == 2


def test_sha256_reads_to_the_end():
    assert hash.sha256(BytesIO(b"abc"), chunk=2) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_renditions_fit_their_sides():
    for size, proxy, thumb in (((3000, 1000), (1024, 341), (320, 107)), ((50, 20), (50, 20), (50, 20))):
        found = thumbnails.render(load.decode(files.jpeg(*size), min_side=thumbnails.DECODE_SIDE))
        sizes = {side: Image.open(BytesIO(data)).size for side, data in found.files.items()}
        assert sizes == {thumbnails.PROXY: proxy, thumbnails.THUMB: thumb}


def test_renditions_keep_transparency_and_carry_no_metadata():
    image = files.photo().convert("RGBA")
    image.putalpha(0)
    found = thumbnails.render(load.decode(files.encoded(image, "PNG")))
    assert Image.open(BytesIO(found.files[thumbnails.PROXY])).mode == "RGBA"
    private = files.jpeg(exif=files.exif(1, "2024:05:06 07:08:09").tobytes(), icc_profile=files.wide_gamut())
    webp = Image.open(BytesIO(thumbnails.render(load.decode(private)).files[thumbnails.THUMB]))
    assert not webp.info.get("exif")
    assert not webp.info.get("icc_profile")
    assert webp.getpixel((3, 3))[2] > 200, "the profile was applied"


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (9000, 1)])
def test_renditions_of_slivers(size):
    found = thumbnails.render(load.decode(files.encoded(Image.new("RGB", size), "PNG"), min_side=1280))
    assert all(min(Image.open(BytesIO(d)).size) >= 1 for d in found.files.values())
