"""Small data sets in the layouts in which the real ones are released, written file by file."""

import gzip
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

TINY_CLASSES = {
    "n01443537": "goldfish, Carassius auratus",
    "n02124075": "Egyptian cat",
    "n01910747": "jellyfish",
}


def random_pixels(seed: int, height: int, width: int) -> np.ndarray:
    """Return pixels (height, width, 3) that no other seed gives, smooth enough for JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, sizes: dict[str, int], *, packed: bool = False) -> None:
    """Write `train-images-idx3-ubyte` and so on, for the parts `train` and `t10k`."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, size) in enumerate(sizes.items()):
        images = np.random.default_rng(seed).integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = np.arange(size, dtype=np.uint8) % 10
        for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            data = idx(array)
            if packed:
                (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(data))
            else:
                (folder / f"{name}-ubyte").write_bytes(data)


def write_cifar10(root: Path, records: int) -> None:
    """Write five training files and one test file of so many records each."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for number, name in enumerate(names):
        data = b""
        for index in range(records):
            pixels = random_pixels(100 * number + index, 32, 32)
            data += bytes([index % 10]) + pixels.transpose(2, 0, 1).tobytes()
        (folder / name).write_bytes(data)


def write_gtsrb(root: Path, classes: Iterable[int], images: int, *, official: bool = True) -> None:
    """Write GTSRB as released, or where torchvision unpacks it; sizes from 15 x 16 upwards."""
    base = root / "GTSRB" if official else root / "gtsrb" / "GTSRB"
    training = base / ("Final_Training/Images" if official else "Training")
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    tests = header
    for label in classes:
        folder = training / f"{label:05d}"
        rows = header
        for index in range(images):
            height, width = 15 + 7 * index, 16 + 5 * index
            name = f"{index // 30:05d}_{index % 30:05d}.ppm"
            save(folder / name, random_pixels(1000 * label + index, height, width))
            rows += f"{name};{width};{height};2;3;{width - 4};{height - 5};{label}\n"
        (folder / f"GT-{label:05d}.csv").write_text(rows)
        save(base / "Final_Test" / "Images" / f"{label:05d}.ppm", random_pixels(label, 21, 20))
        tests += f"{label:05d}.ppm;20;21;1;1;18;19;{label}\n"
    table = base / "Final_Test" / "Images" if official else base.parent
    (table / "GT-final_test.csv").write_text(tests)


def write_tiny_imagenet(root: Path, images: int) -> None:
    """Write three classes; the first training image of each is grey."""
    base = root / "tiny-imagenet-200"
    annotations = ""
    for label, known in enumerate(TINY_CLASSES):
        folder = base / "train" / known
        boxes = ""
        for index in range(images):
            pixels = random_pixels(100 * label + index, 64, 64)
            name = f"{known}_{index}.JPEG"
            save(folder / "images" / name, pixels[..., 0] if index == 0 else pixels)
            boxes += f"{name}\t0\t10\t63\t58\n"
        (folder / f"{known}_boxes.txt").write_text(boxes)
        name = f"val_{label}.JPEG"
        save(base / "val" / "images" / name, random_pixels(900 + label, 64, 64))
        annotations += f"{name}\t{known}\t0\t32\t44\t62\n"
    (base / "val" / "val_annotations.txt").write_text(annotations)
    (base / "wnids.txt").write_text("".join(f"{known}\n" for known in TINY_CLASSES))
    words = "".join(f"{known}\t{word}\n" for known, word in TINY_CLASSES.items())
    (base / "words.txt").write_text(words + "n00001740\tentity\n")


def write_faces(root: Path, sizes: dict[str, int], side: int = 250) -> None:
    """Write so many images of side x side pixels for each identity."""
    for label, (identity, count) in enumerate(sizes.items()):
        for index in range(count):
            pixels = random_pixels(1000 * label + index, side, side)
            save(root / identity / f"{index + 1:03d}.jpg", pixels)
