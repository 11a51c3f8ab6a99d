"""The commands of the server: serve, and data corrections."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from committee import disk
from committee.cli import ends
from committee.cli.inspect import data
from committee.cli.options import device_option, example, json_option, not_sure_options, run_argument, seconds
from committee.errors import CommitteeError, counted, require
from committee.names import json_text, visible
from committee.terminal import console, plain, say

if TYPE_CHECKING:
    from committee.serve.app import State

TOKEN = "COMMITTEE_TOKEN"
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def size(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """An option's number of bytes, such as 16M."""
    found = re.fullmatch(r"([0-9]{1,12})([kmg]?)b?", value.strip().lower())
    if not found or int(found[1]) == 0:
        raise click.BadParameter(f"a number of bytes is expected, such as 500k or 16M, got {value}")
    return int(found[1]) * UNITS[found[2]]


@click.command()
@run_argument
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; beyond this machine with a token."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with the token that clients must send; made with a new one if it is not there.  [default: the "
    f"environment variable {TOKEN}]",
)
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name of this machine in Host headers.")
@click.option(
    "--corrections",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for what people correct.  [default: RUN-corrections]",
)
@click.option("--no-corrections", is_flag=True, help="Store none.")
@click.option("--max-body", default="16M", show_default=True, callback=size, metavar="SIZE", help="Bytes of a request.")
@click.option(
    "--max-memory",
    default="32M",
    show_default=True,
    callback=size,
    metavar="SIZE",
    help="Bytes of all of them together.",
)
@click.option(
    "--max-pixels", type=click.IntRange(1), default=16_000_000, show_default=True, help="Pixels of an image as given."
)
@click.option("--max-images", type=click.IntRange(1), default=64, show_default=True, help="Images of a request.")
@click.option("--max-queue", type=click.IntRange(1), default=1024, show_default=True, help="Images that may wait.")
@click.option("--max-connections", type=click.IntRange(8), default=2000, show_default=True, help="Open connections.")
@click.option(
    "--timeout",
    default="30s",
    show_default=True,
    callback=seconds,
    metavar="TIME",
    help="For a request, once it is there.",
)
@click.option(
    "--read-timeout",
    default="10s",
    show_default=True,
    callback=seconds,
    metavar="TIME",
    help="For a client to send its headers; and its body, beside a second for every 10,000 bytes.",
)
@device_option
@not_sure_options
@click.option("--verbose", is_flag=True, help="A line for each request, on standard error.")
@example("committee serve runs/mnist-5k-standard-seed0\ncommittee serve digits.onnx --host 0.0.0.0 --token-file token")
def serve(
    run: Path,
    port: int,
    host: str,
    token_file: Path | None,
    hosts: tuple[str, ...],
    corrections: Path | None,
    no_corrections: bool,
    max_body: int,
    max_memory: int,
    max_pixels: int,
    max_images: int,
    max_queue: int,
    max_connections: int,
    timeout: float,
    read_timeout: float,
    device: str,
    coverage: float | None,
    precision: float | None,
    by_class: bool,
    verbose: bool,
) -> None:
    """Answer programs by HTTP, and people by a page, with the committee of RUN.

    RUN is a run folder, a bundle, or an .onnx file of committee export. The page is at /, the API is described at
    /openapi.json and in docs/serve.md. The server ends with Ctrl-C or SIGTERM, once what it has accepted is answered.

    Whoever reaches the address may ask. On 127.0.0.1 these are the programs of this machine; beyond it, a token is
    needed, which nothing encrypts: put a proxy with TLS before it where others can listen.
    """
    for module in ("fastapi", "httptools", "python_multipart", "uvicorn"):
        require(module, extra="serve", purpose="Serving")
    from committee.ensemble.classifier import is_exported
    from committee.serve.guard import Access, is_loopback
    from committee.serve.limits import ServeLimits
    from committee.serve.served import Asked
    from committee.serve.server import ServeOptions, corrections_folder
    from committee.serve.server import serve as run_server

    if not run.exists():
        raise CommitteeError(f"{run}: a run folder, a bundle or an .onnx file is expected, got nothing; check the path")
    token = token_of(token_file)
    if token is None and not is_loopback(host):
        raise CommitteeError(
            f"whoever reaches {host} could ask this committee; give --token-file FILE, which is made if it is not "
            f"there, or set {TOKEN}"
        )
    folder, note = (None, None) if no_corrections else corrections_folder(corrections, run)
    if note:
        say(f"Note: {note}", err=True)
    limits = ServeLimits(
        body=max_body,
        memory=max(max_memory, max_body),
        pixels=max_pixels,
        images=max_images,
        queue=max_queue,
        connections=max_connections,
        seconds=timeout,
        header_seconds=read_timeout,
        body_seconds=read_timeout,
    )

    page = ""

    def started(address: str, taken: int) -> None:
        name = f"[{address}]" if ":" in address else address
        say(f"Listening on http://{name}:{taken}; loading {run} ...", err=True)

        shown = own_address() if address == "0.0.0.0" else "[::1]" if address == "::" else name
        nonlocal page
        page = f"http://{shown}:{taken}/" + (f"#token={token}" if token else "")

    def ready(state: State) -> None:
        assert state.served is not None
        info = state.served.info
        what = counted(info.members, "member")
        say(
            f"Ready: {info.name} ({what}, {counted(len(info.classes), 'class').replace('classs', 'classes')}) at {page}"
        )
        if folder:
            say(f"Corrections: {folder}", err=True)

    if not is_exported(run):
        ends.note_missing_members(run)
    asked = Asked(coverage, precision, by_class)
    options = ServeOptions(run, host, port, Access(hosts, token), limits, folder, device, verbose, asked)
    run_server(options, started, ready, lambda line: say(line, err=True))


