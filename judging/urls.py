"""Addresses of the pages of comparison and judging."""

from __future__ import annotations

from django.urls import URLPattern, path

from .views import matrix

app_name = "judging"

urlpatterns: list[URLPattern] = [
    path("experiments/<int:pk>/", matrix.matrix, name="experiment"),
    path("experiments/<int:pk>/matrix/", matrix.matrix, name="matrix"),
    path("experiments/<int:pk>/matrix/rows/", matrix.rows, name="matrix_rows"),
    path("experiments/<int:pk>/matrix/state/", matrix.state, name="matrix_state"),
    path("experiments/<int:pk>/matrix/decide/", matrix.decide, name="matrix_decide"),
    path("experiments/<int:pk>/matrix/<int:row>/<int:image>/", matrix.cell, name="matrix_cell"),
]
