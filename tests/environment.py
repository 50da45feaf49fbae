"""The environment of all tests, loaded by `-p tests.environment` before Django reads its settings.

Every run of the tests has a data folder of its own; nothing is read from or written to the developer's.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ["IWTAG_DATA_DIR"] = tempfile.mkdtemp(prefix="iwtag-test-")
os.mkdir(os.path.join(os.environ["IWTAG_DATA_DIR"], "static"))  # where whitenoise looks
_owner = os.getpid()


@atexit.register
def _clean_up() -> None:
    if os.getpid() == _owner:  # not in a process forked from the tests
        shutil.rmtree(os.environ["IWTAG_DATA_DIR"], ignore_errors=True)


_KEPT = (
    "IWTAG_DATA_DIR",
    "IWTAG_CHROMIUM",
    "IWTAG_TEST_POSTGRES",
    "IWTAG_TEST_REDIS",
    "IWTAG_TEST_HOSTILE",
    "IWTAG_TEST_SEED",
)
for name in [n for n in os.environ if n.startswith("IWTAG_") and n not in _KEPT]:
    del os.environ[name]
os.environ.pop("Q_CLUSTER_NAME", None)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
