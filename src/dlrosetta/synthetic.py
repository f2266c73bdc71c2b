"""Makes synthetic X-rays: images with spots whose places are their findings, in the layout of ChestX-ray14.

`python -m dlrosetta.synthetic FOLDER --train N --test N --side PIXELS` writes a set of any size; the sample that
ships with the package is made so. They are no X-rays, and nothing learnt from them is worth anything.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

# The fourteen findings of ChestX-ray14.
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip


def image(findings: np.ndarray, side: int, random: np.random.RandomState) -> np.ndarray:
    """Gray pixels (side, side), uint8: two dark lungs, a bright spine, and a spot at the place of each finding."""
    y, x = np.mgrid[0:side, 0:side] / side
    field = 150.0 - 90 * sum(np.exp(-((((x - c) / 0.13) ** 2 + ((y - 0.5) / 0.3) ** 2) ** 2)) for c in (0.28, 0.72))
    field += 60 * np.exp(-(((x - 0.5) / 0.06) ** 2))
    for number in np.flatnonzero(findings):
        angle = 2 * np.pi * number / len(findings)
        place = 0.5 + 0.33 * np.array([np.cos(angle), np.sin(angle)]) + random.normal(0, 0.01, 2)
        field += 70 * np.exp(-(((x - place[0]) ** 2 + (y - place[1]) ** 2) / 0.004))
    field += random.normal(0, 10) + 6 * np.sin(2 * np.pi * (x * random.uniform(8, 24) + y * random.uniform(8, 24)))
    return np.clip(field, 0, 255).astype(np.uint8)


def write(folder: Path, train: int, test: int, side: int, seed: int = 0) -> None:
    """Write a table and images; each finding is there in three of ten images, and both ways in every part."""
    from PIL import Image

    random = np.random.RandomState(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, int, str]] = []
    for part, count in (("train", train), ("test", test)):
        truth = random.uniform(size=(count, len(FINDINGS))) < 0.3
        truth[0], truth[1] = True, False
        for findings in truth:
            name = f"{len(rows):08d}_000.png"
            Image.fromarray(image(findings, side, random)).save(folder / "images" / name, optimize=True)
            named = "|".join(f for f, there in zip(FINDINGS, findings, strict=True) if there) or "No Finding"
            rows.append((name, named, len(rows), part))
    with open(str(folder / "Data_Entry_2017.csv"), "w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("Image Index", "Finding Labels", "Patient ID", "Split"))
        writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for name, default in (("train", 32), ("test", 16), ("side", 280)):
        parser.add_argument("--" + name, type=int, default=default)
    given = parser.parse_args()
    write(given.folder, given.train, given.test, given.side)
