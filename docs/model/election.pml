/*
 * The rules by which two are never at work at once, without what is peculiar to one store. README.md says what is modelled and what is not;
 * ../safety.md has the rules in words.
 *
 * Two candidates A and B, each on a host of its own; one store; a network that delays and loses. Time is counted in ticks. Between two ticks anything may
 * happen in any order, or not at all, so whatever is paused needs no step of its own: it takes none. Only what `isDue` names does not wait for the next tick.
 *
 * One rule less: -DNO_STAMP, NO_MARGIN, NO_GUARD, NO_TREE, NO_CONFIRM, NO_DEATH, NO_COMPARE or NO_BOOTTIME.
 * What the model can do: -DNEVER=handOver, takeOver, rescue or straggler claims that it never does this, which has to be refuted.
 */
#ifndef TTL
#define TTL 4
#endif
#ifdef NO_MARGIN
#define MARGIN 0
#else
#define MARGIN 1
#endif
#define OFF 15

mtype:phase = { dead, standby, elected, leading };
mtype:message = { nothing, acquire, acquired, renew, renewed, confirm, confirmed };
mtype:tree = { ended, child, childAndStray, stray, dying };

typedef Candidate {
  mtype:phase phase;     /* elect-run's */
  byte left;             /* until killAt */
  mtype:message message; /* a request on its way to the store, or the answer on its way back */
  byte age;              /* of the request, since sentAt */
  bool guard;            /* lives */
  bool untold;           /* the deadline still lies in the pipe to the guard */
  byte alarm;            /* until killAt, as the guard was told last; a process of its own, that outlives the guard */
  bool release;          /* on its way to the store */
  mtype:tree tree;       /* the command's processes; a stray has left the child's group */
  bool outdated;         /* its token is smaller than one that somebody has started with */
  bool asleep;           /* the whole host */
  bool dazed             /* was asleep until its lease was about to end, or longer, and no tick has passed since */
};
Candidate c[2];

/* the store's record */
byte holder = OFF;
byte lease;
byte newest = OFF; /* whose token is the largest */

#define NAME(i) ('A' + i)
#define isOver(i) (c[i].left == 0)
#define isAlive(i) (c[i].tree != ended)
#define mayAct(i) (isAlive(i) && !c[i].asleep)
#define isExcused(i) (c[i].dazed && c[i].outdated)

/* THE property. Excused is who has just woken up too late and whose token a resource refuses. */
#define isSafe (!(mayAct(0) && mayAct(1)) || isExcused(0) || isExcused(1))

#ifdef NO_STAMP
#define granted(i) (TTL - MARGIN)
#else
#define granted(i) (TTL - MARGIN - c[i].age)
#endif

#ifdef NO_TREE
#define isToKill(i) (c[i].tree == child || c[i].tree == childAndStray)
#define isShownDead(i) (c[i].tree == ended || c[i].tree == stray)
#define killed(i) (c[i].tree == childAndStray -> stray : dying)
#else
#define isToKill(i) (c[i].tree != ended && c[i].tree != dying)
#ifdef NO_DEATH
#define isShownDead(i) (!isToKill(i))
#else
#define isShownDead(i) (c[i].tree == ended)
#endif
#define killed(i) dying
#endif

/*
 * What the margin is for: the alarm goes off, and what was killed dies, before the next tick. Where there is no alarm, since the guard was just killed with it,
 * it is elect-run that is in time: all of them in the same instant is not promised.
 */
#ifdef NO_GUARD
#define isKillDue(i) false
#define isCovered(i) true
#define isArmed(i) true
#else
#define isKillDue(i) (isToKill(i) && (c[i].alarm == 0 || (c[i].alarm == OFF && isOver(i))))
#define isCovered(i) (!isAlive(i) || c[i].alarm != OFF)
#define isArmed(i) (!c[i].untold)
#endif
#define isDue(i) (!c[i].asleep && (c[i].tree == dying || isKillDue(i)))

mtype:killer = { nobody, byElectRun, byGuard, byAlarm };

#ifdef NEVER
/* Who killed the last tree, which says what the other's start is. */
mtype:killer last[2] = nobody;
#define handOver (last[1 - i] == byElectRun)
#define takeOver (last[1 - i] == byGuard)
#define rescue (last[1 - i] == byAlarm)
#define straggler (mayAct(1 - i))
#endif

inline kill(i, killer) {
#ifdef NEVER
  last[i] = killer;
#endif
  c[i].tree = killed(i)
}

inline check() {
  if
  :: isSafe
  :: else ->
      printf("two are at work at once\n");
      assert(false)
  fi
}

inline forgetMessage(i) {
  c[i].message = nothing;
  c[i].age = 0
}

inline holdNothing(i) {
  c[i].left = 0;
  c[i].untold = false;
  c[i].alarm = OFF;
  c[i].outdated = true;
  newest = (newest == i -> OFF : newest)
}

inline giveBack(i) {
  holdNothing(i);
  c[i].release = true
}

