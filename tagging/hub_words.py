"""What a download says: sizes, and what went wrong with the mend."""

from __future__ import annotations

import errno

from .models import ModelDownload


def size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count:.0f} B"


def is_offline() -> bool:
    """The hub is switched off on this machine."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _names(error: BaseException) -> set[str]:
    """Class names along the chain of causes."""
    found: set[str] = set()
    at: BaseException | None = error
    for _ in range(8):
        if at is None:
            break
        found |= {kind.__name__ for kind in type(at).__mro__}
        at = at.__cause__ or at.__context__
    return found


NETWORK = {"ConnectError", "TimeoutException", "ConnectTimeout", "ProxyError", "RemoteProtocolError", "ReadError"}


def is_known(error: BaseException) -> bool:
    """A failure of the network or the hub that `why` has words for: its traceback tells nothing more."""
    return bool(_names(error) & {*NETWORK, "HfHubHTTPError", "LocalEntryNotFoundError", "DryRunError", "OSError"})


def why(error: BaseException, job: ModelDownload) -> str:
    """What went wrong and the mend, for the person who waits."""
    from huggingface_hub import constants

    names = _names(error)
    if "GatedRepoError" in names:
        return (
            f"{job.source} is given only to accounts that accepted its licence. Accept it on {constants.ENDPOINT}/"
            f"{job.source} and set HF_TOKEN to a token of that account where the workers run."
        )
    if "RevisionNotFoundError" in names:
        return (
            f"{job.source} has no revision {job.revision!r}. Give a branch, a tag or a commit, or none for the newest."
        )
    if "RepositoryNotFoundError" in names:
        return f"The hub has no model {job.source!r}, or not for this account (HF_TOKEN). Correct the name."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full. Free some space and let it go on: what came is kept."
    if isinstance(error, PermissionError):
        return (
            f"{error.filename} cannot be written. Give the workers the right to write there, or choose another folder."
        )
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if names & {*NETWORK, "LocalEntryNotFoundError", "DryRunError"}:
        return (
            f"The hub ({constants.ENDPOINT}) cannot be reached or broke off. Check the connection or the proxy and let "
            "it go on; or fetch the files on another machine and put them into a folder of IWTAG_MODELS_DIRS."
        )
    return f"{type(error).__name__}: {line}"
