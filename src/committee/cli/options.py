"""What the commands share: errors as one sentence, help with examples, the options of everything that trains."""

from __future__ import annotations

import errno
import functools
import inspect
import io
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from committee.cli import ends, placing
from committee.config.record import Record
from committee.data.read_options import ReadOptions
from committee.errors import CommitteeError, torch_needed_said
from committee.names import visible
from committee.terminal import say

if TYPE_CHECKING:
    from committee.config.recipe import Recipe
    from committee.data.dataset import ImageDataset
    from committee.folders.run_folder import RunFolder
    from committee.training.setting import Setting


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Group(click.Group):
    """Prints an error of this package as one sentence, without a traceback, and exits with status 2."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command; warnings of this package are printed as notes."""
        warnings.showwarning = functools.partial(_note, warnings.showwarning)
        if isinstance(sys.stdout, io.TextIOWrapper):  # one that lacks a name's characters shows escapes for them
            sys.stdout.reconfigure(errors="backslashreplace")
        with ends.stopped_once():
            try:
                with click_errors_as_text(), torch_needed_said():
                    return super().invoke(context)
            except CommitteeError as error:
                say(f"Error: {error}", err=True)
                context.exit(2)
            except OSError as error:  # from a place that no other part of the program has put into words
                if error.errno == errno.EPIPE or not error.strerror:
                    raise
                place = f"{error.filename}: " if error.filename else ""
                say(f"Error: {place}{error.strerror}; check the disk and the permissions", err=True)
                context.exit(2)
            except KeyboardInterrupt as stop:
                words, code = ends.words_and_code(stop)
                say(f"{words}.", err=True)
                context.exit(code)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The command's own arguments, parsed."""
        with click_errors_as_text():
            return super().make_context(info_name, args, parent, **extra)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of this name; where there is none, the error names the nearest and all."""
        from committee.errors import nearest

        name = args[0] if args else ""
        if name and self.get_command(context, name) is None and not name.startswith("-"):
            commands = self.list_commands(context)
            raise click.UsageError(
                f"there is no command {name!r}{nearest(name, commands)}; give one of {', '.join(commands)}"
            )
        return super().resolve_command(context, args)


@contextmanager
def click_errors_as_text() -> Iterator[None]:
    """Click's own errors, which may quote an argument such as a file's name, with hidden characters `visible`."""
    try:
        yield
    except click.ClickException as error:
        text = error.format_message()
        if (shown := visible(text, lines=True)) == text:
            raise
        raise click.UsageError(shown, getattr(error, "ctx", None)) from None


def _note(otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any) -> None:
    """A note on standard error for this package's own warnings; anything else as Python shows it."""
    if category.__name__ in ("RenamedFieldNote", "DurabilityNote", "ClusterNote"):
        say(f"Note: {message}", err=True)
    else:
        otherwise(visible(str(message), lines=True), category, *where)


def example(text: str) -> Decorator:
    """Add an example to a command's help, its lines kept as they are."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:\n" + "\n".join(
            f"  {line}" for line in text.splitlines()
        )
        return function

    return add


def not_sure_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options --coverage, --by-class and --precision."""
    share = click.FloatRange(0, 1, min_open=True, max_open=True)
    options: list[Decorator] = [
        click.option("--coverage", type=share, help="Prediction sets with the true class this often, such as .95."),
        click.option("--by-class", is_flag=True, help="Promise the coverage for the images of every class by itself."),
        click.option("--precision", type=share, help="No answer where the others would not be right this often."),
    ]
    return together(options, function)


folder_type = click.Path(path_type=Path, file_okay=False)


def seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """An option's length of time, such as 10m, in seconds."""
    from committee.metrics.formatting import seconds_of

    try:
        return None if value is None else seconds_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def interval(context: click.Context, parameter: click.Parameter, value: str) -> float | None:
    """An option's length of time in seconds, which may be 0."""
    return 0.0 if value in ("0", "0s") else seconds(context, parameter, value)


