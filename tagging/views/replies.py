"""What the models themselves said of an image, opened on demand."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render

from ..actions.replies import replies
from ..models import Proposal
from .guard import Request, needs


@needs("read")
def proposal(request: Request, pk: int) -> HttpResponse:
    """The raw replies of every channel behind a proposal."""
    found = get_object_or_404(Proposal.objects.select_related("run", "image", "prediction"), pk=pk)
    context = {"proposal": found, "replies": replies(found)}
    return render(request, "tagging/partials/replies.html" if request.htmx else "tagging/replies.html", context)
