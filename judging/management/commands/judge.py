"""manage.py judge setup | list | run | job | calibrate"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from tagging.actions.runs import NotNow
from tagging.actions.undo import NothingToUndo
from tagging.management.commands.tag import find_collection
from tagging.models import ModelAdapter, Run

from ...actions import calibrating, gates, judge_jobs
from ...actions import judges as actions
from ...models import JudgeJob, JudgeProfile


class Command(BaseCommand):
    help = "Judges: make those that come with iwtag, choose their model, have runs judged, compare them with people."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="setup|list|model|run|job|calibrate")
        verbs.add_parser("setup", help="make the judges that come with iwtag, where they are missing")
        verbs.add_parser("list", help="all judges with their badges")
        model = verbs.add_parser("model", help="choose the model of a judge and switch it on")
        model.add_argument("judge")
        model.add_argument("adapter", help="slug of the model")
        model.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="value as JSON or text")
        run = verbs.add_parser("run", help="have what a run proposed judged")
        run.add_argument("judge")
        run.add_argument("--run", type=int, action="append", default=[], metavar="ID")
        run.add_argument("--against", type=int, action="append", default=[], metavar="ID", help="pairs: the other run")
        run.add_argument("--reviewed", default="", metavar="COLLECTION", help="judge what people decided, to calibrate")
        run.add_argument("--gate", action="store_true", help="send the run through the gate of its collection")
        run.add_argument("--share", type=float, default=1.0, help="part of the images, drawn by content")
        run.add_argument("--max-calls", type=int, help="pause after so many questions")
        run.add_argument("--max-cost", type=float, help="pause when the replies cost so much")
        run.add_argument("--wait", action="store_true", help="do the work here instead of leaving it to the workers")
        job = verbs.add_parser("job", help="show, pause, resume, cancel a job, or undo what the gate decided in it")
        job.add_argument("job", type=int)
        job.add_argument("do", nargs="?", default="show", choices=["show", "pause", "resume", "cancel", "undo"])
        calibrate = verbs.add_parser("calibrate", help="compare a judge with people's decisions now")
        calibrate.add_argument("judge")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        try:
            getattr(self, verb if verb != "list" else "show")(options)
        except (ValidationError, NotNow, NothingToUndo) as error:
            found = getattr(error, "message_dict", None)
            lines = [f"{k}: {' '.join(v)}" for k, v in found.items()] if found else [str(error)]
            raise CommandError("\n".join(lines)) from None

    def setup(self, options: dict[str, Any]) -> None:
        made = actions.make_ready()
        self.stdout.write("\n".join(f"{p.slug}\t{p.get_kind_display()}" for p in made) or "All there already.")

    def show(self, options: dict[str, Any]) -> None:
        for p in JudgeProfile.objects.select_related("current__adapter", "current__profile"):
            lacks = p.current.ready if p.current else "no version yet"
            state = "on" if p.enabled else f"off ({lacks})" if lacks else "off"
            self.stdout.write(f"{p.slug}\t{p.get_kind_display()}\t{state}\tbadge {calibrating.badge_of(p.current)}")

    def model(self, options: dict[str, Any]) -> None:
        profile = _judge(options["judge"])
        adapter = ModelAdapter.objects.filter(slug=options["adapter"]).first()
        if adapter is None:
            raise CommandError(f"There is no model {options['adapter']!r}.")
        given = dict(_option(text) for text in options["option"])
        version = actions.change(profile, adapter=adapter, options=given)
        actions.set_enabled(profile, True)
        self.stdout.write(f"{version} asks {adapter.label}.")

    def run(self, options: dict[str, Any]) -> None:
        profile = _judge(options["judge"])
        runs = [_run(pk) for pk in options["run"]]
        budget = {"max_calls": options["max_calls"], "max_cost": options["max_cost"]}
        if options["gate"]:
            if len(runs) != 1 or runs[0].collection is None:
                raise CommandError("Name one run over a collection: --run ID --gate.")
            job = gates.through_gate(runs[0].collection, runs[0], **budget)
        else:
            if profile.current is None:
                raise CommandError(f"{profile.name} has no version yet.")
            job = judge_jobs.start_job(
                profile.current,
                runs=runs,
                others=[_run(pk) for pk in options["against"]],
                reviewed=find_collection(options["reviewed"]) if options["reviewed"] else None,
                share=options["share"],
                **budget,
            )
        if options["wait"]:
            job = judge_jobs.run_job(job.pk, report=self._report if options["verbosity"] > 1 else None)
            if job.state == JudgeJob.State.FAILED:
                raise CommandError(job.error)
        self._print(job)

    def job(self, options: dict[str, Any]) -> None:
        job = JudgeJob.objects.select_related("version__profile", "version__adapter").filter(pk=options["job"]).first()
        if job is None:
            raise CommandError(f"There is no job {options['job']}.")
        if options["do"] == "undo":
            undone = gates.take_back(job, by=None)
            self.stdout.write(f"{len(undone.image_ids)} images taken back, {len(undone.skipped)} left as they are.")
            return
        verbs = {"pause": judge_jobs.pause, "resume": judge_jobs.resume, "cancel": judge_jobs.cancel}
        if options["do"] in verbs:
            verbs[options["do"]](job)
        self._print(job)

    def calibrate(self, options: dict[str, Any]) -> None:
        profile = _judge(options["judge"])
        if profile.current is None:
            raise CommandError(f"{profile.name} has no version yet.")
        found = calibrating.calibrate(profile.current)
        self.stdout.write(f"{profile.current}: {found.badge} ({found.why}), {found.decisions} decisions")

    def _report(self, job: JudgeJob) -> None:
        self.stdout.write(f"{job.n_done} of {job.n_total}")

    def _print(self, job: JudgeJob) -> None:
        parts = [f"job {job.pk}", job.state, f"{job.n_done} of {job.n_total}", f"{job.n_verdicts} verdicts"]
        parts += [
            f"{job.n_cached} known",
            f"{job.n_invalid} invalid",
            f"{job.n_error} failed",
            f"{job.n_calls} questions",
        ]
        if job.gate_id:
            parts += [f"{job.n_accepted} accepted", f"{job.n_rejected} rejected", f"{job.n_review} to people"]
        self.stdout.write(", ".join(parts) + (f"\n{job.note}" if job.note else ""))


def _judge(slug: str) -> JudgeProfile:
    found = JudgeProfile.objects.select_related("current__profile", "current__adapter").filter(slug=slug).first()
    if found is None:
        raise CommandError(f"There is no judge {slug!r}: 'judge list' names them, 'judge setup' makes the usual ones.")
    return found


def _run(pk: int) -> Run:
    found = Run.objects.select_related("collection").filter(pk=pk).first()
    if found is None:
        raise CommandError(f"There is no run {pk}.")
    return found


def _option(text: str) -> tuple[str, Any]:
    name, given, value = text.partition("=")
    if not given:
        raise CommandError(f"{text!r} is no option: write NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
