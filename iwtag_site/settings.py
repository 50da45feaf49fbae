"""Settings. Each has a default that works on one machine with nothing else installed; the environment overrides.

IWTAG_DATA_DIR        where everything that is not code lives (./data)
IWTAG_HOST, _PORT     address of the web server (127.0.0.1, 8000)
IWTAG_SECRET_KEY      else generated into the data folder
IWTAG_ADMIN_PASSWORD  else a random one is printed once
IWTAG_MODELS_DIRS     folders with local models, separated like PATH
IWTAG_MODEL_IDLE_SECONDS  a model that nobody used for so long is unloaded (600; 0: never)
IWTAG_RESIDENT_MODELS models kept loaded on a device (as many as fit where memory is known, else 1)
IWTAG_GPU_WAIT_SECONDS how long a worker waits for a card that another one holds (300)
IWTAG_STALL_SECONDS   a worker whose model does not return for so long is ended and replaced (600)
IWTAG_PREFETCH        threads that decode images ahead of a model (one for each core, 8 at most)
HF_HOME, HF_HUB_CACHE where models of the hub are kept; HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE as the hub's client has
IWTAG_ALLOWED_HOSTS   host names that may be asked for, comma-separated (localhost and IWTAG_HOST)
IWTAG_TRUSTED_ORIGINS https://… origins behind a proxy, comma-separated
IWTAG_INGEST_ROOTS    folders that collections may lie in, separated like PATH (any folder by default)
IWTAG_MAX_PIXELS      pictures with more pixels are not decoded (400000000)
IWTAG_ALLOW_PRIVATE_ENDPOINTS  True: model endpoints may be in private networks; False: not even on this machine
                      (this machine only)
IWTAG_STORAGE         dotted path of a Django storage class for thumbnails, uploads, exports (files in the data folder)
IWTAG_STORAGE_OPTIONS its options as JSON, e.g. {"bucket_name": "photos"}
DATABASE_URL          postgres://user:password@host:5432/name (SQLite in the data folder)
IWTAG_BROKER_URL      redis://host:6379/0 (the database)
IWTAG_HOST_NAME       this machine's name among several, where the system's own is not its alone
IWTAG_LOG_LEVEL       of iwtag's own messages (INFO)
TZ                    time zone of pages and messages (UTC)
IWTAG_DEBUG           True for development
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")
env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env.str("IWTAG_DATA_DIR", default=str(BASE_DIR / "data"))).expanduser().resolve()


def _read(name: str, read: Callable[..., T], default: T, wanted: str) -> T:
    """A setting that has a form; one line instead of a traceback when it has not."""
    try:
        return read(name, default=default)
    except (ValueError, KeyError) as e:
        raise ImproperlyConfigured(f"{name} is {os.environ.get(name)!r}; it must be {wanted}.") from e


try:
    DATA_DIR.mkdir(parents=True, exist_ok=True)
except OSError as e:
    raise ImproperlyConfigured(f"The data folder {DATA_DIR} cannot be made ({e.strerror}): set IWTAG_DATA_DIR.") from e


def _secret_key() -> str:
    """From the environment, else made once and kept in the data folder, readable by its owner alone."""
    given = env.str("IWTAG_SECRET_KEY", default="")
    if given:
        return given
    path = DATA_DIR / "secret_key"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text().strip() or secrets.token_urlsafe(50)


SECRET_KEY = _secret_key()
DEBUG = env.bool("IWTAG_DEBUG", default=False)
IWTAG_HOST = env.str("IWTAG_HOST", default="127.0.0.1")
IWTAG_PORT = _read("IWTAG_PORT", env.int, 8000, "the number of a port")
ALLOWED_HOSTS = env.list("IWTAG_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", IWTAG_HOST])
if IWTAG_HOST in ("0.0.0.0", "::"):
    ALLOWED_HOSTS = env.list("IWTAG_ALLOWED_HOSTS", default=["*"])
CSRF_TRUSTED_ORIGINS = env.list("IWTAG_TRUSTED_ORIGINS", default=[])
IWTAG_MODELS_DIRS = [Path(p) for p in env.str("IWTAG_MODELS_DIRS", default="").split(os.pathsep) if p]
IWTAG_INGEST_ROOTS = [Path(p) for p in env.str("IWTAG_INGEST_ROOTS", default="").split(os.pathsep) if p]
IWTAG_MAX_PIXELS = env.int("IWTAG_MAX_PIXELS", default=400_000_000)

INSTALLED_APPS = [
    "iwtag_site.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
    "template_partials",
    "ninja",
    "django_q",
    "prompts",
    "tagging",
    "judging",
    "exports",
    "import_export",  # after exports: both have a command "export", and the first one wins
    "iwtag_site.apps.SiteConfig",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "iwtag_site.errors.Unfit",
]

ROOT_URLCONF = "iwtag_site.urls"
WSGI_APPLICATION = "iwtag_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# -- database: facts measured with django-q2: WAL, IMMEDIATE and kept connections are what make SQLite safe here
SQLITE: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": DATA_DIR / "db.sqlite3",
    "CONN_MAX_AGE": 60,
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-65536; "
        "PRAGMA temp_store=MEMORY; PRAGMA mmap_size=268435456;",
    },
}


def _database() -> dict[str, Any]:
    """From DATABASE_URL, whose text is not repeated: it holds a password."""
    try:
        with warnings.catch_warnings(action="ignore"):  # said below, without the address
            found: dict[str, Any] = env.db_url("DATABASE_URL")
    except (ValueError, KeyError):
        found = {}
    if found.get("ENGINE") not in ("django.db.backends.postgresql", "django.db.backends.sqlite3"):
        raise ImproperlyConfigured("DATABASE_URL must be an address like postgres://user:password@host:5432/name.")
    if found["ENGINE"].endswith("postgresql") and find_spec("psycopg") is None:
        raise ImproperlyConfigured(
            'DATABASE_URL names PostgreSQL: install its client, pip install "psycopg[binary]>=3.3".'
        )
    return found


if env.str("DATABASE_URL", default=""):
    DATABASES = {"default": _database()}
    DATABASES["default"]["CONN_MAX_AGE"] = 60
    if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        DATABASES["default"] = {**SQLITE, "NAME": DATABASES["default"]["NAME"]}
    else:
        DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
else:
    DATABASES = {"default": SQLITE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- queue: see docs/operations.md; the three clusters are chosen by Q_CLUSTER_NAME
BROKER_URL = env.str("IWTAG_BROKER_URL", default="")
Q_CLUSTER: dict[str, Any] = {
    "name": "iwtag",
    "label": "Queue",
    "workers": 1,
    "timeout": 3600,  # never meant to strike: drains last 20 s, a heartbeat ends a stalled process
    "retry": 4 * 3600 + 60,
    "recycle": 10**6,  # a recycled worker would lose its model
    "save_limit": -1,
    "ack_failures": True,
    "max_attempts": 1,
    "catch_up": False,
    "bulk": 1,
    "queue_limit": 2,
    "poll": 0.2,
    "guard_cycle": 0.5,
    "log_level": "WARNING",
    "ALT_CLUSTERS": {
        "gpu": {"workers": 1, "queue_limit": 1},
        "io": {"workers": 1, "queue_limit": 1},
    },
    **({"redis": BROKER_URL} if BROKER_URL else {"orm": "default"}),
}

# -- people
AUTHENTICATION_BACKENDS = ["iwtag_site.auth.Backend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "tagging:home"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_AGE = 60 * 60 * 24 * 30
SESSION_COOKIE_SAMESITE = "Lax"

LANGUAGE_CODE = "en-gb"
TIME_ZONE = env.str("TZ", default="UTC")
USE_I18N = False
USE_TZ = True

# -- files
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = DATA_DIR / "static"
MEDIA_ROOT = DATA_DIR / "media"
MEDIA_URL = "media/"
STORAGES = {
    "default": {
        "BACKEND": env.str("IWTAG_STORAGE", default="django.core.files.storage.FileSystemStorage"),
        "OPTIONS": _read("IWTAG_STORAGE_OPTIONS", env.json, {}, 'JSON, e.g. {"bucket_name": "photos"}'),
    },
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True
DATA_UPLOAD_MAX_NUMBER_FILES = 2000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000
FILE_UPLOAD_TEMP_DIR = None

IMPORT_EXPORT_USE_TRANSACTIONS = True
IMPORT_EXPORT_SKIP_ADMIN_LOG = False

X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
NINJA_PAGINATION_MAX_LIMIT = 1000

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s", "datefmt": "%H:%M:%S"}},
    "filters": {"refusals": {"()": "iwtag_site.logs.RefusalsInOneLine"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["refusals"]}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        **{
            app: {"level": env.str("IWTAG_LOG_LEVEL", default="INFO")}
            for app in ("prompts", "tagging", "judging", "exports")
        },
        "django-q": {"level": "WARNING", "handlers": ["console"], "propagate": False},
    },
}
