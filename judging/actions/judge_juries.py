"""Counting a jury's votes: the stored verdicts of its members on the same subjects, nothing is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..judges import jury
from ..judges.spec import JurySpec, VerifierSpec, check_spec
from ..judges.verifier import TagVerdict, Word
from ..models import JudgedTag, JudgeProfile, JudgeProfileVersion, JudgeVerdict, verdict_key
from .judge_subjects import Subject
from .judge_work import Draft, Judge

_WORDS: dict[int, Word] = {1: "correct", 2: "wrong", 3: "too_general", 4: "unverifiable"}


class Jury:
    """A jury's version in a worker. Used like `Judge`, after its members have judged."""

    def __init__(self, version: JudgeProfileVersion, sample: int = 0) -> None:
        self.version, self.sample = version, sample
        spec = check_spec(JudgeProfile.Kind.JURY, version.rules)
        assert isinstance(spec, JurySpec)
        self.spec = spec
        members = version.members.select_related("profile", "adapter", "prompt_version").order_by("pk")
        self.members = [Judge(member, sample) for member in members]

    def judge(
        self,
        subjects: Sequence[Subject],
        *,
        stop: Callable[[], bool] = lambda: False,
        doing: Callable[[str], None] | None = None,
    ) -> list[Draft]:
        drafts, keys = [], []
        for subject in subjects:
            nothing = self.members[0]._nothing(subject) if self.members else "the jury has no members"
            content = {} if nothing else self.members[0].content(subject)
            key = "" if nothing else verdict_key(self.version.digest, subject.image.sha256, content, self.sample)
            drafts.append(Draft(subject, key=key, nothing=nothing, content=content))
            keys.append([] if nothing else [member.key(subject) for member in self.members])
        wanted = {key for own in keys for key in own} | {d.key for d in drafts if d.key}
        verdicts = {v.key: v for v in JudgeVerdict.objects.filter(key__in=wanted)}
        said = _tags(list(verdicts.values()))
        for draft, own in zip(drafts, keys, strict=True):
            draft.known = verdicts.get(draft.key)
            if draft.known is None and not draft.nothing:
                voices = {
                    str(member.version): verdicts[key]
                    for member, key in zip(self.members, own, strict=True)
                    if key in verdicts and verdicts[key].state == JudgeVerdict.State.OK
                }
                self._count(draft, voices, said)
        return drafts

    def _count(self, draft: Draft, voices: dict[str, JudgeVerdict], said: dict[int, list[TagVerdict]]) -> None:
        if len(voices) < 2:
            draft.state, draft.problem = JudgeVerdict.State.INVALID, "fewer than two jurors have a verdict"
            return
        draft.result = {"jurors": {name: v.overall for name, v in voices.items()}}
        draft.weight = sum(v.weight for v in voices.values()) / len(voices)
        draft.flags = sorted({flag for v in voices.values() for flag in v.flags})
        if self.spec.of == "verifier":
            tags = jury.on_tags({name: said.get(v.pk, []) for name, v in voices.items()}, self.spec.tie)
            draft.tags = [tag.verdict for tag in tags]
            draft.result["trace"] = {tag.verdict.name: dict(tag.trace) for tag in tags}
            draft.overall = _overall(draft.tags)
        elif self.spec.of == "caption":
            overalls = [v.overall for v in voices.values() if v.overall is not None]
            draft.overall = round(sum(overalls) / len(overalls), 4) if overalls else None
            draft.result["claims"] = _claims(voices)
        else:
            winner, _ = jury.majority([v.outcome for v in voices.values()])
            draft.outcome = str(winner or "tie")
            draft.result["trace"] = {name: v.outcome for name, v in voices.items()}


def _tags(verdicts: Sequence[JudgeVerdict]) -> dict[int, list[TagVerdict]]:
    """Verdict → what it said of the judged tags."""
    found: dict[int, list[TagVerdict]] = {}
    rows = JudgedTag.objects.filter(verdict__in=verdicts, role=JudgedTag.Role.CANDIDATE).order_by("pk")
    for row in rows:
        tag = TagVerdict(row.name, row.category, "candidate", _WORDS[row.word], row.p_ok, row.evidence)
        found.setdefault(row.verdict_id, []).append(tag)
    return found


def _overall(tags: Sequence[TagVerdict]) -> float:
    spec = VerifierSpec.model_validate({})
    worth = {
        "correct": spec.weight_correct,
        "too_general": spec.weight_too_general,
        "unverifiable": spec.weight_unverifiable,
        "wrong": 0.0,
    }
    return round(sum(worth[t.word] for t in tags) / len(tags), 4) if tags else 0.0


def _claims(voices: dict[str, JudgeVerdict]) -> list[dict[str, Any]]:
    """Claim by claim: the majority's word, "unverifiable" without one, and who said what."""
    claims: dict[str, dict[str, str]] = {}
    for name, verdict in voices.items():
        for claim in verdict.result.get("claims", ()):
            claims.setdefault(claim["claim"], {})[name] = claim["verdict"]
    found = []
    for text, trace in claims.items():
        word, _ = jury.majority(list(trace.values()))
        found.append({"claim": text, "verdict": word or "unverifiable", "evidence": "", "trace": trace})
    return found
