#!/bin/sh
# Random code with random state on the interpreter, optimised, for ten minutes, from a seed that it prints. A crash or a hang
# prints the case, and how to repeat it. Usage: Tests/FuzzInterpreter/soak.sh [seed] [seconds]
set -eu
cd "$(dirname "$0")/../.."
seed=${1:-$(date +%s)}
seconds=${2:-600}
swift build -c release --product fuzz-interpreter
exec "$(swift build -c release --show-bin-path)/fuzz-interpreter" --seed "$seed" --seconds "$seconds"
