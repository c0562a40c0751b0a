#!/usr/bin/env bash
# Sets up, builds the website into site/, and checks it: that numbers and tables are those of benchmarks/results, links and
# anchors, spelling, the commands on its pages, and the pages in a browser (Chromium; apt-get install chromium).
#   bash scripts/docs.sh          all of it
#   bash scripts/docs.sh build    builds only; python -m http.server --directory site shows it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh docs
bash scripts/chromium.sh
python=.venv/bin/python

build() {
    $python scripts/update_tables.py --check
    rm -rf site
    $python -m mkdocs build --strict --quiet
}
if [ "${1:-}" = build ]; then
    build
    exit
fi

# The commands take as long as the rest, which does not need them.
said=$(mktemp)
$python -m pytest -q tests/test_site_commands.py >"$said" 2>&1 &
commands=$!
trap 'kill "$commands" 2>/dev/null || true; rm -f "$said"' EXIT
build
$python scripts/site/links.py site
$python scripts/site/spelling.py
HEALTHGPT_SITE=site $python -m pytest -q tests/test_site.py tests/test_site_browser.py
wait "$commands" && failed=0 || failed=$?
cat "$said"
[ "$failed" = 0 ] && echo "docs: site/index.html is built and checked" >&2
exit "$failed"
