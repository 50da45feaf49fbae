"""Pictures of the running application, for docs/screenshots and for a look before and after a change.

    python scripts/screenshots.py http://127.0.0.1:8000 admin PASSWORD OUT [--all]

Without --all: what docs/screenshots holds, at 1280 × 800, light. With it: all pages, 390 px, and dark too.
Pages of experiments are those of the first one; without one they are left out.
Needs the development packages and a Chromium (IWTAG_CHROMIUM, default /usr/bin/chromium).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

DOCS = ("home", "grid", "review", "models", "workbench", "experiment", "matrix", "curves", "admin")


def addresses(page: Page, base: str) -> dict[str, str]:
    """Page name → path, with the first collection, image and run there are."""
    page.goto(f"{base}/")
    grid = page.locator("a[href*='/c/']").first.get_attribute("href") or "/"
    page.goto(base + grid)
    review = page.locator("a[href*='/images/']").first.get_attribute("href") or "/"
    page.goto(f"{base}/judging/experiments/")
    first = page.locator("a[id^='experiment-']").last
    experiment = first.get_attribute("href") if first.count() else None
    return {
        "home": "/",
        "grid": grid,
        "review": review,
        "admin": "/admin/tagging/imageasset/",
        "runs": "/runs/",
        "run": "/runs/1/",
        "new-run": "/runs/new/",
        "tags": "/tags/",
        "new-collection": "/collections/new/",
        "exports": "/exports/",
        "admin-index": "/admin/",
        "admin-run": "/admin/tagging/run/",
        "admin-tag": "/admin/tagging/tag/",
        "imports": "/exports/imports/",
        "workbench": "/workbench/",
        "prompts": "/prompts/",
        "wordlists": "/wordlists/",
        "policies": "/policies/",
        "recipes": "/recipes/",
        "labels": "/labels/",
        "models": "/models/",
        "judges": "/judging/judges/",
        "experiments": "/judging/experiments/",
        "new-experiment": "/judging/experiments/new/",
    } | (
        {
            "experiment": experiment,
            "matrix": f"{experiment}matrix/",
            "curves": f"{experiment}curves/",
            "sides": f"{experiment}sides/",
            "arena": f"{experiment}arena/",
            "together": f"{experiment}together/",
        }
        if experiment
        else {}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("user")
    parser.add_argument("password")
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", nargs="*", default=None)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=os.environ.get("IWTAG_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        looks = [(1280, 800, "light"), (390, 844, "light"), (1280, 800, "dark"), (390, 844, "dark")]
        for width, height, scheme in looks if options.all else looks[:1]:
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(f"{options.base}/login/")
            page.fill("input[name=username]", options.user)
            page.fill("input[name=password]", options.password)
            page.press("input[name=password]", "Enter")
            page.wait_for_load_state("networkidle")
            for name, path in addresses(page, options.base).items():
                if (not options.all and name not in DOCS) or (options.only and name not in options.only):
                    continue
                page.goto(options.base + path)
                page.wait_for_load_state("networkidle")
                suffix = f"-{width}-{scheme}" if options.all else ""
                picture = options.out / f"{name}{suffix}.png"
                page.screenshot(path=picture)
                if not options.all:  # for a page of documentation 256 colours are enough
                    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
                        picture, optimize=True
                    )
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
