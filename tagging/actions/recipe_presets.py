"""Ready-made recipes: the ways of working that people know from other tools, as data. A model is chosen for each slot.

Hybrid Image Tagger's quick, standard and detailed modes (a tagger and a vision-language model, merged by a language
model), TagGUI's captions, STAG's keywords. What those tools do after the model is a policy here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction

from prompts.actions import create_version
from prompts.models import Prompt, PromptVersion

from ..models import ModelAdapter, Policy, PolicyVersion, Recipe
from .policies import create_policy_version
from .recipes import ChannelSpec, get_recipe

TAGGERS = ("wd", "pixai", "camie", "ram", "photo-lite")
TALKERS = ("openai", "vlm", "joycaption")
CAPTIONERS = ("joycaption", "florence2", "promptgen", "vlm", "openai", "moondream", "blip", "kosmos2", "git")


@dataclass(frozen=True)
class PromptText:
    """A prompt that comes with a preset; it is saved under its slug when it is first used."""

    slug: str
    name: str
    task: str
    template: str
    system: str = ""


@dataclass(frozen=True)
class Slot:
    """A place for a model. `kinds`: adapters that suit it, the most usual first (any other may be chosen)."""

    name: str
    title: str
    kinds: tuple[str, ...]
    prompt: PromptText | None = None


@dataclass(frozen=True)
class RecipePreset:
    """`combine` as `policy.combine.CombineSpec`; `policy`: the rules that go with it, empty for the default policy."""

    slug: str
    title: str
    description: str
    channels: tuple[Slot, ...]
    combine: dict[str, Any] = field(default_factory=dict)
    merge: Slot | None = None
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (*self.channels, self.merge) if self.merge else self.channels

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, for forms and the API."""
        return asdict(self)


_SEEN = PromptText(
    "visible-tags",
    "What is visible, as tags",
    Prompt.Task.TAGS,
    "List what this picture shows as short tags, separated by commas, on one line. Go in this order: the main subject "
    "and what it does; other subjects and objects; the place; medium and style; composition and point of view; light; "
    "colours. Name only what can be seen, no judgements of quality, nothing twice"
    "{% if max_tags %}, at most {{ max_tags }} tags{% endif %}.",
)
_SEEN_AFTER = PromptText(
    "visible-tags-after-a-tagger",
    "What is visible, after a tagger",
    Prompt.Task.TAGS,
    "A tagger found in this picture: {{ tags('tagger') }}.\n"
    "List what the picture shows as short tags, separated by commas, on one line: what the tagger missed, and what is "
    "better said in words of natural language. Go from the main subject to the place, the style, the composition, the "
    "light and the colours. Name only what can be seen"
    "{% if max_tags %}, at most {{ max_tags }} tags{% endif %}.",
)
_BRIEF = PromptText("brief-description", "Brief description", Prompt.Task.CAPTION, "Briefly describe the image.")
_WITH_TAGS = PromptText(
    "description-with-tags",
    "Description that knows the tags",
    Prompt.Task.CAPTION,
    "Describe the image in one or two sentences. It is tagged: {{ tags }}. Its file is called {{ image.stem }}.",
)
_TAGGER = Slot("tagger", "Tagger", TAGGERS)
_MERGER = Slot("merge", "Merging model", TALKERS)

