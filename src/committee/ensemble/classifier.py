"""What answers for images: a committee on this package's engine, or an exported one in ONNX Runtime.

Nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Pixels
from committee.data.prepare import How, Preparation
from committee.data.read_options import ValueRange
from committee.data.to_classify import ImagesRead, read_images, stream_images
from committee.errors import DataError
from committee.folders.records import ImagesRecord

ONNX = ".onnx"


@dataclass(frozen=True)
class Answers:
    """What a committee says about images.

    Attributes:
        probabilities: (image, class), the whole committee's, with its temperature.
        members: (member, image, class), each member's own.
        familiar: (image,), the share of the training images that are at least as unusual; NaN where that is unknown.
    """

    probabilities: NDArray[np.float64]
    members: NDArray[np.float32]
    familiar: NDArray[np.float64]


class Classifier(ABC):
    """A committee that answers, whatever computes the answers.

    Attributes:
        class_names: one name for each class.
        image_shape: (height, width, channels) that the members take.
        pixel_range: 255 for 8-bit images, 65535 for 16-bit ones.
        value_range: the numbers that were black and white in the training's files; None where they held pixels.
        images: what the training images look like.
        device: where it computes.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_range: int
    value_range: ValueRange | None
    images: ImagesRecord
    device: str

    @abstractmethod
    def answer(self, pixels: Pixels) -> Answers:
        """What it says about images (image, height, width, channel), which `check_form` takes.

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
        """

    def check_form(self, pixels: Pixels) -> None:
        """Refuse images that are not in the form of the training images.

        Raises:
            DataError: another shape or bit depth.
        """
        expected = np.uint8 if self.pixel_range == 255 else np.uint16
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != self.image_shape or pixels.dtype != expected:
            raise DataError(
                f"images must be an array (image, {', '.join(map(str, self.image_shape))}) of {np.dtype(expected)}; "
                f"got {pixels.shape} of {pixels.dtype}; Committee.read_images converts files and arrays"
            )

    def predict_proba(self, pixels: Pixels) -> NDArray[np.float64]:
        """The committee's probabilities: (image, height, width, channel) -> (image, class).

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
        """
        return self.answer(pixels).probabilities

    def predict(self, pixels: Pixels) -> list[str]:
        """The name of each image's most probable class.

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
        """
        return [self.class_names[choice] for choice in self.predict_proba(pixels).argmax(axis=1)]

    def preparation(self, how: How = "auto") -> Preparation:
        """What makes images of one's own like the training images: the `prepare` of `committee.read_images`.

        Args:
            how: "digits" makes writing on a photograph like the training images, as MNIST's makers did; "auto" does so
                where the training images are writing in a frame of its own and an image is not; "as-is" resizes only.

        Raises:
            DataError: "digits" for a committee of other images.
        """
        return Preparation(self.image_shape, self.pixel_range, self.images.writing, how)

    def read_images(self, paths: Sequence[str | Path], prepare: How | Preparation = "auto") -> ImagesRead:
        """Files to classify, in the form of the training images; see `committee.read_images`.

        Args:
            paths: image files, folders, zips, arrays or tables.
            prepare: as in `preparation`, or its result.

        Raises:
            DataError: none of the images can be read, or a path does not exist.
        """
        return read_images(
            paths,
            image_shape=self.image_shape,
            pixel_range=self.pixel_range,
            value_range=self.value_range,
            prepare=prepare if isinstance(prepare, Preparation) else self.preparation(prepare),
        )

    def stream_images(self, paths: Sequence[str | Path], preparation: Preparation) -> Iterator[ImagesRead]:
        """The same, some thousands of images at a time; see `committee.data.to_classify.stream_images`.

        Args:
            paths: as in `read_images`.
            preparation: what brings images into form; it notes what they were like.
        """
        return stream_images(
            paths,
            image_shape=self.image_shape,
            pixel_range=self.pixel_range,
            value_range=self.value_range,
            prepare=preparation,
        )


def load(model: str | Path, *, device: str = "auto") -> Classifier:
    """What answers: the committee of a run folder, of a study's model or of a bundle, or an exported one.

    Args:
        model: the folder that `committee train` wrote, a bundle of it, or an .onnx file of `committee export`.
        device: where it predicts; "auto" picks as training does. An exported committee predicts on the CPU.

    Raises:
        RunError: it is missing, unfinished or damaged.
        MissingExtraError: ONNX Runtime is needed and not installed.
    """
    if is_exported(Path(model)):
        from committee.ensemble import onnx_committee

        return onnx_committee.load(model)
    from committee.ensemble import committee

    return committee.load(model, device=device)


def is_exported(path: Path) -> bool:
    """Whether a path is that of an exported committee, by its ending."""
    return path.suffix.lower() == ONNX
