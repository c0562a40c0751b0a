#!/usr/bin/env bash
# Installs Chromium for the tests of pages where there is none and Debian's packages can be had; otherwise says that it is missing.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    ! command -v "$name" >/dev/null || exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test: installing Chromium (once)" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update; apt-get install --yes --no-install-recommends chromium; } >/dev/null 2>&1 && exit 0
fi
echo "test: there is no Chromium and none can be installed, so pages are not tested (apt-get install chromium)" >&2
