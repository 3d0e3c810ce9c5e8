import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { elect } from '../helpers/elect.ts';
import { SuspendableClock, WallClock } from '../helpers/faketime.ts';
import type { Ways } from '../helpers/netns.ts';
import type { Conduct } from '../helpers/oracle.ts';
import { childrenOf, commandLine, freezeTree, isStopped, sessionOf, signal, until } from '../helpers/procs.ts';
import type { Dice } from './dice.ts';
import { type Candidate, CLOCK_STEP, idOf, lastOf, type Scene, type Site, SUSPEND } from './site.ts';
import type { Excuse } from './verdict.ts';

/** One draw of the nemesis: everything about it that does not depend on how the others behave. */
export interface Draw {
  fault: string;
  /** After the one before. */
  gapMs: number;
  forMs: number;
  /** Which candidate, server or direction: numbers from 0, below 1. */
  aim: number;
  detail: number;
}

/** What the nemesis sees when it strikes. */
export interface Battlefield extends Scene {
  sites: Site[];
  /** Whose job is at work, as the oracle knows. */
  leader(): Candidate | undefined;
  /** From now on, and for so long, two at work are no fault of elect-run's: an operator took the leadership away, or the machine stood still for longer than the lease. */
  excuse(forMs: number, why: string, ifConfirmed?: Excuse['ifConfirmed']): void;
}

/** What was done, and how it is taken back; `not: …` says why it could not be done just now. */
type Struck = { what: string; undo?: () => void | Promise<void> } | { not: string };

interface Fault {
  name: string;
  weight: number;
  /** Undefined: as long as it takes. In parts of the ttl. */
  lasts?: [number, number];
  can(scene: Scene): boolean;
  strike(field: Battlefield, draw: Draw): Struck | Promise<Struck>;
}

const some = (field: Battlefield, { aim, detail }: Draw): Candidate | undefined => {
  const leader = field.leader();
  if (leader && detail < 0.7) return leader;
  const living = field.sites.map(({ candidate }) => candidate).filter((one) => one !== undefined);
  return living[Math.floor(aim * living.length)];
};
const label = ({ site }: Candidate) => `host${site}`;
const NOBODY = { not: 'nobody to strike' };

/** `env -i` and `setsid` of the last 100 ms before a kill -9 cannot be covered (docs/safety.md): once elect-run has told the guard of them they can. */
const isCovered = ({ conduct, elect }: Candidate) =>
  !conduct.endsWith('without-environment') || (!isStopped(elect.pid) && hasTold(elect.events));
const hasTold = (events: Candidate['elect']['events']) => {
  const started = events.findLastIndex(({ event }) => event === 'started');
  return started === -1 || events.slice(started).some(({ event }) => event === 'strayed');
};

/** Something of these goes on when the job itself is dead. */
const LEAVING: Conduct[] = ['escapes', 'escapes-without-environment', 'leaves-without-environment', 'forks'];

/** Its own process: when it is dead its alarm becomes a child of elect-run, and looks the same, but has no session of its own. */
const guardOf = ({ elect }: Candidate): number | undefined =>
  childrenOf(elect.pid).find((pid) => commandLine(pid).includes('elect-run-guard') && sessionOf(pid) === pid);

/** With a whole machine it would be a suspend; alone it is a pause that the guard, on another clock, has to see. */
function stop(pids: number[], what: string): Struck {
  for (const pid of pids) signal(pid, 'SIGSTOP');
  return {
    what,
    undo: () => {
      for (const pid of pids) if (isStopped(pid)) signal(pid, 'SIGCONT');
    },
  };
}

/** Strikes one candidate, the leader more often than not. */
const ofOne = (
  name: string,
  weight: number,
  more: Partial<Pick<Fault, 'lasts' | 'can'>>,
  act: (victim: Candidate, field: Battlefield, draw: Draw) => Struck | Promise<Struck>,
): Fault => ({
  ...{ name, weight, can: () => true, ...more },
  strike(field, draw) {
    const victim = some(field, draw);
    return victim ? act(victim, field, draw) : NOBODY;
  },
});

/** The same, with the guard of that one. */
const ofGuard = (
  name: string,
  more: Partial<Pick<Fault, 'lasts'>>,
  act: (guard: number, victim: Candidate, field: Battlefield) => Struck,
): Fault =>
  ofOne(name, 2, more, (victim, field) => {
    const guard = guardOf(victim);
    return guard === undefined ? { not: 'it has no guard just now' } : act(guard, victim, field);
  });

