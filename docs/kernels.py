"""MkDocs hook: kernels of notebooks report errors only; they warn of the open ports that they are reached by."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FOLDER = tempfile.TemporaryDirectory(prefix="hlik-docs-")  # removed at the end of the process


def on_startup(command: str, dirty: bool) -> None:
    """Give the kernels a profile of their own."""
    profile = Path(FOLDER.name) / "profile_default"
    profile.mkdir()
    (profile / "ipython_kernel_config.py").write_text('c.IPKernelApp.log_level = "ERROR"\n', encoding="utf-8")
    os.environ["IPYTHONDIR"] = FOLDER.name
