"""The page's files in `committee/web`, read once: a path of the server -> its bytes and type; nothing else is there."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}

FIRST = "index.html"


@dataclass(frozen=True)
class PageFile:
    """A file of the page."""

    content: bytes
    kind: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """The page's files by the server's paths: `/page/NAME`, and `/` for `index.html`.

    They lie beside the modules of `committee.web`; only files of the kinds in `TYPES` are served.
    """
    found = {}
    for file in files("committee.web").iterdir():
        ending = file.name[file.name.rfind(".") :]
        if file.is_file() and ending in TYPES:
            content = file.read_bytes()
            found[f"/page/{file.name}"] = PageFile(content, TYPES[ending], f'"{sha256(content).hexdigest()[:32]}"')
    if f"/page/{FIRST}" in found:
        found["/"] = found[f"/page/{FIRST}"]
    return found
