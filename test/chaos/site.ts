import { setTimeout as sleep } from 'node:timers/promises';
import { type Elect, elect, type LoggedEvent } from '../helpers/elect.ts';
import { SuspendableClock, WallClock } from '../helpers/faketime.ts';
import type { Conduct, Oracle } from '../helpers/oracle.ts';
import { alive } from '../helpers/procs.ts';
import type { Dice } from './dice.ts';
import type { Store, StoreKind } from './stores.ts';
import { Wire, type World } from './wire.ts';

/** Of a job that is stopped on request. Longer than the grace, so that whoever waits for it has been heard. */
const STOP_TIMEOUT_MS = 1000;
/** How long a job that finds another at work waits for it: longer than any lease. */
const PATIENCE_S = 8;

const CONDUCTS: { conduct: Conduct; weight: number }[] = [
  { conduct: 'plain', weight: 3 },
  { conduct: 'ignores-term', weight: 3 },
  { conduct: 'escapes', weight: 3 },
  { conduct: 'escapes-without-environment', weight: 1 },
  { conduct: 'leaves-without-environment', weight: 1 },
  { conduct: 'forks', weight: 2 },
  { conduct: 'works', weight: 1 },
  { conduct: 'ends', weight: 1 },
];

/** What an episode is about, and all its candidates share. */
export interface Scene {
  world: World;
  kind: StoreKind;
  store: Store;
  /** The election. */
  name: string;
  oracle: Oracle;
  /** The elect-run that is on trial. */
  program: string[];
  /** Those that the nemesis draws from. */
  faults: string[];
}

/** Faults of those who have a clock of their own. */
export const CLOCK_STEP = 'clock step';
export const SUSPEND = 'suspend while cut off';

/** How many candidates have such a clock, beside other faults; where there are none, all of them. */
const WALL_CLOCKS = 0.15;
const SUSPENDABLE_CLOCKS = 0.2;

/** `drawn`: from 0, below 1. */
function drawClock(drawn: number, faults: string[]): WallClock | SuspendableClock | undefined {
  const walls = faults.includes(CLOCK_STEP) ? WALL_CLOCKS : 0;
  const suspendables = faults.includes(SUSPEND) ? SUSPENDABLE_CLOCKS : 0;
  const others = faults.every((name) => [CLOCK_STEP, SUSPEND].includes(name))
    ? 0
    : 1 - WALL_CLOCKS - SUSPENDABLE_CLOCKS;
  const kind = drawn * (walls + suspendables + others);
  if (kind < walls) return new WallClock();
  return kind < walls + suspendables ? new SuspendableClock() : undefined;
}

/** One life of a candidate. */
export interface Candidate {
  site: number;
  conduct: Conduct;
  elect: Elect;
  wire: Wire;
  clock: WallClock | SuspendableClock | undefined;
  isProxied: boolean;
  rejoins: boolean;
  /** performance.now() */
  startedAt: number;
  ended?: { at: number; how: string };
}

/** A host on which a candidate stands, and is started again whenever it has ended, as a service manager would. */
export class Site {
  readonly lives: Candidate[] = [];
  readonly #scene: Scene;
  readonly #number: number;
  readonly #dice: Dice;
  readonly #over = new AbortController();
  #standing: Promise<void> | undefined;

  constructor(scene: Scene, number: number, dice: Dice) {
    this.#scene = scene;
    this.#number = number;
    this.#dice = dice;
  }

  /** The one that lives now. */
  get candidate(): Candidate | undefined {
    const last = this.lives.at(-1);
    return last?.ended ? undefined : last;
  }

  open(): void {
    this.#standing = this.#standForEver();
  }

  /** Nobody is started any more. */
  shut(): void {
    this.#over.abort();
  }

  /** Resolves once the last one has ended. */
  async close(): Promise<void> {
    this.shut();
    const { candidate } = this;
    if (candidate && alive(candidate.elect.pid)) candidate.elect.kill('SIGTERM');
    await this.#standing;
  }

  async #standForEver(): Promise<void> {
    while (!this.#over.signal.aborted) {
      await this.#live();
      await sleep(this.#dice.between(100, 600), undefined, { signal: this.#over.signal }).catch(() => {});
    }
  }

  async #live(): Promise<void> {
    const { world, store, kind, name, oracle, program, faults } = this.#scene;
    // All draws first: they have to be the same in every run of this seed.
    const { conduct } = this.#dice.weighted(CONDUCTS);
    const isProxied = this.#dice.chance(world.network ? 0.5 : 1) && store.endpoints.length > 0;
    const rejoins = this.#dice.chance(0.3);
    const clockKind = this.#dice.number();
    const workS = Math.round(this.#dice.between(1, 4));

    const wire = await Wire.open(world, this.#number, store.endpoints, isProxied);
    if (this.#over.signal.aborted) return wire.close();
    const clock = drawClock(clockKind, faults);
    const { backend, flags = [], env } = store.access(wire.endpoints);
    const timing = ['--ttl', `${kind.ttlMs}ms`, '--renew-every', '1s', '--grace', '300ms'];
    const args = [
      ...['-v', '--backend', backend, '--name', name, '--id', `host${this.#number}`, ...timing, ...flags],
      ...['--stop-timeout', `${STOP_TIMEOUT_MS}ms`, ...(rejoins ? ['--on-lost', 'rejoin'] : [])],
      ...['--', ...oracle.job(conduct, workS, PATIENCE_S)],
    ];
    const one: Candidate = {
      site: this.#number,
      conduct,
      elect: elect(args, {
        prefix: [...world.prefix(this.#number), 'setpriv', '--pdeathsig', 'KILL', '--'],
        program,
        env: { ...env, ...clock?.env, [MARK]: name },
      }),
      wire,
      clock,
      isProxied,
      rejoins,
      startedAt: performance.now(),
    };
    this.lives.push(one);
    const { code, signal } = await one.elect.ended;
    one.ended = { at: performance.now(), how: signal ?? `exit ${code}` };
    clock?.remove();
    await wire.close();
  }
}

/** In the environment of whatever belongs to an episode, unless it was taken out. */
export const MARK = 'ELECT_RUN_CHAOS';

/** The last of these that it told, or undefined. */
export const lastOf = ({ elect }: Candidate, ...types: string[]): LoggedEvent | undefined =>
  elect.events.findLast(({ event }) => types.includes(event));

/** As it told when it entered. */
export const idOf = ({ elect }: Candidate): string | undefined =>
  elect.events.find(({ event }) => event === 'campaigning')?.id as string | undefined;
