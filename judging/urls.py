"""Addresses of the pages of comparison and judging."""

from __future__ import annotations

from django.urls import URLPattern, path

from .judge_urls import urlpatterns as judges
from .views import arena, curves, experiments, matrix, overnight, promote, report, rest

app_name = "judging"

urlpatterns: list[URLPattern] = [
    path("experiments/", experiments.index, name="experiments"),
    path("experiments/new/", experiments.new, name="experiment_new"),
    path("experiments/plan/", experiments.plan, name="experiment_plan"),
    path("experiments/from-runs/", experiments.from_runs, name="experiment_from_runs"),
    path("experiments/<int:pk>/", experiments.show, name="experiment"),
    path("experiments/<int:pk>/status/", experiments.status, name="experiment_status"),
    path("experiments/<int:pk>/leaderboard/", experiments.leaderboard, name="leaderboard"),
    path("experiments/<int:pk>/report/", report.show, name="experiment_report"),
    path("experiments/<int:pk>/judge-scores/", experiments.judge_scores, name="judge_scores"),
    path("experiments/<int:pk>/judge/", experiments.judge, name="experiment_judge"),
    path("experiments/<int:pk>/rest/", rest.rest, name="rest"),
    path("experiments/<int:pk>/arena/", arena.arena, name="arena"),
    path("experiments/<int:pk>/votes/", arena.ranking, name="votes"),
    path("experiments/<int:pk>/curves/", curves.page, name="curves"),
    path("experiments/<int:pk>/sides/", curves.sides, name="sides"),
    path("experiments/<int:pk>/matrix/", matrix.matrix, name="matrix"),
    path("experiments/<int:pk>/matrix/rows/", matrix.rows, name="matrix_rows"),
    path("experiments/<int:pk>/matrix/state/", matrix.state, name="matrix_state"),
    path("experiments/<int:pk>/matrix/decide/", matrix.decide, name="matrix_decide"),
    path("experiments/<int:pk>/matrix/<int:row>/<int:image>/", matrix.cell, name="matrix_cell"),
    path("experiments/<int:pk>/rows/<int:row_pk>/promote/", promote.promote, name="promote"),
    path("experiments/<int:pk>/together/", promote.together, name="together"),
    path("experiments/watched/", promote.watched, name="watched"),
    path("overnight/", overnight.index, name="overnight"),
    path("overnight/new/", overnight.new, name="overnight_new"),
    path("overnight/<int:pk>/", overnight.show, name="search"),
    path("overnight/<int:pk>/status/", overnight.status, name="search_status"),
    path("overnight/<int:pk>/<slug:verb>/", overnight.act, name="search_act"),
    path("labels/<int:pk>/back/", promote.roll_back, name="roll_back"),
    *judges,
    # last: a verb is any word
    path("experiments/<int:pk>/<slug:verb>/", experiments.act, name="experiment_act"),
]
