// One store under attack, in a process of its own, which scripts/chaos.mjs starts in a network namespace where there are any. What it has to say goes to stdout, one JSON object on each line.
import { endAll } from '../helpers/elect.ts';
import { Network } from '../helpers/netns.ts';
import { clearOracles } from '../helpers/oracle.ts';
import { stopServers } from '../helpers/servers.ts';
import { abandon, type Outcome, runEpisode, type Trial } from './episode.ts';
import type { Draw } from './faults.ts';
import { STORES } from './stores.ts';
import { World } from './wire.ts';

export interface LaneOptions {
  store: string;
  candidates: number;
  /** Undefined: no namespaces, everything on loopback. */
  network: string | undefined;
  /** The command line of the elect-run on trial. */
  program: string[];
  /** The nemesis draws from these. */
  faults: string[];
  seed: string;
  /** From this one on. */
  episode: number;
  /** At most so many, at least one, and none further that is likely to end later than so many seconds from the start of this process. */
  episodes: number;
  seconds: number;
  /** It goes on until safety is violated, or ends with anything that is wrong. */
  isForSafety: boolean;
  /** Something wrong does not end it. */
  keepsGoing: boolean;
  /** How long a failing history may be searched for a shorter one. */
  shrinkSeconds: number;
}

export type Told =
  | { type: 'ready' }
  | { type: 'episode'; episode: number; outcome: Outcome }
  | { type: 'shorter'; outcome: Outcome }
  | { type: 'broken'; message: string };

/** Most take less. */
const LAST_EPISODE_MS = 12_000;

const tell = (told: Told) => process.stdout.write(`${JSON.stringify(told)}\n`);

async function attack(options: LaneOptions): Promise<void> {
  const kind = STORES.find(({ name }) => name === options.store)!;
  const network = options.network === undefined ? undefined : Network.attach(options.network);
  const world = new World(network, options.candidates);
  const store = await kind.start(world.serverHosts(Math.max(1, kind.hosts)));
  const { program, faults } = options;
  const trial: Trial = { world, kind, store, program, faults };
  process.once('SIGTERM', async () => {
    abandon();
    await endAll();
    await store.stop();
    await clearOracles();
    process.exit(143);
  });
  try {
    tell({ type: 'ready' });
    const endAt = options.seconds * 1000 - LAST_EPISODE_MS; // by performance.now(), so the start of the servers counts
    const { episode: first, episodes } = options;
    const hasTime = (episode: number) => episode === first || performance.now() < endAt;
    for (let episode = first; episode < first + episodes && hasTime(episode); episode++) {
      const outcome = await runEpisode(trial, `${options.seed}/${episode}`);
      tell({ type: 'episode', episode, outcome });
      if (isFine(outcome, options) || options.keepsGoing) continue;
      await shrink(trial, outcome, options.shrinkSeconds);
      return;
    }
  } finally {
    await store.stop();
    await stopServers();
  }
}

const isFine = ({ unsafe, violations }: Outcome, { isForSafety }: LaneOptions): boolean =>
  (isForSafety ? unsafe : violations).length === 0;

/** Tells each history that fails, too, and has a fault less. */
async function shrink(trial: Trial, failed: Outcome, seconds: number): Promise<void> {
  const endAt = performance.now() + seconds * 1000;
  let shortest = failed;
  let untried = shortest.draws.map((_, index) => index);
  while (untried.length > 0 && performance.now() < endAt) {
    const without = untried.pop()!;
    const draws = withoutOne(shortest.draws, without);
    const outcome = await runEpisode(trial, failed.seed, draws);
    if (outcome.violations.length === 0) continue;
    shortest = outcome;
    untried = draws.map((_, index) => index).filter((index) => index < without);
    tell({ type: 'shorter', outcome });
  }
}

/** The others keep their distance. */
function withoutOne(draws: Draw[], index: number): Draw[] {
  return draws.flatMap((draw, at) => {
    if (at === index) return [];
    return at === index + 1 ? [{ ...draw, gapMs: draw.gapMs + draws[index]!.gapMs }] : [draw];
  });
}

try {
  await attack(JSON.parse(process.argv[2]!) as LaneOptions);
  process.exit(0);
} catch (error) {
  tell({ type: 'broken', message: (error as Error).stack ?? String(error) });
  process.exit(1);
}
