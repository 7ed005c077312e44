"""RapidOCR, a program written for onnxruntime, with that one import changed: it reads text on sepconv.

pip install '.[onnx]' pillow opencv-python-headless pyclipper shapely pyyaml
pip install --no-deps rapidocr-onnxruntime

python examples/rapidocr_on_sepconv.py PHOTOGRAPH
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np


def drawn(text: str) -> Any:
    """A picture [h, w, 3] of a line of text."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (60 + 28 * len(text), 120), "white")
    ImageDraw.Draw(image).text((30, 30), text, fill="black", font=ImageFont.load_default(48))
    return np.asarray(image)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", help="a photograph with text in it")
    parser.add_argument("--text", default="depthwise", help="without a photograph: a line to draw and read again")
    parser.add_argument("--runtime", choices=("sepconv", "onnxruntime"), default="sepconv")
    arguments = parser.parse_args()
    if arguments.runtime == "sepconv":
        import sepconv

        sys.modules["onnxruntime"] = sepconv  # in one's own program: import sepconv as onnxruntime
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR()
    print("runs on", type(engine.text_det.infer.session).__module__.split(".")[0])
    found, _ = engine(arguments.image or drawn(arguments.text))
    for box, text, score in found or []:
        corners = " ".join(f"{x:.0f},{y:.0f}" for x, y in box)
        print(f"{text}  {float(score):.3f}  at {corners}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
