#!/bin/sh
# A driver without rules against every virtio device, optimised, from a seed that it prints. A crash or a hang prints the case.
# Usage: Tests/FuzzVirtio/soak.sh [seed] [seconds for all devices together]
set -eu
cd "$(dirname "$0")/../.."
seed=${1:-$(date +%s)}
seconds=${2:-600}
swift build -c release --product fuzz-virtio
exec "$(swift build -c release --show-bin-path)/fuzz-virtio" --seed "$seed" --seconds "$seconds"
