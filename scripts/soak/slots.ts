// A leader with a slot every second, whose wall clock is put forward to just before the next one after each: the whole of run.ts, with its child, its guard and its run records.
import type { Agenda } from '../../src/agenda.ts';
import { openBackend } from '../../src/backends/index.ts';
import { readCommandLine } from '../../src/cli.ts';
import { readConfig } from '../../src/config.ts';
import { run } from '../../src/run.ts';
import { Signals } from '../../src/signals.ts';
import { readTimetable } from '../../src/timetable.ts';
import type { Task } from './task.ts';
import { Turns } from './turns.ts';
import { REQUEST_MS, TTL_MS, tell } from './weeks.ts';

/** So that it also waits. */
const BEFORE_SLOT_MS = 2;

export async function soakSlots(task: Task): Promise<void> {
  const putForward = wallClock();
  const turns = new Turns(task);
  const election = `soak-${process.pid}`;
  const flags = ['-b', 'file:/', '-n', election, '--ttl', `${TTL_MS}ms`, '--schedule', '* * * * * *'];
  const { options, command, args } = readCommandLine([...flags, '--', '/bin/true'], {}, '')!;
  const config = { ...readConfig(options, command, args, {}), backend: task.spec };
  const candidate = { election, id: config.id, ttlMs: TTL_MS, requestMs: REQUEST_MS };
  const backend = await openBackend(config.backend, candidate);
  const agenda = readTimetable(config.timetable!).agenda(backend, REQUEST_MS, tell);
  const counted: Agenda = {
    repeats: true,
    isSettled: (signal) => agenda.isSettled(signal),
    ended: (...ending) => agenda.ended(...ending),
    async next(leader, signal) {
      if (!(await turns.next())) return undefined;
      putForward();
      return agenda.next(leader, signal);
    },
  };
  const status = await run(config, backend, candidate, counted, tell, new Signals());
  if (status !== 0) throw new Error(`it ended with ${status}`);
}

function wallClock(): () => void {
  const RealDate = Date;
  let aheadMs = 0;
  globalThis.Date = class extends RealDate {
    constructor(...args: [] | [number]) {
      super(...((args.length === 0 ? [RealDate.now() + aheadMs] : args) as [number]));
    }

    static override now(): number {
      return RealDate.now() + aheadMs;
    }
  } as DateConstructor;
  return () => {
    const untilNextMs = 1000 - (Date.now() % 1000);
    aheadMs += Math.max(0, untilNextMs - BEFORE_SLOT_MS);
  };
}
