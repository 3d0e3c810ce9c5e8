#!/bin/sh
# elect-run-guard: the last line of defence, in a session of its own. It ends the child's tree when the lease is about to run out and
# elect-run has not said that it was renewed, or as soon as elect-run is gone. It covers what elect-run cannot: its own SIGKILL, SIGSTOP,
# OOM kill, a blocked event loop.
#
#   guard.sh elect-run-guard NODE CLEANUP
#
# On stdin, one line each; its end means that elect-run is dead:
#   job TARGET      what kill(1) is to be given: -PGID, or the PID of a child that shares elect-run's group
#   facts JSON      what the clean-up has to know (the tree's marks, the store, our place there). Kept in memory only: it may hold a password
#   until N         the lease is good until N, in hundredths of a second of /proc/uptime, a clock that never jumps
#   forever         there is nothing that runs out
#   down            stand down: the tree is dead
# On stdout: "ready", and "armed N" for each "until" and "forever".
set -u
node=$2 cleanup=$3
job='' facts='{}' alarm=''

signal_job() { [ -z "$job" ] || kill -s "$1" -- "$job" 2>/dev/null; }

# What left the group is found and ended by a program that can read /proc; it is started only now, for its size.
clean_up() { printf '%s\n' "$facts" | "$node" "$cleanup" "$1"; }

# Sleeps in pieces, since a sleep may be ended from outside, and looks at the clock again before it acts. It is called off with USR1, which is never
# ignored here: a TERM that came before the trap was set would be lost, and an alarm for a deadline that has moved would kill.
watch_the_clock() {
  older=${!-} # what $! is before there is a nap of ours
  trap '[ "${!-}" = "$older" ] || { kill -s KILL "$!"; wait "$!"; } 2>/dev/null; exit 0' USR1
  while
    read -r up _ </proc/uptime
    left=$(($1 - ${up%.*}${up#*.}))
    [ "$left" -gt 0 ]
  do
    part=$((left % 100))
    [ "$part" -gt 9 ] || part=0$part
    sleep "$((left / 100)).$part" &
    wait "$!"
  done
  signal_job KILL
  clean_up end
}

disarm() {
  [ -z "$alarm" ] || { kill -s USR1 "$alarm" 2>/dev/null; wait "$alarm" 2>/dev/null; }
  alarm=''
}

arm() {
  disarm
  [ "$until" = forever ] || { watch_the_clock "$until" </dev/null >/dev/null & alarm=$!; }
}

# A service manager that ends a unit signals all of its processes. The guard goes when elect-run is gone, not before.
trap '' HUP INT QUIT TERM
until=forever
echo ready
while IFS=' ' read -r word rest; do
  case $word in
    until) until=$rest && arm && echo "armed $rest" ;;
    forever) until=forever && arm; echo "armed forever" ;;
    job) job=$rest && arm ;;
    facts) facts=$rest && arm ;;
    down) disarm && exit 0 ;;
  esac
done
# elect-run is dead, so orphans go to init, and only from living parents does a trace lead to those that left the group. Hence the clean-up finds
# all of them in a group that is stopped, and then kills. The alarm stays armed meanwhile.
signal_job STOP
clean_up release
signal_job KILL
disarm
