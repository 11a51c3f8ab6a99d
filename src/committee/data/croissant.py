"""A data set as Croissant metadata (MLCommons), the JSON-LD that hubs and data-set searches read.

Source: Akhtar et al. 2024, "Croissant: A Metadata Format for ML-Ready Datasets", DEEM; the format's version 1.1,
https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from committee.data.published import Published
from committee.data.summary import DatasetSummary
from committee.names import json_text, unicode_text, visible

Json = dict[str, JsonValue]

CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

ENCODINGS = {
    ".gz": "application/gzip",
    ".zip": "application/zip",
    ".npz": "application/zip",
    ".mat": "application/octet-stream",
    ".bz2": "application/x-bzip2",
}


@dataclass(frozen=True)
class ParquetFile:
    """A file of `committee.data.convert`, beside the metadata.

    Attributes:
        part: "train" or "test"; the file is called so.
        bytes: its size.
        sha256: in hexadecimal.
    """

    part: str
    bytes: int
    sha256: str


def croissant(
    data: DatasetSummary,
    files: Sequence[ParquetFile] = (),
    *,
    published: Published | None = None,
    grouped: bool = False,
) -> str:
    """A data set's metadata as JSON-LD.

    With Parquet files, whoever reads it gets the images and labels of each part as records. Without, it says which
    classes there are with how many images, and for a data set that was published which files they are in.

    Args:
        data: in numbers.
        files: in the folder that the metadata are written to.
        published: what the data set is known by a name as; None for users' own.
        grouped: whether the files have a column `group`.
    """
    content: Json = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": visible(data.name),
        "description": description(data, published),
        "version": "1.0.0",
        "keywords": ["image classification", *(["published"] if published else [])],
        "identifier": f"sha256:{data.digest}",
        **({"license": licence} if published and (licence := stated(published.licence)) else {}),
        **({"citeAs": published.citation} if published and published.citation else {}),
        "distribution": [*map(parquet_object, files)] if files else [*published_objects(published)],
        "recordSet": [class_records(data), *(image_records(file, grouped) for file in files)],
    }
    return json_text(content, indent=1) + "\n"


def description(data: DatasetSummary, published: Published | None) -> str:
    """The data set in sentences; a file's place on somebody's machine is none of them."""
    height, width, channels = data.shape
    licence = f" Licence: {published.licence}." if published and published.licence else ""
    return (
        f"{visible(data.name)}: {data.images:,} labelled images of {height} × {width} pixels with "
        f"{channels} channel{'s' * (channels > 1)} of {data.bits} bits in {data.classes} classes, "
        f"{data.train_images:,} to train on and {data.test_images:,} to test with.{licence}"
    )


def stated(licence: str) -> str:
    """A licence as Croissant takes it: that none is stated is no licence."""
    return "" if licence.startswith(("none", "no licence")) else licence


def parquet_object(file: ParquetFile) -> Json:
    """One Parquet file."""
    return {
        "@type": "cr:FileObject",
        "@id": f"{file.part}.parquet",
        "name": f"{file.part}.parquet",
        "contentUrl": f"{file.part}.parquet",
        "contentSize": f"{file.bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": file.sha256,
    }


def published_objects(published: Published | None) -> Iterable[JsonValue]:
    """The files that the authors published, with the checksums that downloads are compared with."""
    for name, checksum in (published.sums if published else {}).items():
        kind, _, hexadecimal = checksum.rpartition(":")
        ending = "." + name.rpartition(".")[2]
        yield {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": published.mirrors[0] + name if published else "",
            "encodingFormat": ENCODINGS.get(ending, "application/octet-stream"),
            kind or "sha256": hexadecimal,
        }


def class_records(data: DatasetSummary) -> Json:
    """The classes in the order of the labels, with how many images each has: records inside the metadata."""
    names = ("label", "name", "train", "test")
    types = ("sc:Integer", "sc:Text", "sc:Integer", "sc:Integer")
    rows: list[JsonValue] = [
        {"classes/label": label, "classes/name": unicode_text(name), "classes/train": of.train, "classes/test": of.test}
        for label, (name, of) in enumerate((name, data.counts[name]) for name in data.class_names)
    ]
    fields: list[JsonValue] = [
        {"@type": "cr:Field", "@id": f"classes/{name}", "name": name, "dataType": kind}
        for name, kind in zip(names, types, strict=True)
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "The classes with their numbers of training and test images.",
        "key": {"@id": "classes/label"},
        "field": fields,
        "data": rows,
    }


def image_records(file: ParquetFile, grouped: bool) -> Json:
    """One part's images with their labels and, where images belong together, their groups: columns of its file."""

    def field(name: str, kind: str, *, path: str = "", references: str = "") -> Json:
        source: Json = {"fileObject": {"@id": f"{file.part}.parquet"}, "extract": {"column": name}}
        return {
            "@type": "cr:Field",
            "@id": f"{file.part}/{name}",
            "name": name,
            "dataType": kind,
            "source": {**source, **({"transform": {"jsonPath": path}} if path else {})},
            **({"references": {"field": {"@id": references}}} if references else {}),
        }

    return {
        "@type": "cr:RecordSet",
        "@id": file.part,
        "name": file.part,
        "description": f"The images of {file.part}.parquet: PNG, in the size in which they were read.",
        "field": [
            field("image", "sc:ImageObject", path="bytes"),
            field("label", "sc:Integer", references="classes/label"),
            *([field("group", "sc:Integer")] if grouped else []),
        ],
    }