/* src/child.ts */
inline start(i) {
  c[i].phase = leading;
  c[i].tree = child;
  printf("%c: the child starts\n", NAME(i));
  c[1 - i].outdated = (c[1 - i].outdated || newest == i);
#ifdef NEVER
  if
  :: NEVER ->
      printf("it can\n");
      assert(false)
  :: else
  fi;
#endif
  check();
  if
  :: c[i].outdated ->
      printf("its token is not the largest\n");
      assert(false)
  :: else
  fi
}

/* src/campaign.ts, src/renewal.ts, src/run.ts: one request at a time */
proctype ElectRun(byte i) {
  do
  :: d_step { c[i].phase == standby && c[i].message == nothing && !c[i].release ->
      c[i].message = acquire;
      printf("%c: asks to lead\n", NAME(i)) }

  :: d_step { c[i].phase == standby && c[i].message == acquired ->
      c[i].left = granted(i);
      c[i].untold = true;
      forgetMessage(i);
      printf("%c: is told that it leads; has to kill %d ticks from now\n", NAME(i), c[i].left);
#ifdef NO_CONFIRM
      start(i)
#else
      c[i].phase = elected
#endif
      }

  :: d_step { c[i].phase == elected && c[i].message == nothing && !isOver(i) ->
      c[i].message = confirm;
      printf("%c: looks once more\n", NAME(i)) }

  :: d_step { c[i].phase == elected && c[i].message == confirmed && !isOver(i) && isArmed(i) ->
      forgetMessage(i);
      start(i) }

  :: d_step { c[i].phase == elected && isOver(i) ->
      c[i].phase = standby;
      giveBack(i);
      printf("%c: was not confirmed in time\n", NAME(i)) }

  :: d_step { !c[i].asleep && (c[i].phase == elected || c[i].phase == leading) && c[i].message == nothing && !isOver(i) ->
      c[i].message = renew;
      printf("%c: sends a renewal\n", NAME(i)) }

  /* An answer to a request that was sent earlier than the last one cannot shorten anything; past killAt no answer revives. */
  :: d_step { !c[i].asleep && c[i].message == renewed && !isOver(i) ->
      if
      :: granted(i) > c[i].left ->
          c[i].left = granted(i);
          c[i].untold = true
      :: else
      fi;
      forgetMessage(i);
      printf("%c: is renewed; has to kill %d ticks from now\n", NAME(i), c[i].left) }

  /* It may step down at any time: at stopAt, since it was asked to, since the store says no; and has to at killAt. */
  :: d_step { !c[i].asleep && c[i].phase == leading && isToKill(i) ->
      kill(i, byElectRun);
      printf("%c: elect-run kills the tree\n", NAME(i)) }

  :: d_step { c[i].phase == leading && isShownDead(i) ->
      c[i].phase = standby;
      giveBack(i);
      printf("%c: elect-run gives the lease back\n", NAME(i)) }

#ifndef NO_GUARD
  :: d_step { !c[i].asleep && c[i].phase == leading && !c[i].guard ->
      c[i].guard = true;
      c[i].untold = true;
      printf("%c: elect-run replaces the guard\n", NAME(i)) }
#endif
  od
}

#ifndef NO_GUARD
/* src/guard.sh, src/cleanup.ts */
proctype Guard(byte i) {
  do
  :: d_step { !c[i].asleep && c[i].guard && c[i].untold ->
      c[i].untold = false;
      c[i].alarm = c[i].left;
      printf("%c: the guard sets its alarm to %d ticks from now\n", NAME(i), c[i].alarm) }

  :: d_step { !c[i].asleep && c[i].guard && c[i].phase == dead && isToKill(i) ->
      kill(i, byGuard);
      printf("%c: the guard kills the tree\n", NAME(i)) }

  :: d_step { c[i].guard && c[i].phase == dead && isShownDead(i) ->
      c[i].guard = false;
      giveBack(i);
      printf("%c: the guard gives the lease back\n", NAME(i)) }
  od
}

/* watch_the_clock of src/guard.sh */
proctype Alarm(byte i) {
  do
  :: d_step { !c[i].asleep && c[i].alarm == 0 && isToKill(i) ->
      kill(i, byAlarm);
      printf("%c: the guard's alarm kills the tree\n", NAME(i)) }
  od
}
#endif

/* the command, and the kernel */
proctype Tree(byte i) {
  do
  :: d_step { !c[i].asleep && c[i].tree == child ->
      c[i].tree = childAndStray;
      printf("%c: a descendant leaves the child's group\n", NAME(i)) }

  :: d_step { !c[i].asleep && c[i].tree == childAndStray ->
      c[i].tree = stray;
      printf("%c: the child ends, its descendant lives\n", NAME(i)) }

  :: d_step { !c[i].asleep && (c[i].tree == child || c[i].tree == stray || c[i].tree == dying) ->
      c[i].tree = ended;
      c[i].dazed = false;
      if
      :: c[i].phase == dead -> holdNothing(i)
      :: else
      fi;
      printf("%c: the tree is dead\n", NAME(i)) }
  od
}

