#!/usr/bin/env bash
# Benchmarks for a bare machine with a GPU and no network, the most important first: the CUDA kernels against the
# reference, the speed of kernels and steps, then cells of the tables. Call it again to go on: what is done stays done.
#
#   bash benchmarks/gpu.sh FOLDER [--minutes 25] [--dry-run] [--device cuda] [--size paper]
#
# FOLDER is what benchmarks/gpu_prepare.sh collected: wheels/ and work/. No command takes more than 9 minutes. JSON files
# go to benchmarks/results and, packed, to $OUT after every command.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath "${1:?give the folder that gpu_prepare.sh made}"); shift
minutes=25 device=cuda size=paper dry=
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --size) size=$2; shift 2 ;;
    --dry-run) dry=1; shift ;;
    *) echo "unknown: $1" >&2; exit 2 ;;
  esac
done
python=${PYTHON:-python3}
site=${SITE:-/tmp/craym_site}
state=$folder/work/done
results=${RESULTS:-$PWD/benchmarks/results}
ends=$(($(date +%s) + minutes * 60))
export OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1 PYTHONPATH=$PWD:$site CRAYM_COMMIT=$(cat "$folder/commit" 2>/dev/null || echo unknown)

left() { echo $((ends - $(date +%s))); }

pack() {
  [ -n "${OUT:-}" ] && [ -z "$dry" ] || return 0
  tar -czf "$OUT/results.tgz" -C "$results" . && cp -f "$folder"/work/*.log "$OUT/" 2>/dev/null
  return 0
}

# A command that is not repeated once it has succeeded, 9 minutes at most.
once() {
  local name=$1 seconds; shift
  if [ -n "$dry" ]; then echo "$name: $*"; return; fi
  [ -e "$state/$name" ] && return
  seconds=$(left)
  if [ "$seconds" -lt 20 ]; then echo "$name: no time left"; return; fi
  [ "$seconds" -gt 540 ] && seconds=540
  echo "== $name ($(date +%T))"
  if timeout "$seconds" "$@" 2>&1 | tee "$folder/work/$name.log"; then touch "$state/$name"; else echo "$name: failed"; fi
  pack
}

# Cells of a table; each call ends by itself within 9 minutes and goes on with unfinished cells in the next one.
cells() {
  local table=$1 only=$2 seconds part
  if [ -n "$dry" ]; then echo "cells: $python -m benchmarks.run $table --size $size --device $device --only '$only' --minutes 7"; return; fi
  while seconds=$(left); [ "$seconds" -ge 60 ]; do
    part=$(awk "BEGIN { print ($seconds < 420 ? $seconds : 420) / 60 }")
    timeout 540 "$python" -m benchmarks.run "$table" --size "$size" --device "$device" --only "$only" --minutes "$part" \
      --results "$results" --work "$folder/work" | tee "$folder/work/cells_$table.log"
    pack
    grep -q "not finished in time\|out of time" "$folder/work/cells_$table.log" || break
  done
}

if [ -z "$dry" ]; then
  mkdir -p "$state" "$results"
  if compgen -G "$folder/wheels/*.whl" >/dev/null && [ ! -e "$site/.done" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" \
      "$folder"/wheels/*.whl && touch "$site/.done" || exit 1
  fi
fi

[ "$device" = cuda ] && once kernels "$python" -m pytest -q tests/fields/test_encoding_triton.py -k on_a_gpu
once reference "$python" -m pytest -q tests/fields/test_encoding.py
once encoding "$python" benchmarks/encoding.py --device "$device" --output "$results/encoding_$device.json"
once train_step "$python" benchmarks/train_step.py --method craym --device "$device" \
  --data "$folder/work/scenes/lego_400-100-400px" --noise barf --cache-dir "$folder/work/cache" --output "$results/train_step_$device.json"
cells poses "$size-lego_400-l2g-craym-seed0"
cells poses "$size-lego_400-barf-craym-seed0"
cells poses "$size-chair_400-l2g-craym-seed0,$size-chair_400-barf-craym-seed0"
cells poses "$size-dtu_scan24-colmap-craym-seed0,$size-dtu_scan24-barf-craym-seed0"
cells ablation "*seed0"
cells poses "*-l2g-photometric-seed0,*-l2g-nerfacto-seed0"
cells speed "*"
cells poses "*-craym-*"
pack
