import { setTimeout as sleep } from 'node:timers/promises';
import { trySignal } from '../../src/tree.ts';
import { endAll } from '../helpers/elect.ts';
import { clearOracles, Oracle, type Start } from '../helpers/oracle.ts';
import { alive, commandLine, isStopped, processesWith, until } from '../helpers/procs.ts';
import { stopLinks } from '../helpers/proxy.ts';
import { now, OFFSET_MS } from './clock.ts';
import { Dice } from './dice.ts';
import { type Battlefield, type Draw, drawFaults, strike } from './faults.ts';
import { History } from './history.ts';
import { idOf, MARK, Site } from './site.ts';
import type { Store, StoreKind } from './stores.ts';
import { type Excuse, excuseFor, judge } from './verdict.ts';
import type { World } from './wire.ts';

export interface Trial {
  world: World;
  kind: StoreKind;
  store: Store;
  program: string[];
  /** The nemesis draws from these. */
  faults: string[];
}

export interface Outcome {
  /** With the store's name, repeats it. */
  seed: string;
  draws: Draw[];
  /** How often each fault was injected. */
  injected: Record<string, number>;
  /** Draws that met nobody whom they could have struck. */
  missed: number;
  leaderships: number;
  /** Two at work, unexcused. */
  overlaps: number;
  /** Two at work because an operator took the leadership away, or a machine stood still, and how long the longest of it took, in ms. */
  excused: number;
  longestExcusedMs: number;
  /** The longest time without a job at work during the trouble, and from its end to the next leader. */
  worstGapMs: number;
  recoveryMs: number;
  /** What is wrong: with safety, and all of it. */
  unsafe: string[];
  violations: string[];
  /** Everything that happened, if something is wrong. */
  timeline: string[];
}

const FIRST_LEADER_MS = 20_000;
const END_MS = 20_000;
/** A word that `resign` could not take back is forgotten after a minute. */
const LEFTOVERS_MS = 70_000;

