#!/usr/bin/env bash
# Renews docs/assets/fonts from Fontsource's packages (SIL Open Font License; fonts' names and licences are in that folder's
# README). Needs npm, and pip install fonttools brotli. The site is built without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$PWD/docs/assets/fonts
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
cd "$packed"
for package in @fontsource-variable/hanken-grotesk@5.3.0 @fontsource/newsreader@5.3.0 @fontsource/stix-two-math@5.3.0; do
    tar xzf "$(npm pack --silent "$package")" --one-top-level="$(basename "${package%@*}")"
done
cp hanken-grotesk/package/files/hanken-grotesk-latin-wght-normal.woff2 "$folder/text.woff2"
cp newsreader/package/files/newsreader-latin-500-normal.woff2 "$folder/display.woff2"
# Of the mathematical font what equations here use: letters, Greek, operators, and italics.
pyftsubset stix-two-math/package/files/stix-two-math-latin-400-normal.woff2 --flavor=woff2 --layout-features='*' \
    --unicodes='U+20-7E,U+B7,U+D7,U+391-3C9,U+2026,U+2032,U+2200-2265,U+2299,U+22C5,U+22EF,U+2A7D-2A7E,U+1D434-1D467,U+1D49C-1D4CF,U+2112,U+210E,U+1D6E2-1D71B' \
    --output-file="$folder/math.woff2"
