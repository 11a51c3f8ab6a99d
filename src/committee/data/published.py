"""The data sets that are known by name and were published as files: their checksums, mirrors, classes and licences.

The checksums are those of the files as their authors published them; torchvision, TensorFlow Datasets, medmnist and
others publish the same ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from committee.data.formats import emnist

DIGITS = tuple("0123456789")
_IDX = tuple(f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


@dataclass(frozen=True)
class Published:
    """A data set that its authors published.

    Attributes:
        class_names: in the order of the labels.
        sums: the checksum of each file on the mirrors, by file name: SHA-256 in hexadecimal, or "md5:..." where only
            that is published.
        mirrors: addresses that a file name is appended to, tried in turn.
        cache: folder in the cache; data sets from one archive share it.
        places: folders where Linux distributions put the files.
        package: the Debian package of these files.
        idx_prefix: what precedes "train-images-..." in the files' names.
        transposed: whether images are stored with rows and columns exchanged.
        first_label: the label of the first class.
        form: how the files are read: "idx", "npz", "mat", "libsvm" or "binary".
        unpacked: the names of the files that are needed from an archive (.tar.gz); without, those in `sums` are.
        folders: what a folder with these files is also called, by other programs.
        licence: in a few words.
        citation: the publication that describes it.
    """

    class_names: tuple[str, ...]
    sums: dict[str, str]
    mirrors: tuple[str, ...]
    cache: str
    places: tuple[Path, ...] = ()
    package: str = ""
    idx_prefix: str = ""
    transposed: bool = False
    first_label: int = 0
    form: Literal["idx", "npz", "mat", "libsvm", "binary"] = "idx"
    unpacked: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""


def _idx_sums(*sums: str) -> dict[str, str]:
    """Checksums of the four IDX files, in their order, by name."""
    return dict(zip(_IDX, sums, strict=True))


def _emnist(name: str) -> Published:
    first_label, class_names = emnist.EMNIST[name]
    return Published(
        class_names=class_names,
        sums={"gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"},
        mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/", "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/"),
        cache="emnist",
        idx_prefix=f"{name}-",
        transposed=True,
        first_label=first_label,
        licence="no licence stated; from the public NIST Special Database 19",
        citation='Cohen, Afshar, Tapson & van Schaik 2017, "EMNIST: an extension of MNIST to handwritten letters", '
        "arXiv 1702.05373",
    )


_KUZUSHIJI = 'Clanuwat et al. 2018, "Deep learning for classical Japanese literature", arXiv 1812.01718'
_KANA = """
a i u e o ka ki ku ke ko sa shi su se so ta chi tsu te to na ni nu ne no ha hi fu he ho ma mi mu me mo ya yu yo
ra ri ru re ro wa wi we wo n iteration
"""

_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

_MEDMNIST: dict[str, tuple[str, tuple[str, ...], str]] = {
    "pathmnist": (
        "a8b06965200029087d5bd730944a56c1",
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        "CC BY 4.0",
    ),
    "dermamnist": (
        "0744692d530f8e62ec473284d019b0c7",
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        "CC BY-NC 4.0",
    ),
    "octmnist": (
        "c68d92d5b585d8d81f7112f81e2d0842",
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        "CC BY 4.0",
    ),
    "pneumoniamnist": ("28209eda62fecd6e6a2d98b1501bb15f", ("normal", "pneumonia"), "CC BY 4.0"),
    "retinamnist": ("bd4c0672f1bba3e3a89f0e4e876791e4", ("0", "1", "2", "3", "4"), "CC BY 4.0"),
    "breastmnist": ("750601b1f35ba3300ea97c75c52ff8f6", ("malignant", "normal, benign"), "CC BY 4.0"),
    "bloodmnist": (
        "7053d0359d879ad8a5505303e11de1dc",
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        "CC BY 4.0",
    ),
    "tissuemnist": (
        "ebe78ee8b05294063de985d821c1c34b",
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        "CC BY 4.0",
    ),
    "organamnist": ("68e3f8846a6bd62f0c9bf841c0d9eacc", _ORGANS, "CC BY 4.0"),
    "organcmnist": ("b9ceb9546e10131b32923c5bbeaea2b1", _ORGANS, "CC BY 4.0"),
    "organsmnist": ("9ab87b696fb54e2a387ebe992d6ed5f1", _ORGANS, "CC BY 4.0"),
}
"""The 2-D sets of MedMNIST v2 with one label an image: MD5, classes, licence, as its package `medmnist` 3.0.2 has them.

