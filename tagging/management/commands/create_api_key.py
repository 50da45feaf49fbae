from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from ...actions.keys import create_key


class Command(BaseCommand):
    help = "Make an API key and print it once."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="What the key is for, e.g. backup-script.")
        parser.add_argument("--scopes", required=True, help="Comma-separated, of: read, write, run.")
        parser.add_argument("--user", default="", help="Whose key it is (the administrator, if there is just one).")

    def handle(self, *args: Any, name: str, scopes: str, user: str, **options: Any) -> str:
        owner = _owner(user)
        try:
            _, text = create_key(owner, name, [s.strip() for s in scopes.split(",") if s.strip()])
        except ValidationError as e:
            raise CommandError(" ".join(e.messages)) from None
        self.stderr.write(f"The key of {owner.get_username()}; it is shown this once. Send it as X-API-Key.")
        return text


def _owner(name: str) -> AbstractBaseUser:
    users = get_user_model().objects
    if name:
        found = users.filter(**{get_user_model().USERNAME_FIELD: name}).first()
        if found is None:
            raise CommandError(f"There is no user {name!r}.")
        if not found.is_active:
            raise CommandError(f"The user {name!r} is not active.")
        return found
    administrators = list(users.filter(is_superuser=True, is_active=True)[:2])
    if len(administrators) != 1:
        raise CommandError("Say whose key it is: --user NAME.")
    return administrators[0]
