"""What a plugin leaves alone: the network, and the state that it shares with everything else in its process."""

from __future__ import annotations

import contextlib
import locale
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class NetworkRefusedError(OSError):
    """A connection that was asked for while checks run."""


_CONNECTING = ("connect", "connect_ex", "sendto")
_RESOLVING = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")


@contextlib.contextmanager
def no_network() -> Iterator[list[str]]:
    """Refuses connections and names of hosts, with an `OSError`; gives the list of what was asked for, which grows as
    it happens: a plugin may catch the error and go on without a word. Sockets between processes are let through."""
    asked: list[str] = []
    methods = {name: getattr(socket.socket, name) for name in _CONNECTING}
    own = {name: vars(socket.socket).get(name) for name in _CONNECTING}
    functions = {name: getattr(socket, name) for name in _RESOLVING}

    def refuse(what: str) -> None:
        asked.append(what)
        raise NetworkRefusedError(f"there is no network while a plugin is checked: {what} was asked for")

    def connecting(original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, *arguments: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse(str(arguments[-1]))
            return original(self, *arguments)

        return connect

    def resolve(host: Any, *_: Any, **__: Any) -> None:
        refuse(str(host))

    for name, method in methods.items():
        setattr(socket.socket, name, connecting(method))
    for name in functions:
        setattr(socket, name, resolve)
    try:
        yield asked
    finally:
        for name, method in own.items():
            if method is None:
                delattr(socket.socket, name)  # what it inherits is behind
            else:
                setattr(socket.socket, name, method)
        for name, function in functions.items():
            setattr(socket, name, function)


class _Part(NamedTuple):
    """A part of the process's state: how it is read and set back."""

    read: Callable[[], Any]
    restore: Callable[[Any], Any]


def _numpy_state() -> Any:
    kind, keys, *rest = np.random.get_state(legacy=True)  # the state that everybody shares is what is looked at
    return kind, np.asarray(keys).tobytes(), *rest


def _set_numpy(state: Any) -> None:
    kind, keys, *rest = state
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))


def _set_environment(state: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(state)


def _set_filters(state: Any) -> None:
    warnings.filters[:] = state  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]  # as `catch_warnings` does


def _logging_state() -> Any:
    root = logging.root
    return root.level, tuple(root.handlers), root.manager.disable


def _set_logging(state: Any) -> None:
    logging.root.level, handlers, logging.root.manager.disable = state
    logging.root.handlers[:] = handlers


def _signals() -> dict[int, Any]:
    return {int(one): signal.getsignal(one) for one in signal.valid_signals()}


def _set_signals(state: dict[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for one, handler in state.items():
            if handler is not None and signal.getsignal(one) is not handler:
                signal.signal(one, handler)


def _hooks() -> Any:
    return sys.excepthook, sys.displayhook, threading.excepthook


def _set_hooks(state: Any) -> None:
    sys.excepthook, sys.displayhook, threading.excepthook = state


_OF_IMPORTS = frozenset(
    {
        *("the environment", "warnings filters", "the root logger", "how NumPy treats errors"),
        *("Python's `random`", "NumPy's shared random numbers", "torch's random numbers"),
    }
)
"""What packages of others are known to change when they are imported, which is not the plugin's doing: what a plugin
changes itself, it changes at the next check too."""

_PARTS = {
    "Python's `random`": _Part(random.getstate, random.setstate),
    "NumPy's shared random numbers": _Part(_numpy_state, _set_numpy),
    "how NumPy treats errors": _Part(np.geterr, lambda state: np.seterr(**state)),
    "the working folder": _Part(os.getcwd, os.chdir),
    "the environment": _Part(lambda: dict(os.environ), _set_environment),
    "warnings filters": _Part(lambda: list(warnings.filters), _set_filters),
    "the root logger": _Part(_logging_state, _set_logging),
    "signal handlers": _Part(_signals, _set_signals),
    "hooks of `sys` and `threading`": _Part(_hooks, _set_hooks),
    "the locale": _Part(lambda: locale.setlocale(locale.LC_ALL), lambda state: locale.setlocale(locale.LC_ALL, state)),
    "the recursion limit": _Part(sys.getrecursionlimit, sys.setrecursionlimit),
    "how processes are started": _Part(
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda state: multiprocessing.set_start_method(state, force=True),
    ),
    "the timeout of sockets": _Part(socket.getdefaulttimeout, socket.setdefaulttimeout),
}


def _torch_parts() -> dict[str, _Part]:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_dtype"):  # not there, or half imported
        return {}
    return {
        "torch's random numbers": _Part(
            lambda: torch.get_rng_state().numpy().tobytes(),
            lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
        ),
        "torch's default dtype": _Part(torch.get_default_dtype, torch.set_default_dtype),
        "torch's threads": _Part(torch.get_num_threads, torch.set_num_threads),
        "whether torch makes gradients": _Part(torch.is_grad_enabled, torch.set_grad_enabled),
        "whether torch is deterministic": _Part(
            torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
        ),
        "torch's precision of matrix products": _Part(
            torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        ),
    }


_UNUSUAL = 0x6D696F
"""A seed that no plugin takes: whoever seeds generators that everybody shares is seen to change them."""


@contextlib.contextmanager
def unusual_numbers() -> Iterator[None]:
    """The random numbers that everybody shares come from a seed of their own, and are what they were afterwards: a
    process that was seeded as a plugin seeds it would not show that the plugin does."""
    state = GlobalState()
    random.seed(_UNUSUAL)
    np.random.seed(_UNUSUAL)
    if "torch's random numbers" in _torch_parts():
        sys.modules["torch"].manual_seed(_UNUSUAL)
    try:
        yield
    finally:
        state.restore_numbers()


def package_of(target: str) -> str:
    """The top package, or the module, that is imported for a plugin's target (see `discovery.Candidate`)."""
    place = target.partition(":")[0]
    return Path(place).stem if os.sep in place or place.endswith(".py") else place.partition(".")[0]


class GlobalState:
    """The state of the process now. What is changed later can be told, and set back."""

    def __init__(self, own: str = "") -> None:
        """`own` is the package of the plugin, whose import excuses nothing."""
        self._own = own
        self._parts = {**_PARTS, **_torch_parts()}
        self._before = {name: part.read() for name, part in self._parts.items()}
        self._modules = set(sys.modules)

    def restore_numbers(self) -> None:
        """Sets the random numbers that everybody shares back, and nothing else."""
        for name in ("Python's `random`", "NumPy's shared random numbers", "torch's random numbers"):
            if name in self._parts:
                self._parts[name].restore(self._before[name])

    def changes(self) -> list[str]:
        """What has changed since, which is set back. What packages of others do when they are imported is left out."""
        imported = {name.partition(".")[0] for name in sys.modules.keys() - self._modules}
        imported -= {self._own, *sys.stdlib_module_names}
        changed = []
        for name, part in self._parts.items():
            before = self._before[name]
            if part.read() != before:
                part.restore(before)
                if not (imported and name in _OF_IMPORTS):
                    changed.append(name)
        return changed