/** With a file nothing runs out, so there is no alarm either: what the kernel does not kill when guard and elect-run are dead works on, and keeps the lock (docs/safety.md). */
const outlives = ({ conduct }: Candidate, { kind }: Scene) => kind.name === 'file' && LEAVING.includes(conduct);
const UNGUARDED = { not: 'with a file nobody would be left to end its job' };

const HIDDEN = { not: 'its job has hidden just now' };
const A_WHILE: Pick<Fault, 'lasts'> = { lasts: [0.1, 2] };

const processes: Fault[] = [
  ofOne('kill -9 of elect-run', 4, {}, (victim, field) => {
    if (!isCovered(victim)) return HIDDEN;
    if (guardOf(victim) === undefined && outlives(victim, field)) return UNGUARDED;
    signal(victim.elect.pid, 'SIGKILL');
    return { what: label(victim) };
  }),
  ofGuard('kill -9 of the guard', {}, (guard, victim) => {
    signal(guard, 'SIGKILL');
    return { what: label(victim) };
  }),
  ofGuard('kill -9 of both', {}, (guard, victim, field) => {
    if (!isCovered(victim)) return HIDDEN;
    if (outlives(victim, field)) return UNGUARDED;
    signal(guard, 'SIGKILL');
    signal(victim.elect.pid, 'SIGKILL');
    return { what: label(victim) };
  }),
  ofOne('SIGSTOP of elect-run', 4, A_WHILE, (victim) => stop([victim.elect.pid], label(victim))),
  ofGuard('SIGSTOP of the guard', A_WHILE, (guard, victim) => stop([guard], label(victim))),
  ofGuard('SIGSTOP of both', A_WHILE, (guard, victim) => stop([victim.elect.pid, guard], label(victim))),
  ofOne('TERM', 2, {}, (victim) => {
    signal(victim.elect.pid, 'SIGTERM');
    return { what: label(victim) };
  }),
  {
    name: 'elect-run resign',
    weight: 2,
    can: () => true,
    strike({ store, name, program, leader }) {
      if (!leader()) return NOBODY;
      const { backend, flags = [], env } = store.access(store.endpoints);
      const asked = elect(['resign', '-b', backend, '-n', name, '--wait', '5s', ...flags], {
        program,
        ...(env ? { env } : {}),
      });
      return { what: 'asked', undo: async () => void (await asked.ended) };
    },
  },
];

function hasWire({ world, store, kind }: Scene): boolean {
  return kind.hosts > 0 && (world.network !== undefined || store.endpoints.length > 0);
}

const hasProxies = ({ store }: Scene) => store.endpoints.length > 0;

const cut = (name: string, weight: number, ways: Ways): Fault =>
  ofOne(name, weight, { ...A_WHILE, can: hasWire }, (victim) => {
    if (!victim.wire.canBeCut) return { not: 'no way to cut its link' };
    victim.wire.cut(ways);
    return { what: label(victim), undo: () => victim.wire.heal() };
  });

/** Of whom a proxy lies on the way. */
const ofProxied = (
  name: string,
  weight: number,
  lasts: [number, number] | undefined,
  act: (victim: Candidate, draw: Draw) => Struck | Promise<Struck>,
): Fault =>
  ofOne(name, weight, { ...(lasts ? { lasts } : {}), can: hasProxies }, (victim, _field, draw) =>
    victim.isProxied ? act(victim, draw) : { not: 'no proxy on its way' },
  );

const wires: Fault[] = [
  cut('link cut both ways', 4, { out: true, in: true }),
  cut('requests cut off', 2, { out: true, in: false }),
  cut('replies cut off', 2, { out: false, in: true }),
  ofOne(
    'packets lost',
    2,
    { lasts: [0.5, 2], can: ({ world, kind }) => world.network !== undefined && kind.hosts > 0 },
    (victim) => {
      victim.wire.lose();
      return { what: label(victim), undo: () => victim.wire.heal() };
    },
  ),
  ofProxied('delay and reordering', 3, [0.5, 3], (victim, { aim }) => {
    const toMs = Math.round(50 + aim * 900);
    victim.wire.delay({ fromMs: Math.round(toMs / 2), toMs });
    return { what: `${label(victim)}, up to ${toMs} ms`, undo: () => victim.wire.heal() };
  }),
  // Whoever counts its lease from the answer, and not from the request, believes in it for too long.
  ofProxied('late answers and then none', 4, [1.2, 2], async (victim) => {
    victim.wire.delay({ fromMs: 0, toMs: 0 }, { fromMs: LATE_MS, toMs: LATE_MS });
    const last = victim.elect.events.at(-1);
    await victim.elect.event('renewed', { ...(last ? { after: last } : {}), timeoutMs: 3000 }).catch(() => {});
    victim.wire.hold({ out: true, in: true });
    return { what: `${label(victim)}, ${LATE_MS} ms late`, undo: () => victim.wire.heal() };
  }),
  ofProxied('connections reset', 2, undefined, (victim) => {
    victim.wire.reset();
    return { what: label(victim) };
  }),
];

