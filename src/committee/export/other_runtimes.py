"""Converters and runtimes of OpenVINO, ExecuTorch and LiteRT, as a program of its own, for the Python that has them.

    python other_runtimes.py convert SOURCE TARGET    SOURCE becomes TARGET; prints the packages' versions, as JSON
    python other_runtimes.py answer FILE              for each line IMAGES.npy ANSWERS.npz of its input, answers

It imports nothing of this project, since a converter may want another torch than the members were trained with, and
since what it does natively may end a process: `committee.export.formats` asks, and stays.

SOURCE is an .onnx file for OpenVINO, else a program of torch.export. IMAGES are (image, height, width, channel), with
the integers that the graph takes; ANSWERS are the graph's outputs in their order, as arr_0, arr_1 and so on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Images = Any  # arrays; types of NumPy that depend on its version would bind this program to one
Answering = Callable[[Images], list[Images]]  # at most `BATCH` images -> their answers
DONE = "answered\n"
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}  # OpenVINO's default on processors with bfloat16 computes in that


def openvino_file(source: str, target: str) -> None:
    """Weights go into TARGET's neighbour NAME.bin."""
    import openvino

    openvino.save_model(openvino.Core().read_model(source), target, compress_to_fp16=False)


def openvino_answers(path: str) -> Answering:
    """A model that computes in float32."""
    import openvino

    model = openvino.Core().compile_model(path, "CPU", EXACT)
    return lambda images: [np.array(each) for each in model([images]).to_tuple()]


def executorch_file(source: str, target: str) -> None:
    """What XNNPACK has no operation for, ExecuTorch's own compute."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = to_edge_transform_and_lower(torch.export.load(source), partitioner=[XnnpackPartitioner()])
    Path(target).write_bytes(program.to_executorch().buffer)


def executorch_answers(path: str) -> Answering:
    """A method, and the program that it belongs to."""
    import torch
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")

    def answered(images: Images, program: object = program) -> list[Images]:  # the method does not keep its program
        return [each.numpy().copy() for each in method.execute([torch.from_numpy(images)])]

    return answered


def litert_file(source: str, target: str) -> None:
    """The program's example says how many images it takes."""
    import litert_torch
    import torch

    program = torch.export.load(source)
    litert_torch.convert(program.module(), program.example_inputs[0]).export(target)


def litert_answers(path: str) -> Answering:
    """The only signature of the file."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path).get_signature_runner()
    (name,) = runner.get_input_details()

    def answered(images: Images) -> list[Images]:
        outputs = runner(**{name: images})
        return [outputs[f"output_{number}"] for number in range(len(outputs))]

    return answered


FORMATS = {
    ".xml": (openvino_file, openvino_answers, ("openvino",)),
    ".pte": (executorch_file, executorch_answers, ("executorch", "torch")),
    ".tflite": (litert_file, litert_answers, ("litert-torch", "litert-converter", "ai-edge-litert", "torch")),
}
BATCH = {".xml": 64, ".pte": 8, ".tflite": 1}  # images at once; ExecuTorch 1.5.1 makes 15 of a larger number


def answer(path: str) -> None:
    """Answers until its input ends, and says so after each."""
    ending = Path(path).suffix
    answering, batch = FORMATS[ending][1](path), BATCH[ending]
    for line in sys.stdin:
        images, answers = line.rstrip("\n").split("\t")
        pixels = np.load(images)
        parts = [answering(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]
        np.savez(answers, *(part_of(each) for each in zip(*parts, strict=True)))
        print(DONE, end="", flush=True)  # noqa: T201


def part_of(parts: tuple[Images, ...]) -> Images:
    """An output for all images; members' votes are (member, image, class), every other output begins with the image."""
    return np.concatenate(parts, axis=1 if parts[0].ndim == 3 else 0)


if __name__ == "__main__":
    task, *paths = sys.argv[1:]
    if task == "convert":
        source, target = paths
        FORMATS[Path(target).suffix][0](source, target)
        print(json.dumps({each: version(each) for each in FORMATS[Path(target).suffix][2]}))  # noqa: T201
    else:
        answer(*paths)
