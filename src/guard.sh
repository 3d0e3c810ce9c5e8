#!/bin/sh
# elect-run-guard: the last line of defence, in a session of its own. It ends the child's tree when the lease is about to run out and
# elect-run has not said that it was renewed, or as soon as elect-run is gone. It covers what elect-run cannot: its own SIGKILL, SIGSTOP,
# OOM kill, a blocked event loop.
#
#   guard.sh elect-run-guard NODE CLEANUP NAP
#
# NAP: for how long the alarm sleeps at most before it looks at the clock again, in hundredths of a second.
# On stdin, one line each; its end means that elect-run is dead:
#   job TARGET START
#                   what kill(1) is to be given: -PGID, or the PID of a child that shares elect-run's group; and the child's start (proc(5), field 22), where it is known
#   facts PID:START … JSON
#                   who of the tree is known to have left the job's group, each with its start; and what the clean-up has to know (the
#                   tree's marks, the store, our place there). Kept in memory only: it may hold a password
#   until N         the lease is good until N, in hundredths of a second of /proc/uptime, a clock that never jumps
#   forever         there is nothing that runs out
#   down            stand down: the tree is dead
# On stdout: "ready", "armed N" for each "until" and "forever", and "unarmed" where no process can be started for the alarm.
set -u
node=$2 cleanup=$3 longest=$4
job='' job_start='' strays='' facts='{}' alarm='' elect_run=$PPID elect_run_start=''

# What proc(5) tells of a process behind its name, which may hold anything, line ends too. Fails where there is none.
look_at() {
  stat='' state='' start=''
  { while read -r line; do stat="$stat $line"; done <"/proc/$1/stat"; } 2>/dev/null
  [ -n "$stat" ] || return
  set -- ${stat##*) }
  state=$1 start=${20-}
}

# Of whom was looked at.
is_over() { case $state in Z* | X*) ;; *) false ;; esac; }

employ() { job=${1-} job_start=${2-}; }

# A dead child's number is given to nobody while any member of its group lives (kernel/pid.c: a number is free when no process has it, nor any group or session).
is_anothers() { [ -n "$job_start" ] && look_at "${job#-}" && [ "$start" != "$job_start" ]; }

signal_job() { [ -z "$job" ] || is_anothers || kill -s "$1" -- "$job" 2>/dev/null; }

# All that can be done without another process. Not to those who have such a pid now.
signal_known() {
  signal_job "$1"
  for stray in $strays; do
    look_at "${stray%:*}" && [ "$start" = "${stray#*:}" ] && kill -s "$1" "${stray%:*}" 2>/dev/null
  done
}

kill_known() { signal_known KILL; }

# Only where that is sure: whoever cannot be looked at, as where no descriptor is left, is taken for alive.
elect_run_is_dead() {
  [ -n "$elect_run_start" ] || return
  [ -e "/proc/$elect_run" ] || return 0
  look_at "$elect_run" || return
  is_over || [ "$start" != "$elect_run_start" ]
}

# What left the group is found and ended by a program that can read /proc; it is started only when it is needed, for its size.
clean_up() { printf '%s\n' "$facts" | "$node" "$cleanup" "$1"; }

# On a busy machine that may take longer than the margin. So an alarm that is about to go off has it loaded already: it begins when it is sent CONT at the deadline or
# later, which is sent until it has ended. Without a deadline it begins at once.
get_ready() {
  [ -n "$ready" ] && return
  printf '%s\n' "$facts" | "$node" "$cleanup" end "$@" 3<&- &
  ready=$!
}

stand_easy() {
  [ -z "$ready" ] || { kill -s KILL "$ready"; wait "$ready"; } 2>/dev/null
  ready=''
}

runs() { [ -n "$1" ] && look_at "$1" && ! is_over; }

read_clock() {
  read -r up _ </proc/uptime
  clock=${up%.*}${up#*.}
}

# Fails where it has failed, or there is none. Whom it was to find first does not wait for it longer than a nap from the deadline on.
await_clean_up() {
  while runs "$ready"; do
    kill -s CONT "$ready" 2>/dev/null
    sleep 0.05
    read_clock
    [ $((clock - deadline)) -lt "$longest" ] || kill_known
  done
  { [ -n "$ready" ] && wait "$ready"; } 2>/dev/null
}

finish() {
  await_clean_up && return
  kill_known
  clean_up end
}

# Whom it is for may be dead: that is told by the end of stdin.
answer() { echo "$1"; } 2>/dev/null

# What the guard tells a running alarm. An alarm that sleeps hears it at once, and answers for itself.
hear() {
  while read -r word rest <&3; do
    case $word in
      until) deadline=$rest; answer "armed $rest" ;;
      off) call_off ;;
    esac
  done
}

doze() { sleep "$1" 3<&- & nap=$!; }

call_off() {
  trap - EXIT
  [ -z "$nap" ] || { kill -s KILL "$nap"; wait "$nap"; } 2>/dev/null
  stand_easy
  exit 0
}