/** An election of its own, from the first candidate to the last trace of it. `instead`: in the place of those that the seed has. */
export async function runEpisode(trial: Trial, seed: string, instead?: Draw[]): Promise<Outcome> {
  const { world, kind, store } = trial;
  const name = `chaos-${process.pid}-${++episodes}`;
  const oracle = new Oracle();
  const scene = { ...trial, name, oracle };
  const sites = Array.from(
    { length: world.candidates },
    (_, index) => new Site(scene, index + 1, new Dice(`${seed} host${index + 1}`)),
  );
  const dice = new Dice(`${seed} nemesis`);
  const draws = drawFaults(dice, scene, dice.whole(3, 9), trial.faults);
  const history = new History();
  const excuses: Excuse[] = [];
  const violations: string[] = [];
  const injected: Record<string, number> = {};
  let missed = 0;

  const everybody = () => sites.flatMap(({ lives }) => lives);
  const candidateOf = (start: Start | undefined) =>
    start && everybody().find((one) => idOf(one) === start.who && !one.ended);
  const field: Battlefield = {
    ...scene,
    sites,
    leader: () => {
      const last = oracle.starts().at(-1);
      return last && alive(last.pid) ? candidateOf(last) : undefined;
    },
    excuse: (forMs, why, ifConfirmed) => {
      excuses.push({ from: now(), to: now() + forMs, why, ifConfirmed });
      history.tell('judge', `excused for ${forMs} ms${ifConfirmed ? ' if' : ':'} ${why}`);
    },
  };
  const gaps = watchGaps(oracle);
  const undone: Promise<void>[] = [];

  const inject = async (draw: Draw) => {
    const struck = await strike(field, draw);
    if ('not' in struck) {
      missed++;
      history.tell('nemesis', `${draw.fault}: not done, ${struck.not}`);
      return;
    }
    injected[draw.fault] = (injected[draw.fault] ?? 0) + 1;
    const { what, undo } = struck;
    history.tell('nemesis', `${draw.fault}: ${what}${undo ? `, for ${draw.forMs} ms` : ''}`);
    if (!undo) return;
    await sleep(draw.forMs);
    await undo();
    history.tell('nemesis', `${draw.fault}: ${what}: over`);
  };

  current = { name, oracle, sites };
  try {
    for (const site of sites) site.open();
    await until(() => oracle.starts().length > 0, 'a first leader', FIRST_LEADER_MS, 20).catch(() =>
      violations.push(`no leader within ${FIRST_LEADER_MS} ms of the first candidate`),
    );
    for (const draw of instead ?? draws) {
      await sleep(draw.gapMs);
      if (isHopeless(oracle, excuses)) break;
      undone.push(inject(draw));
    }
    await Promise.all(undone);
    world.heal();
    await store.heal();
    const healedAt = now();
    history.tell('judge', 'all trouble is over');
    gaps.isTrouble = false;
    const leads = () => {
      const last = oracle.starts().at(-1);
      if (last && last.at >= healedAt) return true;
      const leader = field.leader();
      return leader?.elect.events.some(({ event, readAt }) => event === 'renewed' && readAt + OFFSET_MS > healedAt);
    };
    await until(() => leads() === true, 'a leader', kind.recoveryMs, 20).catch(() =>
      violations.push(`no leader within ${kind.recoveryMs} ms of the end of all trouble`),
    );
    const recoveryMs = now() - healedAt;
    gaps.end();

    const closed = Promise.all(sites.map((site) => site.close()));
    const isClosed = await Promise.race([closed.then(() => true), sleep(END_MS, false, { ref: false })]);
    if (!isClosed) violations.push(`asked to end, elect-run went on for more than ${END_MS} ms`);
    await until(() => residues(name, oracle).length === 0, 'the end of all processes', END_MS, 200).catch(() =>
      violations.push(`left running: ${residues(name, oracle).map(describe).join('; ')}`),
    );
    let left: string[] = [];
    const isClean = async () => {
      left = await store.leftovers(name);
      return left.length === 0;
    };
    await until(isClean, 'an empty store', LEFTOVERS_MS, 200).catch((error: Error) =>
      violations.push(`left in the store: ${left.join(', ') || error.message}`),
    );
    const verdict = await judge({
      oracle,
      lives: everybody(),
      excuses,
      holderOf: (token) => store.holderOf?.(name, token),
    });
    violations.unshift(...verdict.unsafe);
    return {
      seed,
      draws: instead ?? draws,
      injected,
      missed,
      leaderships: oracle.starts().length,
      overlaps: verdict.overlaps,
      excused: verdict.excused,
      longestExcusedMs: verdict.longestExcusedMs,
      worstGapMs: gaps.worstMs,
      recoveryMs,
      unsafe: verdict.unsafe,
      violations,
      timeline: violations.length > 0 ? history.lines(everybody(), oracle) : [],
    };
  } finally {
    gaps.end();
    await endAll();
    await clearOracles();
    await stopLinks();
    world.heal();
    await store.heal();
  }
}

let episodes = 0;

/** Once two were at work there is no use in going on. */
const isHopeless = (oracle: Oracle, excuses: Excuse[]): boolean =>
  oracle.clashes().some(({ at }) => excuseFor(at, excuses, oracle) === undefined);

function watchGaps(oracle: Oracle) {
  let deadSince: number | undefined;
  const gaps = { worstMs: 0, isTrouble: true, end: () => clearInterval(watch) };
  const watch = setInterval(() => {
    const last = oracle.starts().at(-1);
    if (!last || !gaps.isTrouble) return;
    if (!alive(last.pid)) deadSince ??= now();
    else if (deadSince !== undefined) {
      gaps.worstMs = Math.max(gaps.worstMs, last.at - deadSince);
      deadSince = undefined;
    }
  }, 50);
  return gaps;
}

/** Looks at all processes: whoever forks meanwhile is found by the next one. */
const MOST_TURNS = 10;

/** That of this process, where there is one. */
let current: { name: string; oracle: Oracle; sites: Site[] } | undefined;

/** Ends the episode's processes at once, also those that the nemesis has stopped. */
export function abandon(): void {
  if (!current) return;
  const { name, oracle, sites } = current;
  for (const site of sites) site.shut();
  for (let turn = 0; turn < MOST_TURNS; turn++) for (const pid of residues(name, oracle)) trySignal(pid, 'SIGKILL');
}

/** Whatever of an episode lives: by the mark in its environment, or by the oracle's lock. */
const residues = (name: string, oracle: Oracle): number[] => [
  ...new Set([...processesWith(`${MARK}=${name}`), ...oracle.workers()]),
];

const describe = (pid: number): string =>
  `${pid}${isStopped(pid) ? ' (stopped)' : ''} ${commandLine(pid).join(' ').slice(0, 120)}`;
