"""The web app: `healthgpt app`. python demo/app.py --model nano --port 7860"""

import sys

from healthgpt.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
