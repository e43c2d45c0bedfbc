"""Makes .venv from deploy/constraints.txt, once: standard library only, and quick when there is nothing to do.

Nothing about brokers here: `transfer2go up` fetches those.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "prepared"
LOCK = ROOT / "deploy" / "constraints.txt"
LEFTOVERS = (".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "dist")


def fingerprint() -> str:
    """What the environment is made from; another value means that it is made again."""
    import tomllib  # here, so that an older Python gets as far as being told that it is one

    described = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    package = json.dumps({name: described[name] for name in ("build-system", "project")}, sort_keys=True)
    parts = (sys.version.encode(), str(ROOT).encode(), LOCK.read_bytes(), package.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(*command: str) -> None:
    """Run it quietly; on failure show what it said and stop with one line."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:])
        shown = " ".join(command[:6])
        say(f"prepare: `{shown} …` ended with {done.returncode}; see above; then run the same make again")
        raise SystemExit(5)


def make_venv() -> Path:
    """A fresh venv with pip; its Python. Debian splits ensurepip off, so the machine's own pip may have to help."""
    if VENV.exists():
        shutil.rmtree(VENV)
    python = VENV / "bin" / "python"
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return python
    say("prepare: this Python has no ensurepip; trying its own pip instead")
    run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV))
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "pip")
    return python


def prepare() -> None:
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    started = time.monotonic()
    say(f"preparing .venv with Python {sys.version.split()[0]}: some 110 pinned packages, a minute at most")
    python = str(make_venv())
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
    run(*pip, "--requirement", str(LOCK))
    run(*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    run(python, "-m", "pip", "--disable-pip-version-check", "check")
    STAMP.write_text(wanted)
    say(f".venv is ready ({time.monotonic() - started:.0f} s)")


def clean() -> None:
    for name in LEFTOVERS:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in [p for top in ("streams", "agents", "schemas", "tests") for p in (ROOT / top).rglob("__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have an older one
        say(f"prepare: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
        raise SystemExit(5)
    try:
        clean() if "--clean" in sys.argv[1:] else prepare()
    except KeyboardInterrupt:
        say("prepare: interrupted; the next make begins it anew")
        raise SystemExit(130) from None
    except OSError as error:
        say(f"prepare: {error.strerror} ({error.filename}); mend that, then run the same make again")
        raise SystemExit(5) from None
