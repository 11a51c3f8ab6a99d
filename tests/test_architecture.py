"""The house keeps its rules: what opens the seal, where members are averaged, where randomness comes from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {path: path.read_text() for path in sorted((ROOT / "src" / "committee").rglob("*.py"))}


def test_importing_the_package_is_cheap() -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'pydantic', 'PIL', 'rich'}"
    code = f"import sys, committee; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_exists() -> None:
    import committee

    for name in committee.__all__:
        assert getattr(committee, name) is not None


def test_only_the_data_set_touches_the_sealed_images_and_few_places_open_them() -> None:
    touching = {path.name for path, text in SOURCES.items() if "._images" in text and path.name != "sklearn.py"}
    assert touching == {"dataset.py"}
    assert "test._images" not in SOURCES[ROOT / "src" / "committee" / "sklearn.py"]
    counts = {f"{path.parent.name}/{path.name}": text.count("open_test(") for path, text in SOURCES.items()}
    assert {name: count for name, count in counts.items() if count} == {
        "data/dataset.py": 1,
        "runs/evaluation.py": 1,
        "studies/run.py": 2,  # the end of a study; the published protocol
        "studies/training.py": 1,  # transductive pseudo-labels
        "studies/self_training.py": 1,  # likewise
    }


def test_members_are_averaged_in_one_place() -> None:
    averaging = re.compile(r"(members|probabilities)\w*\.mean\((axis=)?0\)")
    assert [path.name for path, text in SOURCES.items() if averaging.search(text)] == []


def test_randomness_comes_from_keys_alone() -> None:
    wild = re.compile(
        r"torch\.manual_seed|np\.random\.(seed|rand|normal|permutation|shuffle|choice)\(|^import random|_rng\(\)",
        re.M,
    )
    assert [path.name for path, text in SOURCES.items() if wild.search(text)] == []


def test_nothing_is_pickled() -> None:
    pickling = re.compile(r"import pickle|torch\.(save|load)\(|allow_pickle=True")
    assert [path.name for path, text in SOURCES.items() if pickling.search(text)] == []
