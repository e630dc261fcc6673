"""Instructions of one parse, one lookup and one way through a chain, by callgrind: the same on a busy machine and an idle one, so that a
change of a percent shows."""
import os
import re
import shutil
import subprocess

from . import report
from .procs import Failure
from .session import progress

LOOP = "loop"
COUNT = 1024  # a multiple of the 256 names and addresses that lookups go round
PATIENCE_S = 120


def obstacle(harness):
    if not shutil.which("valgrind"):
        return "valgrind is not installed (make deps)"
    return None if os.access(harness, os.X_OK) else f"{harness} is not built (make bench builds it)"


def measure(run, root):
    harness = root / ".build/release/instructions"
    why = obstacle(harness)
    if why:
        return run.note(f"skipped: instructions: {why}")
    # valgrind 3.19 (Debian 12) gives up on the debug information of Swift 6.3; the names of functions are enough.
    stripped = f"{run.directory}/instructions"
    _said(["strip", "-g", "-o", stripped, harness])
    harness = stripped
    names = _said([harness, "list"])[0].splitlines()
    for name in names:
        progress(f"instructions: {name}")
        value = run.attempt(f"instructions of {name}", lambda: _count(run, harness, name))
        if value is not None:
            run.instructions[name] = value
    progress("")
    loop = run.instructions.pop(LOOP, 0)
    run.instructions = {name: round(value - loop, 1) for name, value in run.instructions.items()}
    print(report.table(["instructions of the node's code", "for each"], [[n, f"{v:,.0f}"] for n, v in run.instructions.items()]),
          end="\n\n", flush=True)


def _count(run, harness, name):
    """The harness does one more than it is told to, to see that the answer is right."""
    _, errors = _said(["valgrind", "--tool=callgrind", "--toggle-collect=*instructions8measured*",
                       f"--callgrind-out-file={run.directory}/callgrind", harness, name, str(COUNT - 1)])
    found = re.search(r"Collected : (\d+)", errors)
    if not found or found.group(1) == "0":
        raise Failure("callgrind counted nothing")
    return int(found.group(1)) / COUNT


def _said(command):
    try:
        done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=PATIENCE_S, env={**os.environ, "SWIFT_DETERMINISTIC_HASHING": "1"})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(str(error)) from error
    if done.returncode != 0:
        raise Failure((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout, done.stderr
