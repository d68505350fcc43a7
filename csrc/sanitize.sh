#!/usr/bin/env bash
# The op's tests under AddressSanitizer and UndefinedBehaviorSanitizer: csrc/sanitize.sh [pytest's arguments]
# Builds a copy in a temporary folder with $CXX (g++) for $PYTHON (python). Three minutes.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r "$root"/{csrc,resonance,tests,setup.py,pyproject.toml,README.md,LICENSE} "$folder"
cd "$folder"
rm -f resonance/encoding/_op*.so

sanitizers="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
CFLAGS="$sanitizers" CXXFLAGS="$sanitizers" LDFLAGS="$sanitizers" RESONANCE_CUDA=0 \
  "${PYTHON:-python}" setup.py --quiet build_ext --inplace

# Python itself leaks by design, and holds no memory that our module allocates.
export LD_PRELOAD="$("${CXX:-g++}" -print-file-name=libasan.so) $("${CXX:-g++}" -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$folder" OMP_NUM_THREADS=2
"${PYTHON:-python}" -c 'from resonance.encoding.ops import implementation as i; assert i() != "torch reference", i()'
if [ $# = 0 ]; then set -- -k compiled tests/test_ops.py; fi
"${PYTHON:-python}" -m pytest -q --capture=sys "$@"  # which leaves the sanitizers their stderr
