"""XMP in JPEG, PNG and WebP by splicing: nothing else moves, and what could be damaged is refused."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import warnings
import zlib

import pytest
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin

from exports.xmp import splicing
from exports.xmp.containers import inverse, opened, payload_digest, read_xmp, splice, write_xmp
from exports.xmp.document import Refused

PACKET = b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"/><?xpacket end="w"?>'
OTHER = PACKET.replace(b"xmpmeta", b"xmpmeta ") + b" " * 33
JPEG_XMP, EXTENDED = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"


def picture(mode="RGB", size=(48, 32), shade=40):
    image = Image.new("RGBA", size, (shade, 90, 160, 255))
    ImageDraw.Draw(image).ellipse((4, 4, 30, 28), fill=(220, 180, shade, 120))
    return image.convert(mode)


def saved(format, mode="RGB", **options):
    buffer = io.BytesIO()
    picture(mode).save(buffer, format, **options)
    return buffer.getvalue()


def exif():
    found = Image.Exif()
    found[271], found[306] = "Camera & Sons", "2024:05:06 07:08:09"
    return found.tobytes()


def texts():
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a dog, steps: 20")
    info.add_itxt("workflow", '{"nodes": []}', zip=True)
    return info


def mpo(cut=b""):
    """Two pictures with an index between them, as cameras write them."""
    buffer = io.BytesIO()
    picture().save(buffer, "MPO", save_all=True, append_images=[picture(shade=200)], exif=exif())
    return buffer.getvalue() + cut


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def behind_soi(data, *parts):
    return data[:2] + b"".join(parts) + data[2:]


def before_idat(data, *parts):
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(parts) + data[at:]


ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FRAMES = [picture("RGBA"), picture("RGBA", shade=200)]
FILES = {
    "jpeg": saved("JPEG", exif=exif(), icc_profile=ICC, quality=90),
    "bare jpeg": saved("JPEG"),
    "progressive": saved("JPEG", progressive=True),
    "cmyk": saved("JPEG", "CMYK"),
    "grey": saved("JPEG", "L"),
    "trailer": saved("JPEG", exif=exif()) + b"SEFT" + bytes(range(64)),
    "jpeg with xmp": saved("JPEG", exif=exif(), xmp=OTHER),
    "mpo": mpo(),
    "png": saved("PNG", pnginfo=texts(), exif=exif()),
    "palette png": saved("PNG", "P"),
    "alpha png": saved("PNG", "RGBA"),
    "png trailer": saved("PNG") + b"tail",
    "apng": saved("PNG", "RGBA", save_all=True, append_images=FRAMES),
    "webp": saved("WEBP", quality=80),
    "lossless webp": saved("WEBP", lossless=True),
    "alpha webp": saved("WEBP", "RGBA", lossless=True),
    "lossy alpha webp": saved("WEBP", "RGBA", quality=50),
    "webp with exif": saved("WEBP", exif=exif()),
    "webp with xmp": saved("WEBP", exif=exif(), xmp=OTHER),
    "animated webp": saved("WEBP", "RGBA", save_all=True, append_images=FRAMES, duration=50),
}


def shown(data):
    """What Pillow makes of a file: format, mode, size, every frame's pixels and all metadata but XMP."""
    found = []
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > 1_000_000 or getattr(image, "n_frames", 1) > 10:
            raise ValueError("not one of ours")
        for n in range(getattr(image, "n_frames", 1)):
            image.seek(n)
            image.load()
            found.append((image.mode, image.size, hashlib.md5(image.tobytes()).hexdigest()))
        skip = ("xmp", "XML:com.adobe.xmp", "xml", "mpoffset", "mp", "mpf")
        info = {k: v for k, v in image.info.items() if k not in skip}
        return image.format, found, info


def xmp_by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        text = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        return text.encode() if isinstance(text, str) else text


