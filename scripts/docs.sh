#!/usr/bin/env bash
# Sets up, builds the website into site/, and checks it: links and anchors, spelling, that tables and numbers are those of
# benchmarks/results, the commands on its pages, and the pages in a browser (Chromium; apt-get install chromium).
#   bash scripts/docs.sh          all of it
#   bash scripts/docs.sh build    builds only; python -m http.server --directory site shows it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh docs
python=.venv/bin/python
$python scripts/update_tables.py --check
rm -rf site
$python -m mkdocs build --strict --quiet
[ "${1:-}" = build ] && exit 0
$python scripts/site/links.py site
$python scripts/site/spelling.py
HEALTHGPT_SITE=site $python -m pytest -q tests/test_site.py tests/test_site_browser.py tests/test_site_commands.py
echo "docs: site/index.html is built and checked" >&2