PRESETS: tuple[RecipePreset, ...] = (
    RecipePreset(
        "hybrid-quick",
        "Tagger and language model at once, merged",
        "As Hybrid Image Tagger's dual channel, quick: both models look at the picture at the same time, a language "
        "model makes one list of theirs. It sees the picture too, and says when it had to be done without it.",
        (_TAGGER, Slot("vlm", "Vision-language model", TALKERS, _SEEN)),
        {"rule": "llm_merge", "order": "parallel"},
        _MERGER,
    ),
    RecipePreset(
        "hybrid-standard",
        "Tagger, then language model, merged",
        "As Hybrid Image Tagger's dual channel, standard: one after the other. The second model is told what the first "
        "one found.",
        (_TAGGER, Slot("vlm", "Vision-language model", TALKERS, _SEEN_AFTER)),
        {"rule": "llm_merge", "order": "sequential"},
        _MERGER,
    ),
    RecipePreset(
        "hybrid-detailed",
        "Tagger and language model, side by side",
        "As Hybrid Image Tagger's dual channel, detailed: what each model said stands beside the merged list, as it "
        "came, under 'Raw replies' of every image; tags that only one of them has are kept with their source.",
        (_TAGGER, Slot("vlm", "Vision-language model", TALKERS, _SEEN)),
        {"rule": "union", "order": "parallel"},
    ),
    RecipePreset(
        "tag-then-describe",
        "Tags from a tagger, prose from a captioner",
        "Categories and keywords of a tagger, the caption of another model that was told the tags.",
        (
            _TAGGER,
            Slot(
                "captioner",
                "Captioning model",
                TALKERS,
                PromptText(
                    "description-after-a-tagger",
                    "Description after a tagger",
                    Prompt.Task.CAPTION,
                    "Describe the image in two or three sentences. A tagger found: {{ tags('tagger') }}. Use what is "
                    'right of it. Answer with JSON only: {"caption": "…"}',
                ),
            ),
        ),
        {"rule": "priority", "order": "sequential", "priority": {"*": ["tagger"]}, "caption": ["captioner"]},
    ),
    RecipePreset(
        "taggui-caption",
        "A caption",
        "As TagGUI's auto-captioner is ordinarily used: one model, a short request, its words as the caption.",
        (Slot("captioner", "Captioning model", CAPTIONERS, _BRIEF),),
        policy={"parse": "caption"},
    ),
    RecipePreset(
        "taggui-caption-with-tags",
        "A caption that knows the tags",
        "As TagGUI with {tags} and {name} in its prompt: the reviewed tags are told to the model.",
        (Slot("captioner", "Captioning model", TALKERS, _WITH_TAGS),),
        policy={"parse": "caption"},
    ),
    RecipePreset(
        "stag-keywords",
        "Keywords",
        "As STAG: one tagger over everything, its words as keywords, in the order of their probability.",
        (Slot("tagger", "Tagger", ("ram", "wd", "photo-lite", "pixai", "camie")),),
    ),
)


def preset(slug: str) -> RecipePreset:
    """ValidationError names those there are."""
    found = next((p for p in PRESETS if p.slug == slug), None)
    if found is None:
        raise ValidationError(
            {"preset": f"There is no preset {slug!r}; there is {', '.join(p.slug for p in PRESETS)}."}
        )
    return found


def make_recipe(
    slug: str,
    adapters: Mapping[str, ModelAdapter],
    *,
    prompts: Mapping[str, PromptVersion] | None = None,
    policy_version: PolicyVersion | None = None,
    by: User | None = None,
) -> Recipe:
    """The recipe of a preset with a model in each slot, by the slot's name. `prompts` take the place of its own.

    A model that takes no prompt gets none. ValidationError keyed by slot, or as `get_recipe`.
    """
    chosen = preset(slug)
    for slot in chosen.slots:
        if slot.name not in adapters:
            raise ValidationError({slot.name: f"{slot.title}: choose a model."})
    given = dict(prompts or {})
    with transaction.atomic():
        specs = {slot.name: _spec(slot, adapters[slot.name], given.get(slot.name)) for slot in chosen.slots}
        return get_recipe(
            [specs[slot.name] for slot in chosen.channels],
            combine=chosen.combine or None,
            merge=specs[chosen.merge.name] if chosen.merge else None,
            policy_version=policy_version or _policy(chosen, by),
            name=chosen.title,
            by=by,
        )


def _spec(slot: Slot, adapter: ModelAdapter, prompt: PromptVersion | None) -> ChannelSpec:
    if prompt is None and slot.prompt and adapter.adapter_class.capabilities.prompt:
        prompt = saved_prompt(slot.prompt)
    return ChannelSpec(adapter, prompt, name=slot.name)


def saved_prompt(text: PromptText) -> PromptVersion:
    """The version of exactly this text; made when there is none."""
    row, _ = Prompt.objects.get_or_create(slug=text.slug, defaults={"name": text.name, "task": text.task})
    found = row.versions.filter(system=text.system, template=text.template).order_by("number").first()
    return found or create_version(row, system=text.system, template=text.template, message="Comes with iwtag")


def _policy(chosen: RecipePreset, by: User | None) -> PolicyVersion | None:
    """The newest version of the preset's own policy, which a person may have changed since."""
    if not chosen.policy:
        return None
    row, made = Policy.objects.get_or_create(slug=f"preset-{chosen.slug}"[:80], defaults={"name": chosen.title})
    found = row.current
    if made or found is None:
        found = create_policy_version(row, chosen.policy, message="Comes with the preset", by=by)
    return found
