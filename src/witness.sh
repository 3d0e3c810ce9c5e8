#!/bin/sh
# A member of elect-run's process group, at a terminal only. It answers one question: did a signal that elect-run caught go to the whole
# group (Ctrl-C, Ctrl-Z, kill -TERM -PGID), so that the child has it already, or to elect-run alone, so that it has to be passed on?
#
# The kernel gives a group's signal to all members at once (kill(2)), and a shell runs its traps before the next command: what was sent to
# the group before the question came is told before the answer.
for signal in "$@"; do
  # shellcheck disable=SC2064
  trap "echo $signal" "$signal" 2>/dev/null
done
echo ready
while :; do
  if read -r question; then
    echo "asked $question"
  elif [ $? -le 128 ]; then
    exit 0 # the end of the input; above 128 a trap has interrupted the read
  fi
done
