"""Draws an image: `healthgpt draw` under the original's file name.

python demo/gen_infer.py --model m3 --question "Reconstruct the image." --img_path ct.png --save_path out.png
"""

import sys

from healthgpt.cli import main

if __name__ == "__main__":
    sys.exit(main(["draw", *sys.argv[1:]]))