/** Just not too late to count as unanswered (`requestMs` in src/timing.ts). */
const LATE_MS = 600;

const server = ({ store }: Scene, { aim }: Draw) => Math.floor(aim * store.servers.length);
const hasServers = ({ store }: Scene) => store.servers.length > 0;
const isCluster = ({ store }: Scene) => store.leader !== undefined;

async function killServer({ store }: Scene, index: number): Promise<Struck> {
  const one = store.servers[index]!;
  await one.kill();
  return { what: one.name, undo: () => (one.isRunning ? undefined : one.start()) };
}

const stores: Fault[] = [
  {
    name: 'store restarted',
    weight: 2,
    lasts: [0.02, 0.3],
    can: hasServers,
    strike: (field, draw) => killServer(field, server(field, draw)),
  },
  {
    name: 'store away',
    weight: 1,
    lasts: [0.5, 1.5],
    can: hasServers,
    strike: (field, draw) => killServer(field, server(field, draw)),
  },
  {
    name: 'store frozen',
    weight: 2,
    lasts: [0.1, 1.5],
    can: hasServers,
    async strike(field, draw) {
      const one = field.store.servers[server(field, draw)]!;
      if (!one.isRunning) return { not: `${one.name} is down` };
      await one.freeze();
      return { what: one.name, undo: () => one.thaw() };
    },
  },
  {
    name: 'leader of the cluster killed',
    weight: 2,
    lasts: [0.5, 1.5],
    can: isCluster,
    strike: async (field) => killServer(field, await field.store.leader!()),
  },
  {
    name: 'quorum lost',
    weight: 1,
    lasts: [0.5, 1.5],
    can: isCluster,
    async strike(field, draw) {
      const frozen = [0, 1].map((n) => field.store.servers[(server(field, draw) + n) % field.store.servers.length]!);
      const running = frozen.filter(({ isRunning }) => isRunning);
      await Promise.all(running.map((one) => one.freeze()));
      return {
        what: running.map(({ name }) => name).join(' and '),
        undo: () => {
          for (const one of running) one.thaw();
        },
      };
    },
  },
  {
    name: 'server cut off',
    weight: 2,
    lasts: [0.3, 1.5],
    can: ({ world, kind }) => world.network !== undefined && kind.hosts > 0,
    strike({ world, kind }, { aim }) {
      const index = Math.floor(aim * kind.hosts);
      world.cutServer(index);
      return { what: `server ${index + 1}`, undo: () => world.healServer(index) };
    },
  },
  {
    name: 'place revoked or deleted',
    weight: 2,
    can: ({ store }) => store.depose !== undefined,
    async strike({ store, name, excuse, kind, oracle }, { detail }) {
      const place = detail < 0.7 ? 'first' : 'second';
      const deposed = await store.depose!(name, place).catch((error: Error) => error);
      if (deposed instanceof Error) return { not: 'the store does not answer' };
      if (deposed === undefined) return NOBODY;
      const { id } = deposed;
      // Whose job was at work, or about to be: the store had it as the leader.
      const isLeader = place === 'first' || oracle.starts().some(({ who }) => who === id);
      if (isLeader) excuse(kind.ttlMs + 300, `the place of ${id} was taken away`);
      return { what: `that of ${id}` };
    },
  },
  {
    // Whoever believes what it was told some time ago, and does not ask again before the start, leads beside another.
    name: 'turn lost while the answer is under way',
    weight: 3,
    lasts: [0.3, 0.3],
    can: ({ store }) => store.endpoints.length > 0 && store.line !== undefined,
    async strike({ store, kind, name, sites, leader, oracle, excuse }) {
      const before = leader();
      if (!before) return NOBODY;
      if (!isCovered(before)) return { not: 'its job has hidden just now' };
      const others = sites.map(({ candidate }) => candidate).filter((one) => one !== undefined && one !== before);
      const next = others.find((one) => lastOf(one!, 'standby')?.position === 2);
      if (!next?.isProxied) return { not: 'no proxy on the way of the next one' };
      next.wire.delay({ fromMs: TURN_MS, toMs: TURN_MS });
      signal(before.elect.pid, 'SIGKILL');
      const what = `that of ${label(next)}, after ${label(before)} was killed`;
      const undo = () => next.wire.heal();
      const isFirst = async () => (await store.line!.first(name).catch(() => undefined)) === idOf(next);
      if (!(await until(isFirst, 'its turn', 4 * TURN_MS).catch(() => false)))
        return { what: `${what}: it was not its turn`, undo };
      await sleep(store.line!.believesAfter * TURN_MS);
      if (oracle.starts().some(({ who }) => who === idOf(next)) || !(await isFirst())) return { what, undo };
      const deposed = await store.depose!(name, 'first').catch(() => undefined);
      if (deposed?.before !== undefined)
        excuse(kind.ttlMs + 300, `${deposed.id} was confirmed before its place was taken away`, {
          who: deposed.id,
          before: deposed.before,
        });
      return { what, undo };
    },
  },
];