def two_numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """An option's two numbers with a comma between them."""
    try:
        low, high = (float(part) for part in value.split(",")) if value is not None else (0.0, 0.0)
    except ValueError:
        raise click.BadParameter(f"two numbers are expected, such as 0,1 or -1,1, got {value!r}") from None
    return None if value is None else (low, high)


key_type = click.Path(path_type=Path, exists=True, dir_okay=False)
run_type = click.Path(path_type=Path)  # a folder or a bundle
run_argument = click.argument("run", type=run_type)
data_dir_option = click.option(
    "--data-dir", type=folder_type, help="Folder that holds the files of a data set with a name."
)
python_option = click.option(
    "--python",
    type=key_type,
    help="For NAME.xml, NAME.pte and NAME.tflite: the Python that has converter and runtime. Default: this one.",
)
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="The root of all randomness.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cuda, mps, xpu or cpu.")
changes_option = click.option(
    "--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change one field of the recipe."
)


def together(options: Sequence[Decorator], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with several options, in this order in its help."""
    for option in reversed(options):
        function = option(function)
    return function


mirror_option = click.option(
    "--mirror",
    is_flag=True,
    help="The images show upright objects that may be mirrored (clothes, faces, parts; not characters): horizontal "
    "flips replace the recipe's own augmentation, and predictions are averaged over the image and its mirror image.",
)


def tell_of_shared_name(given: str) -> None:
    """A note where a file's recipe has the name of a shipped one, from which it differs."""
    from committee.config.recipe_parsing import load
    from committee.config.toml_files import shipped

    if given in shipped("recipe"):
        return
    recipe = load(given)
    if recipe.name in shipped("recipe") and recipe.digest() != load(recipe.name).digest():
        say(
            f"Note: {given} differs from the shipped recipe {recipe.name}, whose name it has; give it a name of its "
            'own, such as name = "mine".',
            err=True,
        )


@dataclass(frozen=True)
class RecipeOptions:
    """The options of everything that trains one committee by one recipe."""

    recipe: str | None
    members: int | None
    epochs: int | None
    mirror: bool
    changes: tuple[str, ...]

    def load(self, before: RunFolder | None = None) -> Recipe:
        """The recipe that they ask for.

        Args:
            before: the run whose recipe is meant where none is given; None for the default recipe.

        Raises:
            RecipeError: there is no such recipe, or a change does not fit it.
        """
        from committee.config.recipe_parsing import load

        numbers = {"committee.members": self.members, "training.epochs": self.epochs}
        given = [f"{field}={number}" for field, number in numbers.items() if number]
        changes = [*self.changes, *given]
        if self.recipe is None and before is not None:
            return load(str(before.recipe_file), changes, mirror=self.mirror, note=False)
        if self.recipe is not None:
            tell_of_shared_name(self.recipe)
        return load(self.recipe or "standard", changes, mirror=self.mirror)


@dataclass(frozen=True)
class TrainingOptions:
    """The options of everything that trains: where its images are, where and from what seed it runs."""

    seed: int
    workers: int
    device: str
    precision: str
    checkpoint_every: float
    executor: str
    address: str | None
    checkpoint_store: str | None
    gpu_share: float | None
    data_dir: Path | None
    read_options: ReadOptions

    def load(self, data: str) -> ImageDataset:
        """The data set of a name or a path."""
        from committee.data.catalog import load_dataset

        return load_dataset(data, data_dir=self.data_dir, **dict(self.read_options))

    def setting(self, data: str) -> Setting:
        """Where and how it trains, and how the data set is loaded again.

        Raises:
            CommitteeError: an option for a cluster is given without one.
        """
        from committee.data.summary import DataSource
        from committee.training.setting import Setting

        folder = str(self.data_dir.resolve()) if self.data_dir else None
        reload = DataSource(data=data, data_dir=folder, **dict(self.read_options))
        return Setting(
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            workers=self.workers,
            command=command_line(),
            reload=reload,
            checkpoint_seconds=self.checkpoint_every,
            cluster=placing.cluster_of(self.executor, self.address, self.checkpoint_store, self.gpu_share),
        )


def gathered(kind: type[RecipeOptions] | type[TrainingOptions] | type[ReadOptions], name: str) -> Decorator:
    """Hand a command the options of a kind as one value, under this name."""

    field_names = list(kind.model_fields) if issubclass(kind, Record) else [field.name for field in fields(kind)]

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(**options: Any) -> Any:
            own = {field: options.pop(field) for field in field_names if field in options}
            return function(**options, **{name: kind(**own)})

        return call

    return wrap


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `RecipeOptions`; the command gets them as `recipe_options`."""
    options: list[Decorator] = [
        click.option(
            "--recipe", help="A shipped recipe or a TOML file; see committee recipes list.  [default: standard]"
        ),
        click.option(
            "--members", type=click.IntRange(1), help="Members of the committee, instead of the recipe's number."
        ),
        click.option("--epochs", type=click.IntRange(1), help="Epochs of each member, instead of the recipe's number."),
        mirror_option,
        changes_option,
        gathered(RecipeOptions, "recipe_options"),
    ]
    return together(options, function)


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `TrainingOptions`; the command gets them as `training_options`."""
    workers = click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        help="Processes on the CPU; changes no result.  [default: one for each core]",
    )
    precision = click.option("--precision", default="auto", show_default=True, help="auto, bfloat16 or float32.")
    checkpoint_every = click.option(
        "--checkpoint-every",
        metavar="TIME",
        default="30s",
        show_default=True,
        callback=interval,
        help="How much of a member's training an interruption may cost, such as 10s or 5m: it is saved so often, in "
        "the middle of long epochs too, unless saving would take more than 1 % of the time; 0 saves it after every "
        "step. Changes no result.",
    )
    options: list[Decorator] = [
        seed_option,
        workers,
        device_option,
        precision,
        checkpoint_every,
        *placing.cluster_options(),
        data_dir_option,
        read_options,
    ]
    return together([*options, gathered(TrainingOptions, "training_options")], function)


