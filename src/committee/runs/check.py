"""A data set -> its check, with a page and a table in a folder; the order of the stages."""

from __future__ import annotations

from committee.data.check import DatasetCheck, check_dataset
from committee.data.dataset import ImageDataset, open_test
from committee.folders.check_folder import CheckFolder
from committee.report.check_page import check_page, rows


def check_data(dataset: ImageDataset, folder: CheckFolder) -> DatasetCheck:
    """Look for faults of a data set, and write what was found.

    The test images are opened, to be compared with the training images and shown where something is wrong with them;
    the folder's record notes it. Nothing is trained, scored or chosen.

    Raises:
        DataError: the folder holds something else.
    """
    folder.begin()
    test = open_test(dataset, folder.test_record, "a check of the data: compared with the training images")
    check = check_dataset(dataset, test)
    folder.write_table(*rows(check))
    folder.write_page(check_page(check, dataset.train.pixels, test.pixels).render())
    return check
