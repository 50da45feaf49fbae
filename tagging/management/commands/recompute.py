"""manage.py recompute: apply a policy to what was predicted, with no inference."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...actions import recompute
from ...actions.runs import NotNow
from ...models import Collection, Policy, PolicyVersion, RecomputeJob, Run


class Command(BaseCommand):
    help = "Apply a policy to the stored predictions of runs. Old proposals are kept, reviewed tags are not touched."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--run", type=int, nargs="+", default=[], metavar="ID", help="Runs by number.")
        parser.add_argument("--collection", default="", metavar="NAME", help="All runs of a collection.")
        parser.add_argument("--policy", default="default", metavar="SLUG", help="Policy, its newest version (default).")
        parser.add_argument("--policy-version", type=int, metavar="N", help="An older version of the policy.")
        parser.add_argument(
            "--combine",
            metavar="JSON",
            default="",
            help='Another rule for the channels of a run, e.g. {"rule": "votes", "votes": 2}.',
        )
        parser.add_argument("--queue", action="store_true", help="Leave the work to the running workers.")

    def handle(self, *args: Any, **options: Any) -> None:
        version = self._version(options["policy"], options["policy_version"])
        for run in self._runs(options["run"], options["collection"]):
            try:
                job = recompute.start_recompute(run, version, combine=_rule(options["combine"]))
            except NotNow as error:
                raise CommandError(str(error)) from None
            except ValidationError as error:
                raise CommandError(" ".join(error.messages)) from None
            if options["queue"]:
                self.stdout.write(f"run {run.pk}: queued as job {job.pk}")
                continue
            job = recompute.run_recompute(job.pk, report=self._report)
            if job.state != RecomputeJob.State.DONE:
                raise CommandError(f"run {run.pk}: {job.error or f'{job.get_state_display()} elsewhere'}")
            self._summary(job)

    def _version(self, slug: str, number: int | None) -> PolicyVersion:
        policy = Policy.objects.filter(slug=slug).first()
        if policy is None:
            known = ", ".join(Policy.objects.values_list("slug", flat=True)) or "none yet"
            raise CommandError(f"There is no policy {slug!r}; there are: {known}.")
        found = policy.versions.filter(number=number).first() if number else policy.current
        if found is None:
            raise CommandError(f"The policy {slug!r} has no version {number or 'yet'}.")
        return found

    def _runs(self, ids: list[int], name: str) -> list[Run]:
        if bool(ids) == bool(name):
            raise CommandError("Say which runs: --run ID… or --collection NAME.")
        if name:
            collection = Collection.objects.filter(name=name).first() or Collection.objects.filter(slug=name).first()
            if collection is None:
                raise CommandError(f"There is no collection {name!r}.")
            runs = recompute.runs_of(collection)
            if not runs:
                raise CommandError(f"{name!r} has no run that is done.")
            return runs
        found = Run.objects.in_bulk([i for i in ids if abs(i) < 2**63])  # SQLite refuses larger numbers
        if missing := [str(i) for i in ids if i not in found]:
            raise CommandError(f"There is no run {', '.join(missing)}.")
        return [found[i] for i in dict.fromkeys(ids)]

    def _report(self, job: RecomputeJob) -> None:
        if self.stderr.isatty():
            rate = job.n_done / job.seconds if job.seconds else 0
            line = f"\r{job.n_done:,} of {job.n_total:,}, {job.n_changed:,} changed, {rate:,.0f} images/s "
            self.stderr.write(line, ending="")

    def _summary(self, job: RecomputeJob) -> None:
        rate = job.n_done / job.seconds if job.seconds else 0
        if self.stderr.isatty():
            self.stderr.write("")
        self.stdout.write(
            f"run {job.run_id}, {job.policy_version}: {job.n_changed:,} of {job.n_done:,} images changed, "
            f"{job.tags_before:,} tags became {job.tags_after:,} ({rate:,.0f} images/s)"
        )
        if job.error:
            self.stdout.write(f"  note: {job.error}")
        for title, counts in (("gained", job.gained), ("lost", job.lost)):
            if counts:
                words = ", ".join(f"{name} ({n:,})" for name, n in recompute.most_frequent(counts, 12).items())
                self.stdout.write(f"  {title}: {words}" + (" …" if len(counts) > 12 else ""))


def _rule(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"--combine is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise CommandError('--combine is an object, e.g. {"rule": "union"}.')
    return found
