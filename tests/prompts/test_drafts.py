"""Drafts: kept per person, never versions, never overwritten unseen."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from prompts import actions, drafts
from prompts.models import Prompt, PromptDraft, PromptVersion
from prompts.rendering import MAX_TEMPLATE

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann():
    return User.objects.create(username="ann")


@pytest.fixture
def prompt():
    return actions.create_prompt(slug="tags")


def save(prompt, who, text, revision=0, **more):
    return drafts.save_draft(prompt, who, system="", template=text, revision=revision, **more)


def test_a_draft_is_kept_per_person_and_is_no_version(prompt, ann):
    ben = User.objects.create(username="ben")
    save(prompt, ann, "hers {{ broken")
    save(prompt, ben, "his")
    assert drafts.draft_of(prompt, ann).template == "hers {{ broken"
    assert drafts.draft_of(prompt, ben).template == "his"
    assert not PromptVersion.objects.exists()
    assert drafts.discard_draft(prompt, ann)
    assert drafts.draft_of(prompt, ann) is None
    assert drafts.draft_of(prompt, ben) is not None


def test_two_windows_do_not_overwrite_each_other(prompt, ann):
    first = save(prompt, ann, "one")
    second = save(prompt, ann, "two", first.revision)
    with pytest.raises(drafts.DraftConflict) as caught:
        save(prompt, ann, "from the other window", first.revision)
    assert caught.value.draft.template == "two"
    with pytest.raises(drafts.DraftConflict):
        save(prompt, ann, "from a window that has none")
    assert save(prompt, ann, "two").revision == second.revision  # the same text is no conflict
    drafts.discard_draft(prompt, ann)
    with pytest.raises(drafts.DraftConflict) as caught:
        save(prompt, ann, "late", second.revision)
    assert caught.value.draft is None


def test_a_draft_that_is_too_long_is_refused(prompt, ann):
    with pytest.raises(ValidationError) as caught:
        save(prompt, ann, "x" * (MAX_TEMPLATE + 1))
    assert "template" in caught.value.message_dict
    assert not PromptDraft.objects.exists()


def test_a_tried_text_hangs_on_a_hidden_prompt_once(prompt):
    saved = actions.create_version(prompt, template="saved", message="m")
    assert drafts.tried_version(prompt, system="", template="saved", response_schema=None) == saved
    tried = drafts.tried_version(prompt, system="", template="only tried", response_schema=None)
    assert drafts.tried_version(prompt, system="", template="only tried", response_schema=None) == tried
    assert tried.prompt.hidden
    assert list(Prompt.objects.listed()) == [prompt]
    assert prompt.versions.count() == 1
    with pytest.raises(ValidationError) as caught:
        actions.create_prompt(slug="tried-texts-mine")
    assert "slug" in caught.value.message_dict
