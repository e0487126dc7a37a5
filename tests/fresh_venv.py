"""A virtual environment of its own that sees the packages of the running one, and installs offline."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path


class FreshVenv:
    """Its ``bin`` has python, pip, pytest and rlgan; what is installed there is seen nowhere else."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / "bin"
        purelib = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        seen = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        (Path(purelib) / "running_interpreter.pth").write_text(seen)
        for name in ("pip", "pytest", "rlgan"):
            script = self.bin / name
            script.write_text(f'#!/bin/sh\nexec "{self.bin}/python" -m {name} "$@"\n')
            script.chmod(0o755)

    def run(self, script: str, where: Path, timeout: float = 400.0) -> subprocess.CompletedProcess[str]:
        """Run a bash script that ends at its first failure."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "RLGAN_"))},
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "false",  # pip's words for `--no-build-isolation`
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=where,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """All that was printed, for messages."""
    return f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
