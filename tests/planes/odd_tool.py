"""A tool that copies a file as it should, or misbehaves: `odd_tool.py HOW SOURCE TARGET`. Only the standard library.

Where `PIDS` names a file, it writes there which processes it has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def note(pid: int) -> None:
    if pids := os.environ.get("PIDS"):
        with open(pids, "a") as file:
            file.write(f"{pid}\n")


def main(how: str, source: str, target: str) -> int:
    note(os.getpid())
    if how.startswith("exit"):
        print(f"cannot open {source} for {target}; see https://help.example.org/?token=abc", file=sys.stderr)
        return int(how.removeprefix("exit"))
    if how == "nothing":
        return 0
    content = Path(source).read_bytes()
    if how == "short":
        content = content[:-1]
    elif how == "long":
        content += b"!"
    elif how == "wrong":
        content = bytes([content[0] ^ 1]) + content[1:]
    elif how == "link":
        os.symlink(source, target)
        return 0
    elif how == "directory":
        os.mkdir(target)
        return 0
    elif how == "killed":
        os.kill(os.getpid(), 9)
    elif how == "flood":
        for _ in range(2_000):
            os.write(1, b"\r" + b"x" * 10_000)
            os.write(2, b"\xff" * 1_000)
    elif how in ("forks", "hangs"):
        code = "import os, time; os.setsid(); time.sleep(600)"
        note(subprocess.Popen([sys.executable, "-c", code]).pid)
        if how == "hangs":
            Path(target).write_bytes(content[:1])
            time.sleep(600)
    elif how == "endless":
        with open(target, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * (1 << 20))
                time.sleep(0.001)
    elif how == "litters":
        Path(f"{target}.part").write_bytes(content)
        os.mkdir(f"{target}.d")
        Path(f"{target}.d", "more").write_bytes(b"more")
    elif how.startswith("slow"):
        time.sleep(float(how.removeprefix("slow")))
    elif how == "environment":
        content = ",".join(sorted(os.environ)).encode()
    shutil.copyfile(source, target) if how == "copy" else Path(target).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
