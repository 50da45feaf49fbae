"""Judges, pure: what is asked of a model about tags and captions, what its reply is worth, how far it can be trusted.

Nothing here knows the database. Django's side is `models/judges.py` and `actions/judge_*.py`.
"""
