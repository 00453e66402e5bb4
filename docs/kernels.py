"""MkDocs hook: kernels of notebooks talk through sockets of the file system, not through open ports (and warnings)."""

from __future__ import annotations

import os


def on_startup(command: str, dirty: bool) -> None:
    """Set the default transport of Jupyter's kernels."""
    if os.name == "posix":
        from jupyter_client.connect import ConnectionFileMixin

        ConnectionFileMixin.transport.default_value = "ipc"
