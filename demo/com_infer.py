"""Answers a question about an image: `healthgpt answer` under the original's file name.

python demo/com_infer.py --model m3 --question "Is there a pleural effusion?" --img_path chest.png
"""

import sys

from healthgpt.cli import main

if __name__ == "__main__":
    sys.exit(main(["answer", *sys.argv[1:]]))
