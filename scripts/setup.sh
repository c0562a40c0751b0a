#!/usr/bin/env bash
# Creates .venv in the repository root and installs the pinned requirements; once that is done, a run takes no time.
#   bash scripts/setup.sh        what the demos need
#   bash scripts/setup.sh serve  and what the web app and the API need
#   bash scripts/setup.sh train  and what training needs (not the app)
#   bash scripts/setup.sh dev    and what the tests need
#   bash scripts/setup.sh docs   and what the website is built and checked with
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${1:-run}
case $profile in
run) requirements=(requirements.txt) ;;
serve) requirements=(requirements.txt requirements-serve.txt) ;;
train) requirements=(requirements.txt requirements-train.txt) ;;
dev) requirements=(requirements.txt requirements-serve.txt requirements-train.txt requirements-dev.txt) ;;
docs) requirements=(requirements.txt requirements-serve.txt requirements-train.txt requirements-dev.txt requirements-docs.txt) ;;
*) echo "setup: unknown profile $profile, expected run, serve, train, dev or docs" >&2; exit 2 ;;
esac
wanted=$(cat "${requirements[@]}" pyproject.toml | cksum)
stamp=.venv/.installed-$profile
[ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0

if [ ! -x .venv/bin/python ]; then
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            found=$python
            break
        fi
    done
    [ -n "${found:-}" ] || { echo "setup: Python 3.11 or newer is needed; set PYTHON to one" >&2; exit 2; }
    echo "setup: creating .venv with $("$found" --version)" >&2
    "$found" -m venv .venv
fi
echo "setup: installing ${requirements[*]} (once)" >&2
# torch first and pinned, so that nothing else pulls in another build of it
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep '^torch==' requirements.txt)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${requirements[@]/#/-r}"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
echo "$wanted" >"$stamp"
# A larger set-up holds the smaller ones.
cat requirements.txt pyproject.toml | cksum >.venv/.installed-run
if [ "$profile" = dev ] || [ "$profile" = docs ]; then
    cat requirements.txt requirements-serve.txt pyproject.toml | cksum >.venv/.installed-serve
    cat requirements.txt requirements-train.txt pyproject.toml | cksum >.venv/.installed-train
    cat requirements.txt requirements-serve.txt requirements-train.txt requirements-dev.txt pyproject.toml |
        cksum >.venv/.installed-dev
fi
