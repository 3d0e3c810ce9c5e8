import { readdirSync } from 'node:fs';
import { pause } from '../../src/clock.ts';
import { listPids, readProc } from '../../src/proc.ts';
import { childrenOf, commandLine, sessionOf } from '../../test/helpers/procs.ts';
import { leave } from './leak.ts';
import { descriptors, residentKB, sampleSelf } from './sample.ts';
import type { Task } from './task.ts';

/** Longer than the limit of any request here, which leaves a timer behind for as long as it lasts. */
const SETTLE_MS = 1200;

/** Counts what is done again and again. At a tenth of the way and at the end it is held up, and a sample is printed as JSON. */
export class Turns {
  /** The last sample has been taken. */
  readonly over: Promise<void>;
  readonly #task: Task;
  readonly #sample: () => Promise<object>;
  readonly #startedAt = performance.now();
  #done = 0;
  #end!: () => void;

  constructor(task: Task, sample = sampleElectRun) {
    this.#task = task;
    this.#sample = sample;
    this.over = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** One is done; false: it was the last one. */
  async next(): Promise<boolean> {
    const { times, leak } = this.#task;
    if (this.#done === times) return false;
    leave(leak);
    this.#done++;
    if (this.#done % 20_000 === 0) console.log(JSON.stringify({ progress: this.#done }));
    if (this.#done !== Math.ceil(times / 10) && this.#done !== times) return true;
    const tookMs = Math.round(performance.now() - this.#startedAt);
    console.log(JSON.stringify({ sample: { times: this.#done, ...(await this.#sample()) }, tookMs }));
    if (this.#done === times) this.#end();
    return this.#done < times;
  }
}

/** This process, and the session of its guard. */
async function sampleElectRun() {
  await pause(SETTLE_MS);
  const own = await sampleSelf();
  const guard = childrenOf(process.pid).find((pid) => commandLine(pid).includes('elect-run-guard'));
  if (guard === undefined) return own;
  const members = listPids()
    .map(readProc)
    .filter((proc) => proc !== undefined)
    .filter(({ session }) => session === guard);
  return {
    ...own,
    // Without the nap of its alarm, which may be over just now.
    guardResidentKB: members
      .filter(({ pid, parent }) => pid === guard || parent === guard)
      .reduce((sum, { pid }) => sum + residentKB(pid), 0),
    guardProcesses: readdirSync('/proc').filter((name) => /^\d+$/.test(name) && sessionOf(Number(name)) === guard)
      .length, // zombies as well
    guardDescriptors: members.reduce((sum, { pid }) => sum + descriptors(pid), 0),
  };
}
