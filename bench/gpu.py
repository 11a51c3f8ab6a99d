"""B1 to B4 on one CUDA GPU: our stacks beside eager PyTorch, and beside Keras on JAX where JAX sees the GPU.

    python bench/gpu.py [--data-dir MNIST] [--fashion-dir FASHION] [--rounds 3]

B1: images a second over all members of a committee of 1, 4, 10, 16, P1's network; peers train one network after the
other, or four processes at once. B2: seconds until five members of `fast`, trained at once, reach each accuracy; a peer
trains P1's recipe. B3 and B4 are bench/published_job.py and bench/inference.py, which take the GPU by themselves.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import Setting, best_settings, compare, rounds, survey, write
from time_to_accuracy import OUR_EPOCHS, accuracies, mnist_file

HERE = Path(__file__).parent
EPOCHS = 5


def throughput(data: str, turns: int) -> dict[str, Any]:
    """B1: images a second of each tool, and how ours grows with the committee."""
    ours = str(HERE / "throughput.py")
    torch_peer, keras_peer = str(HERE / "peers" / "torch_peers.py"), str(HERE / "peers" / "keras_peer.py")
    cuda = ("--device", "cuda", "--epochs", str(EPOCHS))
    tools = {
        f"committee of {members}": [Setting("stacked", (ours, "ours", data, str(members)))]
        for members in (1, 4, 10, 16)
    }
    tools["eager PyTorch"] = [
        Setting(
            f"{precision}, {copies} at once", (torch_peer, "plain", data, *cuda, "--precision", precision), {}, copies
        )
        for precision in ("float32", "bfloat16")
        for copies in (1, 4)
    ]
    if subprocess.run(
        [sys.executable, "-c", "import jax; assert jax.default_backend() == 'gpu'"], check=False
    ).returncode:
        print("JAX with a GPU is not installed here: Keras on JAX is left out", flush=True)
    else:
        command = (keras_peer, data, "--epochs", str(EPOCHS), "--compile")
        tools["Keras on JAX"] = [
            Setting(precision, (*command, "--precision", precision), {"KERAS_BACKEND": "jax"})
            for precision in ("float32", "bfloat16")
        ]
    surveyed = survey(tools, "images_per_second")
    chosen = best_settings(tools, surveyed)
    values = rounds(chosen, "images_per_second", turns)
    return {
        "survey": surveyed,
        "settings": {t: s.name for t, s in chosen.items()},
        "summary": compare(values, "committee of 10", "images/s"),
    }


def time_to_accuracy(data_dir: Path | None, data: Path, labels: Any, folder: Path) -> dict[str, Any]:
    """B2: (seconds, mean test accuracy) of five members trained at once, and of one peer, epoch after epoch."""
    from committee import load_dataset, load_recipe, train
    from committee.folders.run_folder import RunFolder

    dataset, ours = load_dataset("mnist", data_dir=data_dir), []
    for epochs in OUR_EPOCHS:
        changes = [f"training.epochs={epochs}", "committee.members=5", "holdout.kind=none"]
        run = folder / f"fast-{epochs}"
        results = train(dataset, load_recipe("fast", changes), run)
        assert results.test is not None
        accuracy = statistics.fmean(member.test.accuracy for member in results.members if member.test)
        seconds = sum(epoch.seconds for epoch in RunFolder(run).member(0).history)
        ours.append({"epochs": epochs, "seconds": seconds, "members": accuracy, "committee": results.test.accuracy})
        print(f"fast, {epochs} epochs, five at once: {seconds:.1f} s, members {accuracy:.4f}", flush=True)
    out = folder / "peer.npz"
    peer = [str(HERE / "peers" / "learning_curve.py"), "torch", "P1", str(data)]
    subprocess.run([sys.executable, *peer, "--out", str(out), "--device", "cuda"], check=True)
    found = np.load(out)
    epochs = found["probabilities"].astype(np.float32)
    reached = [accuracies(each[None], labels, 1)[0] for each in epochs]
    return {"ours": ours, "peer, P1": list(zip(np.cumsum(found["seconds"]).tolist(), reached, strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where MNIST's IDX files are, if not in the cache")
    parser.add_argument("--fashion-dir", type=Path, help="where Fashion-MNIST's IDX files are, if not in the cache")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from committee.nn.devices import pick_device

    if pick_device() != "cuda":
        raise SystemExit("this needs a CUDA GPU and a PyTorch that sees it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, labels = mnist_file(arguments.data_dir, folder)
        content = {"benchmark": "B1 and B2 on a GPU", "B1": throughput(str(data), arguments.rounds)}
        content |= {"B2": time_to_accuracy(arguments.data_dir, data, labels, folder)}
        write("training", content)
    fashion = ["--data-dir", str(arguments.fashion_dir)] if arguments.fashion_dir else []
    subprocess.run([sys.executable, str(HERE / "published_job.py"), *fashion], check=True)
    subprocess.run([sys.executable, str(HERE / "inference.py"), "--rounds", str(arguments.rounds)], check=True)


if __name__ == "__main__":
    main()