def own_address() -> str:
    """This machine's address for others, by the route that the system would take; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that is nobody's
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def token_of(file: Path | None) -> str | None:
    """The token of a file, which is made if it is not there, else of the environment; None where there is none.

    Raises:
        CommitteeError: it is too short to be safe, or cannot be sent in a header.
    """
    if file is None:
        token, where = os.environ.get(TOKEN, ""), TOKEN
        if not token:
            return None
    else:
        if not file.exists():
            with disk.failures_said(file):
                handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w") as stream:
                    stream.write(secrets.token_urlsafe(24) + "\n")
            say(f"Token: a new one is in {file}", err=True)
        try:
            token, where = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, UnicodeError):
            raise CommitteeError(
                f"{file}: a file with a token is expected, got one that cannot be read; check it"
            ) from None
    if not re.fullmatch(r"[!-~]{16,200}", token):
        raise CommitteeError(
            f"{where}: a token of 16 to 200 letters, digits and signs without spaces is expected, got another; make "
            'one with: python -c "import secrets; print(secrets.token_urlsafe(24))"'
        )
    return token


@data.command("corrections")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
@example("committee data corrections runs/mnist-5k-standard-seed0-corrections")
def data_corrections(folder: Path, as_json: bool) -> None:
    """What people corrected: counts by class, and how to train with it.

    FOLDER is where committee serve stores corrections: class folders of the images that the committee saw, the images
    as they were given, and a line for each correction.
    """
    from rich.table import Table

    from committee.serve.corrections import IMAGES, class_folder, counts, read_corrections, standing

    corrections = read_corrections(folder)
    found = counts(corrections)
    if as_json:
        rows = [
            {"label": label, "answer": answer, "images": number} for (label, answer), number in sorted(found.items())
        ]
        say(json_text({"folder": str(folder), "images": sum(found.values()), "corrections": rows}))
        return
    table = Table(title=plain(f"{folder}: {counted(sum(found.values()), 'image')}"))
    for heading in ("it is", "the committee said", "images"):
        table.add_column(heading, justify="right" if heading == "images" else "left")
    for (label, answer), number in sorted(found.items()):
        table.add_row(plain(label), plain(answer), f"{number:,}")
    console().print(table)
    again = sum(label == answer for label, answer in found.elements())
    if again:
        say(f"Note: {again:,} of them confirm what the committee said")
    renamed = sorted({each.label for each in standing(corrections) if class_folder(each.label) != each.label})
    for label in renamed[:5]:
        say(f"Note: the folder of class {visible(label)} is called {class_folder(label)}")
    images = shlex.quote(str(folder / IMAGES))
    say(
        "To train with them, look through them first, then add them to your own class folders and train anew:",
        f"  cp -r {images}/. photos/train/    # photos/train/CLASS/..., with photos/test/ apart from it",
        "  committee train photos/",
        "Other formats: committee data convert makes one layout of any data set, and nothing joins two of them; join "
        "them where they were made. Never add corrections to test images, whose choice must not depend on answers.",
    )
