"""P1's network trained by PyTorch's plain loop, by Lightning and by Ensemble-PyTorch; prints images a second as JSON.

    python bench/peers/torch_peers.py KIND IMAGES.npz --threads 2 --precision bfloat16 [--compile] [--device cuda]

KIND is plain, lightning or torchensemble. The first epoch (compilation, caches) is left out. bfloat16 means autocast
and channels_last, PyTorch's own advice for CPUs; torchensemble has its own loop and takes float32 only.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from typing import Any

import numpy as np
import torch
from networks import P1, torch_model
from torch import nn


class Net(nn.Sequential):
    """P1's network, 331,450 parameters."""

    def __init__(self) -> None:
        super().__init__(*torch_model(P1))
        assert sum(parameter.numel() for parameter in self.parameters()) == 331_450


def plain(images: torch.Tensor, labels: torch.Tensor, arguments: argparse.Namespace) -> float:
    """The loop of PyTorch's tutorials, its images in memory; seconds of all epochs but the first."""
    device = arguments.device
    network: nn.Module = Net().to(device)
    images, labels = images.to(device), labels.to(device)
    fast = arguments.precision == "bfloat16"
    if fast:
        network, images = network.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    if arguments.compile:
        network.compile()
    optimiser = torch.optim.NAdam(network.parameters(), lr=2e-3, eps=1e-7)
    began = 0.0
    for epoch in range(arguments.epochs):
        if epoch == 1:
            began = time.perf_counter()
        for batch in torch.randperm(len(labels), device=device).split(128):
            optimiser.zero_grad()
            with torch.autocast(device, dtype=torch.bfloat16, enabled=fast):
                loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            loss.backward()
            optimiser.step()
        loss.item()  # a GPU works on while Python goes ahead
    return time.perf_counter() - began


def lightning(images: torch.Tensor, labels: torch.Tensor, arguments: argparse.Namespace) -> float:
    """Lightning's Trainer with a DataLoader in the process, without logging and checkpoints."""
    import lightning as pl

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    times: list[float] = []

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Net()
            if arguments.precision == "bfloat16":
                self.network.to(memory_format=torch.channels_last)
            if arguments.compile:
                self.network.compile()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.NAdam(self.parameters(), lr=2e-3, eps=1e-7)

        def on_train_epoch_start(self) -> None:
            times.append(time.perf_counter())

        def on_train_end(self) -> None:
            times.append(time.perf_counter())

    if arguments.precision == "bfloat16":
        images = images.to(memory_format=torch.channels_last)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 128, shuffle=True)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    precision = "bf16-mixed" if arguments.precision == "bfloat16" else "32-true"
    pl.Trainer(max_epochs=arguments.epochs, accelerator=arguments.device, precision=precision, **quiet).fit(
        Module(), loader
    )
    return times[-1] - times[1]


def torchensemble(images: torch.Tensor, labels: torch.Tensor, arguments: argparse.Namespace) -> float:
    """Ensemble-PyTorch's voting classifier of two members, trained side by side by its own jobs."""
    from torchensemble import VotingClassifier

    logging.disable(logging.CRITICAL)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 128, shuffle=True)
    seconds = []
    for epochs in (1, arguments.epochs):  # the difference leaves the start out
        model = VotingClassifier(estimator=Net, n_estimators=2, cuda=False, n_jobs=arguments.jobs)
        model.set_optimizer("Adam", lr=2e-3, eps=1e-7)  # it takes no Nadam
        model.set_criterion(nn.CrossEntropyLoss())
        began = time.perf_counter()
        model.fit(loader, epochs=epochs, log_interval=10**9, save_model=False)
        seconds.append(time.perf_counter() - began)
    return (seconds[1] - seconds[0]) / 2  # two members


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["plain", "lightning", "torchensemble"])
    parser.add_argument("images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = np.load(arguments.images)
    images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).float().contiguous() / 255
    labels = torch.from_numpy(data["labels"])
    run = {"plain": plain, "lightning": lightning, "torchensemble": torchensemble}[arguments.kind]
    seconds = run(images, labels, arguments)
    print(json.dumps({"images_per_second": len(labels) * (arguments.epochs - 1) / seconds}))


if __name__ == "__main__":
    main()
