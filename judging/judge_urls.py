"""Addresses of judges, their jobs and gates; part of `judging.urls`."""

from __future__ import annotations

from django.urls import URLPattern, path

from .views import gates, inbox, judge_jobs, judges, second_looks, wording

urlpatterns: list[URLPattern] = [
    path("judges/", judges.index, name="judges"),
    path("judges/setup/", judges.setup, name="judges_setup"),
    path("judges/new/", judges.new, name="judge_new"),
    path("judges/jobs/<int:pk>/", judge_jobs.show, name="judge_job"),
    path("judges/jobs/<int:pk>/status/", judge_jobs.status, name="judge_job_status"),
    path("judges/jobs/<int:pk>/<slug:verb>/", judge_jobs.act, name="judge_job_act"),
    path("judges/disagreements/<int:pk>/", inbox.answer, name="inbox_answer"),
    path("judges/<slug:slug>/", judges.show, name="judge"),
    path("judges/<slug:slug>/change/", judges.change, name="judge_change"),
    path("judges/<slug:slug>/options/", judges.options, name="judge_options"),
    path("judges/<slug:slug>/switch/", judges.switch, name="judge_switch"),
    path("judges/<slug:slug>/calibrate/", judges.calibrate, name="judge_calibrate"),
    path("judges/<slug:slug>/ask/", judge_jobs.ask, name="judge_ask"),
    path("judges/<slug:slug>/inbox/", inbox.show, name="inbox"),
    path("judges/<slug:slug>/wording/", wording.show, name="wording"),
    path("judges/<slug:slug>/learn/", inbox.learn, name="judge_learn"),
    path("second-look/<slug:slug>/", second_looks.look, name="second_look"),
    path("second-look/<slug:slug>/share/", second_looks.share, name="second_look_share"),
    path("gate/<slug:slug>/", gates.show, name="gate"),
    path("gate/<slug:slug>/run/", gates.through, name="gate_run"),
]
