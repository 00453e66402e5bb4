"""Kernels on demand: numba is imported, and compiles or loads from its cache, when the first large system is met."""

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

_loaded: dict[str, Any] = {}
_lock = threading.Lock()
_callback: Callable[[], None] | None = None


def on_compile(callback: Callable[[], None] | None) -> None:
    """Be told when numba starts to compile kernels, which takes some seconds once per machine.

    Parameters
    ----------
    callback : callable without arguments, or None
        Called from the thread that needs the kernels, at most once for each module of kernels, and only if
        they are not in numba's cache. None: nobody is told.
    """
    global _callback
    _callback = callback


def kernels(name: str) -> Any:
    """The module ``hlik.linalg.kernels.<name>``, compiled."""
    if name not in _loaded:
        with _lock:
            if name not in _loaded:
                _loaded[name] = _import_announced(f"{__package__}.kernels.{name}")
    return _loaded[name]


def _import_announced(module: str) -> Any:
    """Import a module; numba's own events tell a compilation from a load from the cache."""
    from numba.core import event

    class Announce(event.Listener):
        told = False

        def on_start(self, event: Any) -> None:
            if not self.told and _callback is not None:
                self.told = True
                _callback()

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Announce()):
        return import_module(module)