# The alarm: a process of its own, which outlives the guard, and takes its place when elect-run is dead as well. Descriptor 3 is a pipe into which the guard writes for a moment only, and which the nap
# holds open: it ends with the nap, whoever ended it, and not before all that was told has been read. So the clock is looked at again after each nap, and a
# deadline that was told by then counts also after a stall. Naps are short, since sleep(1) counts no time in which the machine was suspended. Where the shell has no pipe for it nothing can be
# told, and the guard sets a new alarm for each deadline: this one is called off with USR1, which is never ignored here. A TERM that came before the trap was set would be lost,
# and an alarm for a deadline that has moved would kill.
watch_the_clock() {
  nap='' ready='' deadline=$until
  trap call_off USR1
  trap watch_without_naps EXIT
  while is_early; do
    if [ "$left" -gt $((2 * longest)) ]; then stand_easy; else get_ready "$deadline"; fi
    [ "$left" -lt "$longest" ] || left=$longest
    part=$((left % 100))
    [ "$part" -gt 9 ] || part=0$part
    { doze "$((left / 100)).$part"; } >/proc/self/fd/3 || doze "$((left / 100)).$part"
    hear
    wait "$nap"
    nap=''
    if is_left_alone; then take_over; fi
  done
  go_off
}

is_early() {
  read_clock
  hear
  left=$((deadline - clock))
  [ "$left" -gt 0 ]
}

# Where no process can be started the shell ends, and this is all that is left to it. elect-run, if it is well, does not let it last.
watch_without_naps() {
  answer unarmed
  while is_early; do :; done
  kill_known
  finish
}

# A guard that is frozen is there. A zombie, which pid 1 may leave for long, has no program (proc(5), exe).
is_left_alone() { [ ! -e "/proc/$$/exe" ] && elect_run_is_dead; }

# What the guard would do, but for giving the lease back: of those who left the job's group meanwhile some may have got out of sight. It is done after each nap until it succeeds.
take_over() {
  trap kill_known EXIT
  signal_known STOP
  get_ready
  await_clean_up && exit
  ready=''
  kill_known
  trap watch_without_naps EXIT
}

# While elect-run lives nobody gets out of its sight, and nothing delays the kill.
go_off() {
  trap kill_known EXIT
  if elect_run_is_dead; then
    signal_known STOP
    get_ready "$deadline"
  else
    kill_known
  fi
  finish
}

# A pipe without another process is that of a here-document. bash before 5.1 and mksh make a file for it, by which nothing can be told, and which cannot be made on a full disk.
has_pipes=''
{ [ -p /proc/self/fd/3 ] && has_pipes=yes; } 2>/dev/null 3<<PIPE
pipe
PIPE

# Fails where that alarm is not alive, or cannot hear.
tell() { [ -p "/proc/$1/fd/3" ] && echo "$2" >"/proc/$1/fd/3"; } 2>/dev/null

disarm() {
  [ -z "$1" ] || { tell "$1" off || kill -s USR1 "$1"; wait "$1"; } 2>/dev/null
}

# The old alarm goes when the new one is there: where no process can be started this is the end of the guard, but not of its alarm.
arm() {
  old=$alarm alarm=''
  trap 'answer unarmed' EXIT
  if [ "$until" = forever ]; then
    :
  elif [ -n "$has_pipes" ]; then
    { watch_the_clock </dev/null & alarm=$!; } 3<<PIPE
pipe
PIPE
  else
    watch_the_clock </dev/null 3</dev/null & alarm=$!
  fi
  trap - EXIT
  disarm "$old"
}

# Deadlines move later, and then the alarm is told; otherwise there is a new one.
move() {
  before=$until until=$1
  [ "$before" != forever ] && [ "$until" -ge "$before" ] && tell "$alarm" "until $until" && return
  arm
  answer "armed $until"
}

# A service manager that ends a unit signals all of its processes. The guard goes when elect-run is gone, not before.
trap '' HUP INT QUIT TERM PIPE
until=forever
answer ready
look_at "$elect_run" && elect_run_start=$start
while IFS=' ' read -r word rest; do
  case $word in
    until) move "$rest" ;;
    forever) until=forever; arm; answer "armed forever" ;;
    job) employ $rest; arm ;;
    facts) strays=${rest%%"{"*} facts={${rest#*"{"}; arm ;;
    down) disarm "$alarm"; exit 0 ;;
  esac
done
# elect-run is dead, so orphans go to init, and only from living parents does a trace lead to those that left the group. Hence the clean-up finds
# all of them where all who are known are stopped, and then kills. The alarm stays armed meanwhile, and where the clean-up has failed it outlives the guard, to try
# again. Where no process can be started the shell itself ends with it.
trap kill_known EXIT
signal_known STOP
clean_up release || exit
trap - EXIT
kill_known
disarm "$alarm"
