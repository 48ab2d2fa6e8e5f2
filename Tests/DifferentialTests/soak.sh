#!/bin/sh
# Ten million differential cases and a million sequences, in ten runs, each from a seed of its own that it prints. Stops at
# the first difference. Usage: Tests/DifferentialTests/soak.sh [first seed] [runs]
set -eu
cd "$(dirname "$0")/../.."
first=${1:-1}
runs=${2:-10}
swift build --build-tests
seed=$first
while [ "$seed" -lt $((first + runs)) ]; do
    WINDHOVER_DIFF_SEED=$seed WINDHOVER_DIFF_CASES=1000000 WINDHOVER_DIFF_SEQUENCES=100000 swift test --skip-build --filter AgreesWithTheHost\|AgreeWithTheHost
    seed=$((seed + 1))
done
