#!/bin/sh
# A member of elect-run's process group, at a terminal only. It answers one question: did a signal that elect-run caught go to the whole
# group (Ctrl-C, Ctrl-Z, kill -TERM -PGID), so that the child has it already, or to elect-run alone, so that it has to be passed on?
#
# The kernel gives a group's signal to all members at once (kill(2)), and a shell runs its traps before the next command: what was sent to
# the group before the question came is told before the answer.
interrupted=''
for signal in "$@"; do
  # shellcheck disable=SC2064
  trap "interrupted=1; echo $signal" "$signal" 2>/dev/null
done
echo ready
while :; do
  if read -r question; then
    echo "asked $question"
  elif [ -n "$interrupted" ]; then # a trap ends the read, and not every shell says so by its status
    interrupted=''
  else
    exit 0
  fi
done
