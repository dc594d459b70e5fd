"""One line for errors of the operating system: a file refused, no space, no memory."""

from __future__ import annotations

import errno
import os
import re
import shutil

_ADVICE = {
    errno.ENOSPC: "free some space, or give a folder on another disk",
    errno.EDQUOT: "free some space, or give a folder on another disk",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give a place that you may read and write, or change its permissions",
    errno.EPERM: "give a place that you may read and write, or change its permissions",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EMFILE: "raise `ulimit -n`, or lower `runtime.workers`",
    errno.ENFILE: "close other programs, or lower `runtime.workers`",
    errno.ENOENT: "check the path",
    errno.EISDIR: "a file is needed there, not a folder",
    errno.ENOTDIR: "a part of the path is a file where a folder is needed",
    errno.EEXIST: "something is there already; give another path, or remove it",
    errno.ENOTEMPTY: "something is there already; give another path, or remove it",
    errno.ELOOP: "its links lead in a circle",
    errno.EIO: "the disk or the network behind it failed; try again",
    errno.ESTALE: "the file system has lost the file; try again",
    errno.ETIMEDOUT: "try again",
    errno.ENOMEM: "see what else needs memory",
}
_IN_TEXT = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
"""How libraries that are written in other languages report the system's errors."""
_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory|unable to allocate", re.IGNORECASE)


def explained(error: BaseException) -> str:
    """One line for an error of the system's; empty for what is a defect."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _MEMORY.search(text)):
        details = f" ({text[:200]})" if text else ""
        return (
            f"memory is not enough{details}; lower `train.micro_rows`, `data.packing.context`, `runtime.workers` or "
            "the size of the model, or take a machine with more"
        )
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        text = str(error.args[0][0][-1])  # of a copied folder: the first of (from, to, why)
    elif isinstance(error, OSError):
        number, reason = error.errno, error.strerror or text
        places = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        where = f"{' -> '.join(places)}: " if places else ""
        return f"{where}{reason or type(error).__name__}{_advice(number)}"
    if type(error).__module__.split(".")[0] in ("safetensors", "tokenizers", "pyarrow", "torch", "builtins", "shutil"):
        match = _IN_TEXT.search(text)
        if match and not isinstance(error, AssertionError):
            return f"{text[:500]}{_advice(int(match[1] or match[2]))}"
    return ""


def passes(error: BaseException) -> bool:
    """Whether the same may well work when it is tried again, as a launcher does."""
    return isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
    )


def _advice(number: int | None) -> str:
    advice = _ADVICE.get(number or 0, "")
    return f"; {advice}" if advice else ""