/* src/backends/: a record that is compared and set, and runs out by the store's own clock, then or later. What it refuses it does not answer here. */
proctype Store(byte i) {
  do
  :: d_step { c[i].message == acquire && (holder == OFF || holder == i) ->
      holder = i;
      lease = TTL;
      printf("   the store elects %c\n", NAME(i));
      if
      :: c[i].phase == standby ->
          c[i].message = acquired;
          c[i].outdated = false;
          newest = i
      :: else ->
          forgetMessage(i);
          newest = OFF
      fi }

  :: d_step { c[i].message == renew && holder == i ->
      lease = TTL;
      printf("   the store renews the lease of %c\n", NAME(i));
      if
      :: c[i].phase == elected || c[i].phase == leading -> c[i].message = renewed
      :: else -> forgetMessage(i)
      fi }

  :: d_step { c[i].message == confirm && holder == i ->
      c[i].message = confirmed;
      printf("   the store shows that %c leads\n", NAME(i)) }

  :: d_step { c[i].release ->
      c[i].release = false;
      if
#ifdef NO_COMPARE
      :: true ->
#else
      :: holder == i ->
#endif
          holder = OFF;
          lease = 0;
          printf("   the store has the lease back from %c\n", NAME(i))
      :: else
      fi }

  :: d_step { holder == i && lease == 0 ->
      holder = OFF;
      printf("   the lease of %c runs out in the store\n", NAME(i)) }
  od
}

/* whatever may go wrong, at any time and as often as it likes */
proctype Faults(byte i) {
  do
  :: d_step { c[i].message != nothing ->
      printf("   %c: %e is lost on its way\n", NAME(i), c[i].message);
      forgetMessage(i) }

  :: d_step { c[i].release ->
      c[i].release = false;
      printf("   %c: the release is lost on its way\n", NAME(i)) }

  :: d_step { c[i].phase != dead && isCovered(i) ->
      c[i].phase = dead;
      if
      :: c[i].message == acquire || c[i].message == renew -> c[i].age = 0
      :: else -> forgetMessage(i)
      fi;
      if
      :: isAlive(i)
      :: else -> holdNothing(i)
      fi;
      printf("%c: elect-run is killed\n", NAME(i)) }

  /* As another candidate, so not before the store and the network have forgotten the one before. */
  :: d_step { c[i].phase == dead && !c[i].guard && !isAlive(i) && c[i].message == nothing && !c[i].release && holder != i ->
      c[i].phase = standby;
#ifndef NO_GUARD
      c[i].guard = true;
#endif
      printf("%c: elect-run is started again\n", NAME(i)) }

#ifndef NO_GUARD
  :: d_step { c[i].guard && (c[i].phase == leading || c[i].phase == dead) ->
      c[i].guard = false;
      if
      :: c[i].phase == dead -> c[i].untold = false; c[i].left = 0
      :: else
      fi;
      printf("%c: the guard is killed\n", NAME(i)) }

  :: d_step { c[i].guard && c[i].phase == leading ->
      c[i].guard = false;
      c[i].alarm = OFF;
      printf("%c: the guard is killed with its alarm\n", NAME(i)) }
#endif

  :: d_step { !c[i].asleep && isAlive(i) ->
      c[i].asleep = true;
      printf("%c: the host falls asleep\n", NAME(i)) }

  :: d_step { c[i].asleep ->
      c[i].asleep = false;
      c[i].dazed = (holder != i || lease <= MARGIN);
      printf("%c: the host wakes up\n", NAME(i));
      check() }
  od
}

#define count(x) x = (x > 0 -> x - 1 : 0)

inline tick(i) {
#ifdef NO_BOOTTIME
  if
  :: c[i].asleep
  :: else ->
#endif
      count(c[i].left);
      c[i].alarm = (c[i].alarm == OFF || c[i].alarm == 0 -> c[i].alarm : c[i].alarm - 1);
      if
      :: c[i].age == TTL - MARGIN || c[i].phase == dead || c[i].message == nothing || c[i].message == confirm || c[i].message == confirmed
      :: else -> c[i].age++
      fi;
#ifdef NO_BOOTTIME
  fi;
#endif
  c[i].dazed = false
}

proctype Clock() {
  do
  :: d_step { !isDue(0) && !isDue(1) ->
      tick(0);
      tick(1);
      count(lease);
      printf("--- a tick\n");
      check() }
  od
}

init {
  byte i;
  atomic {
    do
    :: i < 2 ->
        c[i].phase = standby;
        c[i].message = nothing;
        c[i].tree = ended;
        c[i].outdated = true;
        c[i].alarm = OFF;
#ifndef NO_GUARD
        c[i].guard = true;
        run Guard(i);
        run Alarm(i);
#endif
        run ElectRun(i);
        run Tree(i);
        run Store(i);
        run Faults(i);
        i++
    :: else -> break
    od;
    run Clock()
  }
}
