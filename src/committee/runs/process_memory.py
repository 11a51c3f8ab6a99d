"""How much memory processes have of their own, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """The numbers of a process and of all below it, parents first; of the process alone where there is no /proc."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir() if PROC.exists() else ():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has ended meanwhile
                continue
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [root]
    for process in found:  # grows on the way
        found += children.get(process, [])
    return found


def memory(process: int) -> tuple[int, int]:
    """A process's memory in bytes, a page that n processes share counted as 1/n: all of it, and its own.

    Its own leaves out pages that are copies of files (program code, mapped images), which the system can drop whenever
    it needs the room. Zeros where the process has ended, or the system is not Linux.
    """
    try:
        lines = (PROC / str(process) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    whole = values.get("Pss", 0)
    return whole, whole - values.get("Pss_File", 0)
