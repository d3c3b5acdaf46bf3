"""Commands with a time limit, of which nothing is left running."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRACE = 20  # seconds; pytest-xdist waits for its workers for ten


class PartError(Exception):
    """A part of a run that ended before it had a result."""


def python(module: str) -> list[str]:
    """The beginning of a command that runs a module with this Python."""
    return [sys.executable, "-m", module]


def run(
    command: list[str], seconds: float, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository, to its end or to its time limit; then all that it started is killed.

    Args:
        command: words.
        seconds: the limit; a command that reaches it is interrupted, has GRACE seconds for its report, and gives 124.
        environment: variables beside those of this process.
    Returns:
        its exit status, and what it said on both streams.
    """
    places = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # as in an installation
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": places, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, status = child.communicate(timeout=seconds)[0], child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGINT)
        try:
            said = child.communicate(timeout=GRACE)[0]
        except subprocess.TimeoutExpired:  # it is deaf, as where it waits for a device, but what it said counts
            os.killpg(child.pid, signal.SIGKILL)
            said = child.communicate()[0]
        said, status = f"{said}\nstopped after {seconds:.0f} s", 124
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, status, said)


def tail(text: str) -> str:
    """The end of what a command said."""
    return text.strip()[-1500:]
