"""State, constraints and querysets of the tagging app."""

from __future__ import annotations

from .access import ApiKey
from .adapters import ModelAdapter
from .collections import Collection, ImageAsset, IngestJob
from .downloads import ModelDownload
from .labels import Label, LabelEvent
from .listings import ModelListing
from .presets import OptionPreset
from .recipes import Channel, Policy, PolicyVersion, Recipe
from .recompute import ProposalRevision, RecomputeJob
from .runs import ChannelResult, Chunk, Prediction, Proposal, Run, StoredLabelSet
from .tags import ImageTag, Tag, TagAlias, TagCount, TagEdit
from .watches import Watch
from .workers import UnloadRequest, Worker

__all__ = [
    "ApiKey",
    "Channel",
    "ChannelResult",
    "Chunk",
    "Collection",
    "ImageAsset",
    "ImageTag",
    "IngestJob",
    "Label",
    "LabelEvent",
    "ModelAdapter",
    "ModelDownload",
    "ModelListing",
    "OptionPreset",
    "Policy",
    "PolicyVersion",
    "Prediction",
    "Proposal",
    "ProposalRevision",
    "Recipe",
    "RecomputeJob",
    "Run",
    "StoredLabelSet",
    "Tag",
    "TagAlias",
    "TagCount",
    "TagEdit",
    "UnloadRequest",
    "Watch",
    "Worker",
]