@pytest.mark.parametrize("name", FILES)
def test_a_packet_goes_in_and_all_else_stays(name):
    data = FILES[name]
    written = write_xmp(data, PACKET)
    assert read_xmp(written) == PACKET
    assert xmp_by_pillow(written) == PACKET
    assert shown(written) == shown(data)
    assert payload_digest(written) == payload_digest(data)
    assert write_xmp(written, PACKET) == written
    assert write_xmp(write_xmp(data, OTHER), PACKET) == written


@pytest.mark.parametrize("name", FILES)
def test_the_inverse_brings_every_byte_back(name):
    data = FILES[name]
    edits = opened(data).edits(PACKET)
    stored = splicing.unpack(splicing.pack(inverse(data, edits)))
    assert splice(splice(data, edits), stored) == data


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_off_anywhere_is_refused_or_whole(name):
    data = FILES[name]
    for end in range(0, len(data), max(1, len(data) // 150)):
        try:
            written = write_xmp(data[:end], PACKET)
        except Refused:
            continue
        # what was cut lies behind the first picture
        assert decoded(written) == decoded(data[:end])


def test_a_simple_webp_becomes_an_extended_one_with_its_canvas():
    for name in ("webp", "lossless webp", "alpha webp"):
        data = FILES[name]
        if data[12:16] == b"VP8X":
            continue
        written = write_xmp(data, PACKET)
        assert written[12:16] == b"VP8X"
        width, height = (int.from_bytes(written[at : at + 3], "little") + 1 for at in (24, 27))
        assert (width, height) == (48, 32)
        assert bool(written[20] & 0x10) == (name == "alpha webp")
        assert struct.unpack_from("<I", written, 4)[0] == len(written) - 8


def test_the_second_picture_of_an_mpo_is_still_found_and_the_index_is_right():
    data = FILES["mpo"]
    written = write_xmp(data, PACKET)
    with Image.open(io.BytesIO(written)) as image:
        entries = image.mpinfo[0xB002]
        assert image.n_frames == 2
    base = written.index(b"MPF\0") + 4
    first, second = (entry["Size"] for entry in entries)
    assert written[entries[1]["DataOffset"] + base :][:2] == b"\xff\xd8"
    assert first == entries[1]["DataOffset"] + base
    assert first + second == len(written)


def test_the_packet_stands_behind_exif_and_before_the_rest():
    written = write_xmp(FILES["jpeg"], PACKET)
    assert written.index(b"Exif\0\0") < written.index(JPEG_XMP) < written.index(b"ICC_PROFILE")


def test_a_compressed_xmp_chunk_is_read_and_replaced_in_its_place():
    body = b"XML:com.adobe.xmp\0\1\0en\0\0" + zlib.compress(OTHER)
    data = before_idat(FILES["png"], chunk(b"iTXt", body))
    assert read_xmp(data) == OTHER
    written = write_xmp(data, PACKET)
    assert read_xmp(written) == PACKET
    assert written.count(b"XML:com.adobe.xmp") == 1
    assert written.index(b"XML:com.adobe.xmp") < written.index(b"IDAT")
    assert shown(written) == shown(data)


def test_an_extended_packet_is_kept_and_must_still_be_pointed_to():
    guid = hashlib.md5(OTHER).hexdigest().upper().encode()
    main = PACKET.replace(b"<x:", b"<!--" + guid + b"--><x:")
    parts = [
        segment(0xE1, EXTENDED + guid + struct.pack(">II", len(OTHER), at) + OTHER[at : at + 50])
        for at in range(0, len(OTHER), 50)
    ]
    data = behind_soi(FILES["bare jpeg"], segment(0xE1, JPEG_XMP + main), *parts)
    assert opened(data).extended == OTHER
    assert write_xmp(data, main + b" ").count(guid) == 1 + len(parts)
    with pytest.raises(Refused, match="does not point"):
        write_xmp(data, PACKET)
    with pytest.raises(Refused, match="extended XMP is damaged"):
        read_xmp(behind_soi(FILES["bare jpeg"], segment(0xE1, JPEG_XMP + main), *parts[1:]))


def test_a_packet_larger_than_a_segment_is_refused_in_jpeg_only():
    large = PACKET + b" " * 65_502
    with pytest.raises(Refused, match="a JPEG holds"):
        write_xmp(FILES["jpeg"], large)
    assert read_xmp(write_xmp(FILES["png"], large)) == large
    assert read_xmp(write_xmp(FILES["webp"], large)) == large
    just = PACKET + b" " * (65_502 - len(PACKET))
    assert read_xmp(write_xmp(FILES["jpeg"], just)) == just


def test_a_signature_is_seen_and_its_bytes_stay():
    manifest = b"JP\0\1\0\0\0\1" + struct.pack(">I", 40) + b"jumb" + b"jumdc2pa" + bytes(20)
    signed = {
        "jpeg": behind_soi(FILES["jpeg"], segment(0xEB, manifest)),
        "png": before_idat(FILES["png"], chunk(b"caBX", manifest)),
    }
    webp = FILES["webp with exif"] + b"C2PA" + struct.pack("<I", len(manifest)) + manifest
    signed["webp"] = webp[:4] + struct.pack("<I", len(webp) - 8) + webp[8:]
    for data in signed.values():
        assert opened(data).signed
        assert manifest in write_xmp(data, PACKET)
    assert not any(opened(data).signed for data in FILES.values())


BAD = {
    "two packets": (behind_soi(FILES["jpeg with xmp"], segment(0xE1, JPEG_XMP + PACKET)), "two XMP packets"),
    "two chunks": (before_idat(FILES["png"], *[chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET)] * 2), "second"),
    "ImageMagick": (before_idat(FILES["png"], chunk(b"zTXt", b"Raw profile type xmp\0\0" + b"x")), "second XMP"),
    "checksum": (FILES["png"].replace(b"parameters", b"parametric"), "checksum"),
    "no end": (FILES["jpeg"][:-2], "its end is missing"),
    "preview": (FILES["jpeg"] + b"\0" * 6 + FILES["bare jpeg"], "second picture"),
    "broken chunk": (before_idat(FILES["png"], chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0rubbish")), "compressed"),
    "webp size": (FILES["webp"][:4] + b"\xff\xff\0\0" + FILES["webp"][8:], "size is not"),
    "webp flag": (FILES["webp with xmp"][:20] + b"\x08" + FILES["webp with xmp"][21:], "disagree"),
    "gif": (saved("GIF", "P"), "neither JPEG nor PNG nor WebP"),
    "tiff": (saved("TIFF"), "neither JPEG nor PNG nor WebP"),
    "nothing": (b"", "neither JPEG nor PNG nor WebP"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_could_be_damaged_is_refused(name):
    data, why = BAD[name]
    for door in (read_xmp, payload_digest, lambda d: write_xmp(d, PACKET)):
        with pytest.raises(Refused, match=why):
            door(data)


def mutated(data, chance):
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(changed))
        kind = chance.random()
        if kind < 0.45:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind < 0.6:  # sizes and markers stand here
            changed[chance.randrange(min(300, len(changed)))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind < 0.75:
            del changed[at : at + chance.randrange(1, 40)]
        elif kind < 0.9:
            changed[at:at] = changed[max(0, at - chance.randrange(1, 60)) : at]
        else:
            del changed[at:]
        if not changed:
            return b"\0"
    return bytes(changed)


def decoded(data):
    try:
        return shown(data)
    except Exception:
        return None


def test_six_thousand_damaged_files_are_never_made_worse():
    chance = random.Random(20)
    spliced = compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in range(6000):
            data = mutated(FILES[list(FILES)[n % len(FILES)]], chance)
            try:
                container = opened(data)
                edits = container.edits(PACKET)
            except Refused:
                continue
            written = splice(data, edits)
            spliced += 1
            assert splice(written, inverse(data, edits)) == data
            assert read_xmp(written) == PACKET
            assert payload_digest(written) == payload_digest(data)
            before = decoded(data)
            if before:
                compared += 1
                assert decoded(written) == before
    assert spliced > 1500
    assert compared > 1000
