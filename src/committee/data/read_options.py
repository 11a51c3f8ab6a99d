"""What a user says about files that do not say it themselves: sizes, columns, channels, the range of pixels."""

from __future__ import annotations

from typing import Literal

from committee.config.record import Record


class ValueRange(Record):
    """The numbers that became black and white pixels.

    Attributes:
        low, high: what became 0 and what became the highest value of a pixel.
        given: whether the user gave them; otherwise they were found from the training images.
    """

    low: float
    high: float
    given: bool = False


class ReadOptions(Record):
    """How the images at a path are read.

    Attributes:
        image_size: side of the square that images are resized to, in pixels; None keeps their size (the most common one
            where it differs), shrunk where the longer side is over 96.
        shape: height, width and channels of an image in a table or array of rows; None finds them out.
        label: the name of the column of labels, or its position counted from 0; None finds it out.
        channels: "grey" or "colour" converts all images; None refuses a mixture.
        pixel_range: the values that mean black and white, for numbers that are no pixels; None finds them out.
        groups: what images belong together, such as those of one patient, writer or board, which every split keeps on
            one side: "path:1" for the first folder of an image's path, or a table (CSV) of images and groups.
        skip_unreadable: whether images that cannot be read are left out, with a note, instead of being an error.
        labels: a table of corrected labels for the training images, of data with a name, too; images that it does not
            list are left out. See `committee.data.corrected_labels`.
    """

    image_size: int | None = None
    shape: tuple[int, int, int] | None = None
    label: str | None = None
    channels: Literal["grey", "colour"] | None = None
    pixel_range: tuple[float, float] | None = None
    groups: str | None = None
    skip_unreadable: bool = False
    labels: str | None = None


AS_IT_IS = ReadOptions()
"""Nothing is said: everything is found out from the files."""
