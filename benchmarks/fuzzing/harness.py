"""Runs tries, each in an empty folder, with a limit on its time, and with canaries."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from fuzzing import others, recipes, shared
from mio.cli.failures import explained
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.core.recipe.origins import CACHE

Try = Callable[[random.Random, Path, PluginManager], recipes.Result]
TRIES: dict[Try, int] = {
    recipes.value_in_file: 24,
    recipes.value_in_override: 14,
    recipes.anywhere: 10,
    recipes.mutated_text: 18,
    recipes.references: 5,
    recipes.inclusions: 3,
    others.command: 6,
    others.run_folder: 4,
    others.record: 12,
    others.prompt: 4,
}
"""Kinds of tries and how often each comes."""
PASSED_ON: dict[Try, int] = {
    recipes.value_in_file: 10,
    recipes.anywhere: 6,
    recipes.mutated_text: 10,
    shared.several_values: 14,
    shared.fetched_recipe: 8,
    shared.lock: 22,
    shared.run_lock: 6,
    shared.bundle: 22,
    shared.repository: 2,
}
"""The same of what is passed on: recipes, locks, bundles, repositories."""
SECRET = "s3cr3t-that-nothing-may-read"
CPU_SECONDS, WALL_SECONDS = 5.0, 60.0
"""After so long a try hangs."""
_EXECUTING = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "os.fork")


class _TooLong(BaseException):
    pass


class _Canary:
    """Notes what a try would run. An audit hook cannot be removed, so there is one for all."""

    def __init__(self) -> None:
        self.watching = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event in _EXECUTING:
            self.seen.append(f"{event} {arguments!r:.100}")


_CANARY = _Canary()


def fuzz(
    numbers: Iterable[int],
    seed: int,
    tell: Callable[[str], None] = print,
    tries: Mapping[Try, int] = TRIES,
    cpu_seconds: float = CPU_SECONDS,
) -> dict[str, int]:
    """Makes the tries of these numbers and counts what should not be; `tell` gets a line on each."""
    kinds = [kind for kind, often in tries.items() for _ in range(often)]
    count: Counter[str] = Counter({"tried": 0, "tracebacks": 0, "hangs": 0, "executed": 0, "accepted_wrong": 0})
    manager = PluginManager.discover()
    before = Path.cwd()
    base = Path(tempfile.mkdtemp(prefix="mio-fuzz-"))
    os.environ["MIO_FUZZ_SECRET"] = SECRET
    cache = os.environ.get(CACHE)
    os.environ[CACHE] = str(base / "cache")
    try:
        if shared.lock in tries:
            shared.lock_text()  # which asks git for the state of the code
        for number in numbers:
            random_ = random.Random(f"{seed}/{number}")
            kind = kinds[random_.randrange(len(kinds))]
            folder = base / "try"
            folder.mkdir()
            os.chdir(folder)
            verdict, reason = _one(kind, random_, folder, manager, cpu_seconds)
            count["tried"] += 1
            if verdict:
                count[verdict] += 1
                tell(f"try {number} of seed {seed} ({kind.__name__}): {verdict}: {reason}")
            os.chdir(base)
            shutil.rmtree(folder)
    finally:
        os.chdir(before)
        del os.environ["MIO_FUZZ_SECRET"]
        os.environ.pop(CACHE)
        if cache is not None:
            os.environ[CACHE] = cache
        shutil.rmtree(base, ignore_errors=True)
    return dict(count)


def _one(
    kind: Try, random_: random.Random, folder: Path, manager: PluginManager, cpu_seconds: float
) -> tuple[str, str]:
    """(what should not be, why); two empty strings for a try that ended well."""
    message, wrong = "", ""
    _CANARY.seen.clear()
    try:
        with _limited(cpu_seconds):
            _CANARY.watching = True
            try:
                _, wrong = kind(random_, folder, manager)
            finally:
                _CANARY.watching = False
    except UserError as error:
        message = str(error)
        if not message.strip() or len(message) > 20_000:
            return "tracebacks", f"a refusal that is no clear line: {message!r:.200}"
    except _TooLong:
        return "hangs", f"took longer than {cpu_seconds:g} s of CPU or {WALL_SECONDS:g} s"
    except Exception as error:
        if not explained(error):
            return "tracebacks", traceback.format_exc()
    ran = [event for event in _CANARY.seen if kind is not shared.repository or "'git'" not in event]
    if (
        ran
        or any((one / "canary").exists() for one in (folder, folder.parent, folder.parent / "cache"))
        or SECRET in message + wrong
    ):
        return "executed", "; ".join(ran) or "the canary file or the secret showed up"
    return ("accepted_wrong", wrong) if wrong else ("", "")


@contextlib.contextmanager
def _limited(cpu_seconds: float) -> Iterator[None]:
    """Raises `_TooLong` in what takes too long."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise _TooLong

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)
