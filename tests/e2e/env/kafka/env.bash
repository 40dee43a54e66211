# shellcheck shell=bash disable=SC2034
# Sourced by `start` and `tool`: where the installed class path lies.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
libs=${KCBQ_CACHE:-$(cd "$here/../../../.." && pwd)/.cache/kcbq-e2e}/kafka/libs

if [[ ! -d $libs ]]; then
  echo "Kafka is not installed in $libs: run tests/e2e/env/install kafka" >&2
  exit 1
fi