def _image_shape(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """An option's height, width and channels (1 where they are not said)."""
    numbers = (value or "").replace("x", ",").split(",")
    if value is None:
        return None
    if len(numbers) not in (2, 3) or not all(number.strip().isdigit() and int(number) for number in numbers):
        raise click.BadParameter(f"height,width or height,width,channels is expected, such as 20,15, got {value}")
    return (*map(int, numbers), *(() if len(numbers) == 3 else (1,)))


def read_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `ReadOptions`; the command gets them as `read_options`."""
    options: list[Decorator] = [
        click.option("--image-size", type=click.IntRange(4, 1024), help="Resize images to this many pixels a side."),
        click.option(
            "--label",
            metavar="COLUMN",
            help="The column of labels in a table: its name, or its position from 0 (-1 for the last).",
        ),
        click.option(
            "--shape",
            metavar="H,W[,C]",
            callback=_image_shape,
            help="Height, width and channels of images that are rows of numbers, such as 20,15 or 32,32,3.",
        ),
        click.option(
            "--pixel-range",
            metavar="LOW,HIGH",
            callback=two_numbers,
            help="The values that mean black and white, for numbers that are no pixels.  [default: found from all "
            "training images]",
        ),
        click.option(
            "--groups",
            metavar="GROUPS",
            help="Images that belong together (of one patient, writer or board) and stay on one side of every split: "
            "path:1 for the first folder of an image's path, name:PATTERN for a part of its name, a column of the "
            "data's own table, or a CSV file.",
        ),
        click.option(
            "--channels",
            type=click.Choice(["grey", "colour"]),
            help="Convert all images to grey or to colour; without it, a mixture is refused.",
        ),
        click.option(
            "--skip-unreadable", is_flag=True, help="Leave out image files that cannot be read, instead of stopping."
        ),
        click.option(
            "--labels",
            metavar="FILE",
            help="Corrected labels of the training images, a table that committee audit --apply writes; images that it "
            "does not list are left out.",
        ),
    ]
    return together([*options, gathered(ReadOptions, "read_options")], function)


def command_line() -> str:
    """The command as it was given, to be given again."""
    return shlex.join(["committee", *sys.argv[1:]])
