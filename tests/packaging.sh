#!/usr/bin/env bash
# Build the sdist and, from it, the wheel; check that the models are inside; run the wheel from
# another folder. Needs no network. Usage: tests/packaging.sh PYTHON (with the 'test' extra)
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --no-isolation --outdir "$work" . > "$work/build.log" || { cat "$work/build.log"; exit 1; }
wheel=$(echo "$work"/audiossm-*-py3-none-any.whl)
"$python" -m zipfile -l "$wheel" > "$work/files"
for name in audiossm/py.typed audiossm_kernels/__init__.py audiossm_apps/cli.py licenses/LICENSE \
    licenses/NOTICE audiossm/_assets/lexicon/english.txt.xz \
    audiossm/_assets/lm/books/ngrams.safetensors audiossm/_assets/audio/first-light.flac; do
    grep -q "$name" "$work/files" || { echo "packaging: the wheel lacks $name" >&2; exit 1; }
done
for file in apps/audiossm_apps/live/page/*; do
    grep -q "audiossm_apps/live/page/$(basename "$file")" "$work/files" \
        || { echo "packaging: the wheel lacks the page's $(basename "$file")" >&2; exit 1; }
done
for model in assets/models/*/; do
    for file in "$model"*; do
        name=audiossm/_assets/models/$(basename "$model")/$(basename "$file")
        grep -q "$name" "$work/files" || { echo "packaging: the wheel lacks $name" >&2; exit 1; }
    done
done
# -I keeps a checkout out of the way; only the wheel's own folder comes in front of site-packages
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
    --target "$work/site" "$wheel"
cp "$root/assets/audio/first-light.flac" "$work/audio.flac"
cd "$work"
text=$("$python" -I -c "
import sys
sys.path.insert(0, '$work/site')
import audiossm
assert audiossm.__file__.startswith('$work'), audiossm.__file__
from audiossm_apps.cli import main
sys.exit(main(['transcribe', 'audio.flac']))")
[ -n "$text" ] || { echo "packaging: the installed wheel recognised nothing" >&2; exit 1; }
echo "packaging: ok ($(du -k "$wheel" | cut -f1) kB): $text"
