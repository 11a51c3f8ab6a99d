"""Make a release: check, set the version, test, build, commit, tag; nothing is uploaded. `make release VERSION=0.5.1`.

Refused are a tree with changes, a version that is tagged already or not above the last one, and one without a section
in CHANGELOG.md. Where a later step fails, version.py is put back and nothing is committed.

RELEASE_TESTS are arguments of pytest, to try this script: RELEASE_TESTS=tests/test_recipe.py runs these tests alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION_FILE = ROOT / "src" / "committee" / "version.py"
CHANGELOG = ROOT / "CHANGELOG.md"


def run(*command: str) -> str:
    print("$", *command, flush=True)
    return subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def show(*command: str) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, cwd=ROOT, check=True)


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def refuse_unready(version: str) -> None:
    """End with a sentence where a release cannot be made."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"release: expected a version such as 0.5.1, got {version!r}; give make release VERSION=0.5.1")
    if changed := run("git", "status", "--porcelain"):
        sys.exit(f"release: the tree has changes; commit or stash them:\n{changed}")
    if run("git", "tag", "--list", f"v{version}"):
        sys.exit(f"release: the tag v{version} exists; give another version")
    known = [number(tag.removeprefix("v")) for tag in run("git", "tag", "--list", "v[0-9]*").split()]
    if known and number(version) <= max(known):
        sys.exit(f"release: {version} is not above the last release; give another version")
    if not re.search(rf"^## {re.escape(version)}\b", CHANGELOG.read_text(), re.MULTILINE):
        sys.exit(f"release: CHANGELOG.md has no section {version}; write one")


def set_version(version: str) -> None:
    text, count = re.subn(
        r'^version = "[^"]*"$', f'version = "{version}"', VERSION_FILE.read_text(), count=1, flags=re.MULTILINE
    )
    assert count == 1, VERSION_FILE
    VERSION_FILE.write_text(text)


def date_the_section(version: str) -> None:
    today = datetime.now(UTC).date().isoformat()
    heading = re.compile(rf"^## {re.escape(version)}$", re.MULTILINE)
    CHANGELOG.write_text(heading.sub(f"## {version} ({today})", CHANGELOG.read_text()))


def main(version: str) -> None:
    refuse_unready(version)
    tests = os.environ.get("RELEASE_TESTS", "").split()
    try:
        set_version(version)
        date_the_section(version)
        show("make", "check")
        show(*([sys.executable, "-m", "pytest", *tests] if tests else ["make", "test"]))
        show("make", "wheels")
        if run("git", "diff", "--name-only", "HEAD", "--", VERSION_FILE.as_posix(), CHANGELOG.as_posix()):
            show("git", "commit", "--all", "--message", f"Version {version}")
        show("git", "tag", "--annotate", f"v{version}", "--message", f"Version {version}")
    except (subprocess.CalledProcessError, KeyboardInterrupt) as error:
        run("git", "checkout", "--", VERSION_FILE.as_posix(), CHANGELOG.as_posix())
        sys.exit(f"release: {error}; version.py and CHANGELOG.md are as before, nothing is tagged")
    built = ", ".join(str(path.relative_to(ROOT)) for path in sorted((ROOT / "dist").glob(f"committee-{version}*")))
    print(f"Version {version} is built ({built}) and tagged v{version}; push the commit and the tag to publish it.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
