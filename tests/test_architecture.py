"""The house keeps its rules: the map, the seal, where members are averaged, what types say, who knows file names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "committee"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}


def test_importing_the_package_is_cheap() -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'pydantic', 'PIL', 'rich'}"
    code = f"import sys, committee; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_exists() -> None:
    import committee

    for name in committee.__all__:
        assert getattr(committee, name) is not None


# --- the map ----------------------------------------------------------------------------------------------------------


def drawn_files(page: str, top: str) -> list[str]:
    """The files of the trees in a page whose first line is `top`, as paths below it; a folder's name ends in "/".

    Two spaces indent a level; what follows a name, after two spaces or more, is its description.
    """
    found = []
    for block in re.findall(rf"^```\n{re.escape(top)}[^\n]*\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        folders: list[str] = []
        for line in block.splitlines():
            indent, names = re.match(r"( *)(.*?)(?: {2,}.*)?$", line).groups()  # type: ignore[union-attr]
            del folders[len(indent) // 2 - 1 :]
            for name in names.split(", "):
                if name.endswith("/"):
                    folders.append(name)
                else:
                    found.append("".join(folders) + name)
    return found


def package_files() -> list[str]:
    """Every file of the package but what compilers and editors leave behind."""
    made = {".so", ".pyc", ".pyd", ".o", ".dylib"}
    paths = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in made]
    return [path.relative_to(PACKAGE).as_posix() for path in paths]


def test_the_tree_is_read_as_it_is_drawn() -> None:
    page = "```\nsrc/committee/     top\n  a.py    what, it is\n  b/\n    c.py, d.py  both\n    e/f.toml\n  g.py\n```\n"
    assert drawn_files(page, "src/committee/") == ["a.py", "b/c.py", "b/d.py", "b/e/f.toml", "g.py"]


def test_the_map_names_every_file_and_no_other() -> None:
    drawn = drawn_files((ROOT / "docs" / "architecture.md").read_text(), "src/committee/")
    assert sorted(drawn) == sorted(package_files())


# --- the seal ---------------------------------------------------------------------------------------------------------


def uses(tree: ast.AST, name: str) -> int:
    """How often a name is called or handed on; its definition and its imports do not count."""
    return sum(
        (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)
        for node in ast.walk(tree)
    )


def test_uses_are_calls_and_what_is_handed_on() -> None:
    source = "from a import open_test\ndef open_test(): ...\nopen_test(1)\nf = dataset.open_test\n'open_test('"
    assert uses(ast.parse(source), "open_test") == 2


def test_few_places_open_the_sealed_images() -> None:
    counts = {name: uses(tree, "open_test") for name, tree in TREES.items()}
    assert {name: count for name, count in counts.items() if count} == {
        "data/convert.py": 1,  # written into another format
        "runs/check.py": 1,  # committee data check, which trains and chooses nothing
        "runs/evaluation.py": 1,
        "runs/preparing.py": 1,  # written into shards, sealed again there
        "studies/run.py": 2,  # the end of a study; the published protocol
        "studies/training.py": 1,  # transductive pseudo-labels
        "studies/self_training.py": 1,  # likewise
    }


def test_only_the_data_set_touches_the_sealed_images() -> None:
    own = {  # objects whose own `_images` is something else
        "sklearn.py": "self",
    }
    touching = {
        (name, ast.unparse(node.value))
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "_images" and ast.unparse(node.value) != own.get(name)
    }
    assert {name for name, _ in touching} == {"data/dataset.py"}
    assert not [name for name, text in SOURCES.items() if re.search(r"""["']_images["']""", text)]


# --- one place where members are averaged -----------------------------------------------------------------------------

MEMBERS_FIRST = {"members", "probabilities", "proba", "predictions", "honest", "logits", "softmax"}
"""Words in the names of what may have members along its first axis, such as `member_probabilities`."""

AVERAGES = {"mean", "nanmean", "average", "sum", "nansum", "median", "nanmedian"}
OF_A_LIST = {"sum", "fsum", "fmean", "mean"}  # Python's own, which take no axis
LIBRARIES = {"np", "numpy", "torch", "math", "statistics"}
QUESTIONS = {"isnan", "isfinite", "isin", "equal"}
PASSING_ON = {"list", "tuple", "sorted", "reversed", "zip", "enumerate", "map", "filter", "iter", "next", "abs"}

AVERAGING_ALLOWED = {
    ("metrics/familiarity.py", "_doubt"): "no prediction, but how much members doubt theirs",
}


class Averaging(ast.NodeVisitor):
    """Finds averages over the first axis of what is called like members, or was computed from it in the same function.

    Yes-or-no values are left out: how many members differ, or may predict an image, is a count and no average of them.
    """

    def __init__(self) -> None:
        self.known: dict[str, bool] = {}
        self.function = ""
        self.found: list[tuple[str, str]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self.known = self.known, dict(self.known)
        function, self.function = self.function, node.name
        for part in node.body:
            self.visit(part)
        self.known, self.function = outer, function

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.learn(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)
            self.learn(node.target, node.value)

    def visit_For(self, node: ast.For) -> None:
        self.learn(node.target, node.iter)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name) and self.is_of_members(node.value):
            self.known[node.target.id] = True

    def visit_ListComp(self, node: ast.ListComp) -> None:
        for part in node.generators:
            self.learn(part.target, part.iter)
        self.generic_visit(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        for part in node.generators:
            self.learn(part.target, part.iter)
        self.generic_visit(node)

    def learn(self, target: ast.expr, value: ast.expr) -> None:
        """What a name stands for from now on."""
        if isinstance(target, ast.Name):
            self.known[target.id] = self.is_of_members(value)
        elif isinstance(target, ast.Tuple | ast.List):
            pairwise = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            for number, each in enumerate(target.elts):
                self.learn(each, value.elts[number] if pairwise else value)  # type: ignore[attr-defined]

    def named(self, name: str) -> bool:
        return self.known.get(name, is_called_like_members(name))

    def is_of_members(self, node: ast.expr | None) -> bool:
        """Whether a value is computed from something that is called like members, numbers and not yes-or-no."""
        match node:
            case ast.Name(id=name):
                return self.named(name)
            case ast.Attribute(value=inner, attr=name):
                return is_called_like_members(name) or (name == "T" and self.is_of_members(inner))
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Invert() | ast.Not()) | ast.Constant():
                return False
            case ast.UnaryOp(operand=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
                return self.is_of_members(inner)
            case ast.NamedExpr(value=inner):
                return self.is_of_members(inner)
            case ast.BinOp(left=left, right=right):
                return self.is_of_members(left) or self.is_of_members(right)
            case ast.IfExp(body=left, orelse=right):
                return self.is_of_members(left) or self.is_of_members(right)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return any(map(self.is_of_members, elements))
            case ast.ListComp(elt=element, generators=parts) | ast.GeneratorExp(elt=element, generators=parts):
                for part in parts:
                    self.learn(part.target, part.iter)
                return self.is_of_members(element)
            case ast.Call():
                return self.call_is_of_members(node)
        return False

    def call_is_of_members(self, node: ast.Call) -> bool:
        name, subject = called(node)
        if name in QUESTIONS:
            return False
        if subject is not None:
            return self.is_of_members(subject) or is_called_like_members(name)
        if (
            isinstance(node.func, ast.Name) and name not in PASSING_ON
        ):  # a function of ours says by its name what it gives
            return self.named(name)
        return any(map(self.is_of_members, node.args))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name, subject = called(node)
        arguments = list(node.args)
        if name == "einsum":
            averages = self.einsum_sums_members(arguments)
        elif name in OF_A_LIST and isinstance(node.func, ast.Name | ast.Attribute) and is_of_a_list(node):
            averages = bool(arguments) and not is_numbers(arguments[0]) and self.is_of_members(arguments[0])
        elif name in AVERAGES:
            values = subject if subject is not None else arguments.pop(0) if arguments else None
            averages = has_first_axis(node, arguments) and self.is_of_members(values)
        else:
            averages = False
        if averages:
            self.found.append((self.function, ast.unparse(node)))

    def einsum_sums_members(self, arguments: Sequence[ast.expr]) -> bool:
        """Whether the first axis of an operand that is called like members is summed."""
        match arguments:
            case [ast.Constant(value=str(formula)), *operands]:
                inputs, _, output = formula.replace(" ", "").partition("->")
                return any(
                    self.is_of_members(operand) and letters[:1] not in output
                    for letters, operand in zip(inputs.split(","), operands, strict=False)
                )
        return any(map(self.is_of_members, arguments))  # another way to write it: too clever to be judged here


def is_called_like_members(name: str) -> bool:
    return bool(MEMBERS_FIRST & set(name.lower().split("_")))


def called(node: ast.Call) -> tuple[str, ast.expr | None]:
    """The name of what is called, and for a method the object; a library's function has none."""
    match node.func:
        case ast.Attribute(value=ast.Name(id=library), attr=name) if library in LIBRARIES:
            return name, None
        case ast.Attribute(value=inner, attr=name):
            return name, inner
        case ast.Name(id=name):
            return name, None
    return "", None


def is_of_a_list(node: ast.Call) -> bool:
    """Whether Python's own sum or mean is called, which adds up whole members."""
    match node.func:
        case ast.Name():
            return not any(keyword.arg in ("axis", "dim") for keyword in node.keywords)
        case ast.Attribute(value=ast.Name(id="statistics" | "math")):
            return True
    return False


def is_numbers(values: ast.expr) -> bool:
    """Whether numbers of members are added up, such as `model.members for model in models`."""
    return isinstance(values, ast.GeneratorExp) and ast.unparse(values.elt).endswith(".members")


def has_first_axis(node: ast.Call, after_the_values: Sequence[ast.expr]) -> bool:
    """Whether the axis is, or contains, the first one, or the third from the end."""
    named = [keyword.value for keyword in node.keywords if keyword.arg in ("axis", "dim")]
    for axis in (*named, *after_the_values[:1]):
        try:
            value = ast.literal_eval(axis)
        except ValueError:
            return True  # an axis that is computed may be any
        if {0, -3} & set(value if isinstance(value, tuple | list) else [value]):
            return True
    return False


def averages_of_members(tree: ast.AST) -> list[tuple[str, str]]:
    finder = Averaging()
    finder.visit(tree)
    return finder.found


@pytest.mark.parametrize(
    "code",
    [
        "np.mean(members, axis=0)",
        "np.mean(members, 0)",
        "members.mean(0)",
        "members.mean(axis=0)",
        "members.sum(axis=(0,)) / 5",
        "predictions.honest.mean(axis=-3)",
        "np.average(probabilities, axis=0)",
        "np.average(probabilities, axis=0, weights=weights)",
        "np.nanmean(predictions.honest, axis=0)",
        "np.median(member_probabilities, axis=0)",
        "torch.mean(torch.stack(logits), dim=0)",
        "torch.stack([each.softmax(1) for each in networks]).mean(0)",
        "np.stack([member.train_probabilities for member in folders]).mean(axis=0)",
        "committee.member_probabilities(pixels).mean(axis=0)",
        "(weights[:, None, None] * probabilities).sum(axis=0)",
        "np.log(probabilities).mean(axis=0)",
        "members = 5\ncommittee.members.mean(axis=0)",
        "sum(members) / len(members)",
        "sum(member.train_probabilities for member in folders) / 5",
        "sum(each for each in probabilities)",
        "statistics.fmean(members)",
        "np.einsum('mic,m->ic', probabilities, weights)",
        "np.einsum('m,mic->ic', weights, probabilities)",
        "p = np.asarray(probabilities)\np.mean(axis=0)",
        "def f(members):\n    a, b = members[:2], 1\n    return a.mean(axis=0)",
        "members.mean(axis=axis)",
    ],
)
def test_an_average_of_members_is_noticed(code: str) -> None:
    assert averages_of_members(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "np.mean(accuracies)",
        "probabilities.mean(axis=1)",
        "probabilities.mean()",
        "(~np.isnan(predictions.honest[:, :, 0])).sum(axis=0)",
        "(members.argmax(axis=2) != choices).mean(axis=0)",
        "pixels.mean(axis=0)",
        "sum(member.record.seconds for member in members)",
        "sum(row.status == 'finished' for row in results.members)",
        "sum(model.members for model in models)",
        "np.einsum('mic,mc->mi', probabilities, costs)",
        "combine(probabilities)",
    ],
)
def test_other_sums_are_not(code: str) -> None:
    assert not averages_of_members(ast.parse(code))


def test_members_are_averaged_in_one_place() -> None:
    found = {
        (name, function): code
        for name, tree in TREES.items()
        if name != "ensemble/combine.py"
        for function, code in averages_of_members(tree)
    }
    assert {place: found.get(place, "is gone") for place in found.keys() ^ AVERAGING_ALLOWED.keys()} == {}


def test_the_one_place_is_seen() -> None:
    assert averages_of_members(TREES["ensemble/combine.py"])


# --- types ------------------------------------------------------------------------------------------------------------

UNTYPED_ALLOWED = {"OptimiserState"}  # torch's own


def untyped(tree: ast.Module) -> Iterator[str]:
    """Public functions, fields and aliases of types that carry a mapping of names to anything."""
    aliases: dict[str, ast.expr] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() as value):
                aliases[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if "TypeAlias" in ast.unparse(node):
                aliases[name] = value
    loose = {name for name, value in aliases.items() if has_any_mapping(value)} - UNTYPED_ALLOWED
    yield from sorted(name for name in loose if not name.startswith("_"))
    yield from _untyped(tree.body, "", loose)


def _untyped(body: Sequence[ast.stmt], place: str, loose: set[str]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.ClassDef(name=name) if not name.startswith("_"):
                yield from _untyped(node.body, f"{place}{name}.", loose)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if place and not name.startswith("_"):
                if has_any_mapping(annotation, loose):
                    yield place + name
            case ast.FunctionDef(name=name) if not name.startswith("_") or name in ("__init__", "__call__"):
                given = node.args
                arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
                annotations = [each.annotation for each in arguments] + [node.returns]
                if any(each is not None and has_any_mapping(each, loose) for each in annotations):
                    yield place + name


def has_any_mapping(annotation: ast.expr, loose: set[str] | frozenset[str] = frozenset()) -> bool:
    """Whether a type is, or contains, `dict[str, Any]`, a likewise loose mapping, or an alias of one."""
    for node in ast.walk(annotation):
        match node:
            case ast.Subscript(value=kind, slice=ast.Tuple(elts=[_, value])) if is_mapping(kind):
                if ast.unparse(value) in ("Any", "typing.Any", "object"):
                    return True
            case ast.Name(id=name) if name in loose:
                return True
            case ast.Constant(value=str(text)):
                with suppress(SyntaxError):  # a value of a Literal, not a type
                    if has_any_mapping(ast.parse(text, mode="eval").body, loose):
                        return True
    return False


def is_mapping(kind: ast.expr) -> bool:
    return ast.unparse(kind).rpartition(".")[2] in ("dict", "Dict", "Mapping", "MutableMapping", "defaultdict")


@pytest.mark.parametrize(
    "code",
    [
        "def f(a: dict[str, Any]) -> None: ...",
        "def f(*, a: Mapping[str, Any] | None = None) -> None: ...",
        "def f() -> tuple[int, list[dict[str, Any]]]: ...",
        "def f(a: 'collections.abc.Mapping[str, Any]') -> None: ...",
        "class A:\n    b: dict[str, Any]",
        "class A:\n    def __init__(self, b: dict[str, object]) -> None: ...",
        "History = Sequence[Mapping[str, Any]]",
    ],
)
def test_a_mapping_of_anything_is_noticed(code: str) -> None:
    assert list(untyped(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "def _f(a: dict[str, Any]) -> None: ...",
        "class _A:\n    b: dict[str, Any]",
        "def f(a: Mapping[str, NDArray[Any]]) -> dict[str, JsonValue]: ...",
        "OptimiserState = dict[str, Any]\ndef f(a: OptimiserState) -> None: ...",
    ],
)
def test_other_types_are_not(code: str) -> None:
    assert not list(untyped(ast.parse(code)))


def test_public_signatures_say_what_mappings_hold() -> None:
    assert [f"{name}: {place}" for name, tree in TREES.items() for place in untyped(tree)] == []


# --- file names -------------------------------------------------------------------------------------------------------


def stored_names() -> set[str]:
    """The file names that committee.folders spells out, such as "identity.json"."""
    suffixes = (".json", ".jsonl", ".toml", ".txt", ".npy", ".npz", ".safetensors", ".html")
    return {
        node.value
        for name, tree in TREES.items()
        if name.startswith("folders/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+\.\w+", node.value)
        if node.value.endswith(suffixes)
    }


def spelled_out(tree: ast.AST, names: set[str], beside: set[str] | frozenset[str] = frozenset()) -> set[str]:
    """Which of the names stand in a string, on their own or at the end of a path.

    The name of a page's template, a file `beside` the module, counts only where it is the end of a path.
    """
    ends = {node.right for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)}
    return {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (name := node.value.rpartition("/")[2]) in names
        if node.value not in beside or node in ends
    }


def test_a_file_name_is_noticed() -> None:
    code = "a / 'run.json', f'{a}/models/plan.json', get_template('study.html'), a / 'report.html', 'see results.json'"
    names = {"run.json", "plan.json", "study.html", "report.html", "results.json"}
    templates = {"study.html", "report.html"}
    assert spelled_out(ast.parse(code), names, templates) == {"run.json", "plan.json", "report.html"}
    assert spelled_out(ast.parse(code), names) == {"run.json", "plan.json", "report.html", "study.html"}


def test_only_folders_know_the_names_of_their_files() -> None:
    names = stored_names()
    assert {"identity.json", "run.json", "results.json", "validation.npy", "study.toml", "report.html"} <= names
    elsewhere = {
        name: spelled_out(tree, names, {path.name for path in (PACKAGE / name).parent.iterdir()})
        for name, tree in TREES.items()
        if not name.startswith("folders/")
    }
    assert {name: found for name, found in elsewhere.items() if found} == {}


# --- randomness, pickles ----------------------------------------------------------------------------------------------


def test_randomness_comes_from_keys_alone() -> None:
    wild = re.compile(
        r"torch\.manual_seed|np\.random\.(seed|rand|normal|permutation|shuffle|choice)\(|^import random|_rng\(\)",
        re.M,
    )
    assert [name for name, text in SOURCES.items() if wild.search(text)] == []


def test_no_array_is_pickled() -> None:
    """Other pickles, and whatever else can run code from a file, are banned by the linter's rules in pyproject.toml."""
    files = [path for folder in ("src", "bench", "tests") for path in (ROOT / folder).rglob("*.py")]
    pickling = re.compile(r"allow_pickle ?= ?(?!False\b)")
    assert [path.name for path in files if pickling.search(path.read_text()) and path != Path(__file__)] == []


RUNS_CODE = """
import pickle
from cloudpickle import dumps
import dill
import joblib
import shelve
import marshal
import tarfile
import yaml
from torch import save
from pandas import read_pickle
from shutil import unpack_archive
torch.load("a.pt")
shutil.unpack_archive("a.tar")
eval("1")
exec("1")
click.echo("a")
"""


@pytest.mark.parametrize("folder", ["src/committee", "tests", "bench"])
def test_the_linter_notices_what_could_run_code(folder: str) -> None:
    code = f"import shutil\nimport click\nimport torch\n{RUNS_CODE}"
    command = ["ruff", "check", "--output-format=concise", "--ignore-noqa", "-"]
    ruff = subprocess.run(
        [sys.executable, "-m", *command, f"--stdin-filename={folder}/new.py"], input=code, capture_output=True,
        text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    noticed = [int(line) for line in re.findall(r"^[^:]*:(\d+):\d+: (?:TID251|S102|S307) ", ruff.stdout, re.M)]
    assert noticed == list(range(5, 5 + len(RUNS_CODE.split("\n")) - 2))