/** How long what the store says to whose turn it is takes to arrive, and the other way round. */
const TURN_MS = 300;
const HOUR_S = 3600;

const machines: Fault[] = [
  {
    name: CLOCK_STEP,
    weight: 2,
    lasts: [0.3, 2],
    can: () => true,
    strike({ sites }, { aim, detail }) {
      const victim = sites.map(({ candidate }) => candidate).find((one) => one?.clock instanceof WallClock);
      if (!victim) return { not: 'nobody has a clock that can be set' };
      const clock = victim.clock as WallClock;
      const seconds = Math.round((aim - 0.5) * 2 * HOUR_S * (detail < 0.5 ? 1 : 0.001));
      clock.step(seconds);
      return { what: `${label(victim)}, ${seconds} s`, undo: () => (victim.ended ? undefined : clock.step(0)) };
    },
  },
  {
    name: SUSPEND,
    weight: 3,
    lasts: [1.4, 1.8],
    can: hasWire,
    async strike(field, { aim }) {
      const candidates = field.sites.map(({ candidate }) => candidate).filter((one) => one !== undefined);
      const leader = field.leader();
      const able = candidates.filter((one) => one.clock instanceof SuspendableClock && !isStopped(one.elect.pid));
      const victim = able.find((one) => one === leader) ?? able[0];
      if (!victim) return { not: 'nobody has a clock that stands still' };
      const renewed = lastOf(victim, 'renewed', 'place-renewed');
      const leftMs = renewed ? (renewed.validForMs as number) - (performance.now() - renewed.readAt) : 0;
      const asleepMs = Math.round(field.kind.ttlMs * (0.3 + 0.2 * aim));
      if (leftMs - asleepMs < 600) return { not: 'its lease would run out meanwhile' };
      victim.wire.cut({ out: true, in: true });
      const frozen = await freezeTree(victim.elect.pid);
      const from = performance.now();
      await sleep(asleepMs);
      const sleptMs = performance.now() - from;
      (victim.clock as SuspendableClock).step(-sleptMs / 1000);
      for (const pid of frozen) signal(pid, 'SIGCONT');
      if (sleptMs > leftMs - 300) field.excuse(300, `${label(victim)} slept for longer than its lease`);
      return { what: `${label(victim)}, ${Math.round(sleptMs)} ms`, undo: () => victim.wire.heal() };
    },
  },
  {
    name: 'processors busy',
    weight: 2,
    lasts: [0.3, 0.8],
    can: () => true,
    strike() {
      const hogs = Array.from({ length: HOGS }, () =>
        spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'sh', '-c', 'while :; do :; done'], { stdio: 'ignore' }),
      );
      return {
        what: `${HOGS} loops`,
        undo: () => {
          for (const hog of hogs) hog.kill('SIGKILL');
        },
      };
    },
  },
  {
    name: 'disk full',
    weight: 6,
    lasts: [0.2, 1],
    can: ({ store }) => store.disk !== undefined,
    strike({ store }) {
      store.disk!.fill();
      return { what: 'until it is freed', undo: () => store.disk!.free() };
    },
  },
];

const HOGS = 3;

const FAULTS = [...processes, ...wires, ...stores, ...machines];

export const FAULT_NAMES = FAULTS.map(({ name }) => name);

/** All that this seed has in store, however the others behave. `only`: of these faults. */
export function drawFaults(dice: Dice, scene: Scene, count: number, only: string[]): Draw[] {
  const possible = FAULTS.filter((fault) => fault.can(scene) && only.includes(fault.name));
  if (possible.length === 0) return [];
  return Array.from({ length: count }, () => {
    const { name, lasts = [0, 0] } = dice.weighted(possible);
    return {
      fault: name,
      gapMs: Math.round(dice.between(50, 2000)),
      forMs: Math.round(dice.between(...lasts) * scene.kind.ttlMs),
      aim: dice.number(),
      detail: dice.number(),
    };
  });
}

export async function strike(field: Battlefield, draw: Draw): Promise<Struck> {
  return FAULTS.find(({ name }) => name === draw.fault)!.strike(field, draw);
}
