#!/usr/bin/env bash
# All benchmarks of this folder, one after the other: eleven minutes at most on one 80 GB card.
#
#   benchmarks/gpu/run_all.sh [FOLDER] [--small]      # from anywhere; FOLDER: docs/results/gpu
#
# A part whose record lies in FOLDER is left out, so that an interrupted run goes on where it stopped.  --small runs on
# a CPU too and says nothing about speed.  Exit status: the number of parts that failed.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
small=() folder=docs/results/gpu failed=0
for word in "$@"; do
    case $word in
    --small) small=(--small) ;;
    -*) echo "error: $word is unknown; usage: benchmarks/gpu/run_all.sh [FOLDER] [--small]" >&2; exit 2 ;;
    *) folder=$word ;;
    esac
done
mkdir -p "$folder"

part() { # part RECORD SECONDS MODULE ARGUMENTS…
    local record=$folder/$1.json limit=$2 module=$3
    shift 3
    if [ -s "$record" ]; then
        echo "$record is there: left out"
        return
    fi
    echo "== ${record##*/}, at most $limit s"
    timeout "$limit" "${PYTHON:-python3}" -m "benchmarks.gpu.$module" "$@" "${small[@]}" --output "$record" || {
        echo "error: ${record##*/} failed with status $? (124: over its $limit s)" >&2
        failed=$((failed + 1))
    }
}

part attention 90 attention
part linear_divergence 100 linear_divergence
part learner_step_0.6B 130 learner_step --model 0.6B --repeats 3
part learner_step_1.7B 160 learner_step --model 1.7B --repeats 3
part learner_step_8B 180 learner_step --model 8B --sequences 4 --repeats 2
exit "$failed"
