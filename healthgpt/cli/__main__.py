"""`python -m healthgpt.cli`"""

import sys

from healthgpt.cli import main

sys.exit(main())