Source: Yang et al. 2023, "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
classification", Scientific Data 10, 41.
"""


def _medmnist(name: str, md5: str, class_names: tuple[str, ...], licence: str) -> Published:
    return Published(
        class_names=class_names,
        sums={f"{name}.npz": f"md5:{md5}"},
        mirrors=("https://zenodo.org/records/10519652/files/", "https://zenodo.org/record/6496656/files/"),
        cache="medmnist",
        places=(Path(os.path.expanduser("~/.medmnist")),),  # noqa: PTH111 (Path.home fails where there is no home)
        form="npz",
        folders=("medmnist",),
        licence=licence,
        citation='Yang et al. 2023, "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image '
        'classification", Scientific Data 10, 41',
    )


PUBLISHED = {
    "mnist": Published(
        class_names=DIGITS,
        citation='LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition", '
        "Proceedings of the IEEE 86, 2278-2324",
        sums=_idx_sums(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        cache="mnist",
        licence="CC BY-SA 3.0",
        places=(Path("/usr/share/datasets/mnist"),),
    ),
    "fashion-mnist": Published(
        class_names=("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
        citation='Xiao, Rasul & Vollgraf 2017, "Fashion-MNIST: a novel image dataset for benchmarking machine learning '
        'algorithms", arXiv 1708.07747',
        sums=_idx_sums(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        cache="fashion-mnist",
        licence="MIT",
        places=(Path("/usr/share/datasets/fashion-mnist"),),
        package="dataset-fashion-mnist",
    ),
    "kmnist": Published(
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        sums=_idx_sums(
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        cache="kmnist",
        licence="CC BY-SA 4.0",
        citation=_KUZUSHIJI,
    ),
    **{
        name: _emnist(name)
        for name in ("emnist-balanced", "emnist-byclass", "emnist-bymerge", "emnist-letters", "emnist-digits")
    },
    "kmnist-49": Published(
        class_names=tuple(_KANA.split()),
        sums={
            "k49-train-imgs.npz": "md5:7ac088b20481cf51dcd01ceaab89d821",
            "k49-train-labels.npz": "md5:44a8e1b893f81e63ff38d73cad420f7a",
            "k49-test-imgs.npz": "md5:d352e201d846ce6b94f42c990966f374",
            "k49-test-labels.npz": "md5:4da6f7a62e67a832d5eb1bd85c5ee448",
        },
        mirrors=("https://codh.rois.ac.jp/kmnist/dataset/k49/", "http://codh.rois.ac.jp/kmnist/dataset/k49/"),
        cache="kmnist-49",
        form="npz",
        folders=("k49", "K49", "Kuzushiji49"),
        licence="CC BY-SA 4.0",
        citation=_KUZUSHIJI,
    ),
    "qmnist": Published(
        class_names=DIGITS,
        sums={
            "qmnist-train-images-idx3-ubyte.gz": "md5:ed72d4157d28c017586c42bc6afe6370",
            "qmnist-train-labels-idx2-int.gz": "md5:0058f8dd561b90ffdd0f734c6a30e5e4",
            "qmnist-test-images-idx3-ubyte.gz": "md5:1394631089c404de565df7b7aeaf9412",
            "qmnist-test-labels-idx2-int.gz": "md5:5b5b05890a5e13444e108efe57b788aa",
        },
        mirrors=(
            "https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
            "https://github.com/facebookresearch/qmnist/raw/master/",
        ),
        cache="qmnist",
        idx_prefix="qmnist-",
        licence="BSD, as its authors say",
        citation='Yadav & Bottou 2019, "Cold case: the lost MNIST digits", arXiv 1905.10498',
    ),
    "svhn": Published(
        class_names=DIGITS,
        sums={
            "train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
        },
        mirrors=("http://ufldl.stanford.edu/housenumbers/", "https://ufldl.stanford.edu/housenumbers/"),
        cache="svhn",
        form="mat",
        licence="for non-commercial use only",
        citation='Netzer et al. 2011, "Reading digits in natural images with unsupervised feature learning"',
    ),
    "usps": Published(
        class_names=DIGITS,
        sums={
            "usps.bz2": "md5:ec16c51db3855ca6c91edd34d0e9b197",
            "usps.t.bz2": "md5:8ea070ee2aca1ac39742fdd1ef5ed118",
        },
        mirrors=(
            "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/",
            "http://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/",
        ),
        cache="usps",
        form="libsvm",
        licence="none stated",
        citation='Hull 1994, "A database for handwritten text recognition research", IEEE Transactions on Pattern '
        "Analysis and Machine Intelligence 16, 550-554",
    ),
    "cifar-10": Published(
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        sums={"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
        mirrors=(
            "https://www.cs.toronto.edu/~kriz/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
        ),
        cache="cifar-10",
        form="binary",
        unpacked=(*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
        folders=("cifar-10-batches-bin",),
        licence="none stated",
        citation='Krizhevsky 2009, "Learning multiple layers of features from tiny images"',
    ),
    **{name: _medmnist(name, *entry) for name, entry in _MEDMNIST.items()},
}
