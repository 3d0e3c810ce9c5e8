// `npm run chaos`: the lanes, one for each store, and what they have found.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import ora from 'ora';
import { canSpin } from '../../src/report/spinner.ts';
import setUpFolders from '../helpers/folders.ts';
import { Network } from '../helpers/netns.ts';
import { whatIsMissing } from '../helpers/tools.ts';
import type { Outcome } from './episode.ts';
import { FAULT_NAMES } from './faults.ts';
import type { LaneOptions, Told } from './lane.ts';
import { buildMutant } from './mutations.ts';
import { type Chosen, readOptions, USAGE } from './options.ts';
import { STORES } from './stores.ts';
import { World } from './wire.ts';

/** What became of one store. */
interface Result {
  store: string;
  episodes: number;
  injected: Record<string, number>;
  missed: number;
  leaderships: number;
  overlaps: number;
  /** Elections in which something was wrong. */
  failures: number;
  excused: number;
  longestExcusedMs: number;
  worstGapMs: number;
  worstRecoveryMs: number;
  /** The shortest history that fails. */
  failed: Outcome | undefined;
  /** It could not be carried out. */
  broken: string | undefined;
}

const running = new Set<ChildProcess>();

async function runLane(
  options: Omit<LaneOptions, 'network'>,
  hasNamespaces: boolean,
  progress: (line: string) => void,
): Promise<Result> {
  const result: Result = {
    ...{
      store: options.store,
      episodes: 0,
      injected: {},
      missed: 0,
      leaderships: 0,
      overlaps: 0,
      failures: 0,
      excused: 0,
    },
    ...{ longestExcusedMs: 0, worstGapMs: 0, worstRecoveryMs: 0, failed: undefined, broken: undefined },
  };
  const { hosts } = STORES.find(({ name }) => name === options.store)!;
  const network = hasNamespaces ? Network.create(World.hostsNeeded(options.candidates, Math.max(1, hosts))) : undefined;
  const prefix = network?.prefix(World.ourHost(options.candidates)) ?? [];
  const laneOptions: LaneOptions = { ...options, network: network?.id };
  const [file, ...args] = [
    ...prefix,
    'setpriv',
    '--pdeathsig',
    'TERM',
    '--',
    process.execPath,
    LANE,
    JSON.stringify(laneOptions),
  ];
  const lane = spawn(file!, args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  running.add(lane);
  const ended = once(lane, 'close');
  for await (const line of createInterface({ input: lane.stdout! })) {
    const told = JSON.parse(line) as Told;
    if (told.type === 'ready') progress(`${options.store}: its servers answer`);
    else if (told.type === 'broken') result.broken = told.message;
    else if (told.type === 'shorter') {
      result.failed = told.outcome;
      progress(`${options.store}: fails also with ${told.outcome.draws.length} faults`);
    } else {
      add(result, told.outcome);
      const { leaderships, recoveryMs, violations } = told.outcome;
      const verdict = violations.length === 0 ? `leader after ${Math.round(recoveryMs)} ms` : violations[0];
      progress(`${options.store}: seed ${told.outcome.seed}: ${leaderships} leaderships, ${verdict}`);
      if (options.keepsGoing && violations.length > 0)
        console.log(`\n${describeFailure({ ...result, failed: told.outcome })}\n`);
    }
  }
  const [code, signal] = await ended;
  running.delete(lane);
  if (code !== 0) result.broken ??= `its lane ended with ${signal ?? code}`;
  network?.remove();
  return result;
}

function add(result: Result, outcome: Outcome): void {
  result.episodes++;
  for (const [fault, times] of Object.entries(outcome.injected))
    result.injected[fault] = (result.injected[fault] ?? 0) + times;
  result.missed += outcome.missed;
  result.leaderships += outcome.leaderships;
  result.overlaps += outcome.overlaps;
  result.excused += outcome.excused;
  result.longestExcusedMs = Math.max(result.longestExcusedMs, outcome.longestExcusedMs);
  result.worstGapMs = Math.max(result.worstGapMs, outcome.worstGapMs);
  result.worstRecoveryMs = Math.max(result.worstRecoveryMs, outcome.recoveryMs);
  if (outcome.violations.length === 0) return;
  result.failures++;
  if (!result.failed || outcome.draws.length < result.failed.draws.length) result.failed = outcome;
}

/** So many of these at a time. */
async function inLanes<T, R>(all: T[], lanes: number, act: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const left = all.entries();
  const lane = async () => {
    for (const [index, one] of left) results[index] = await act(one);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return results;
}

function table(rows: string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: string[]) =>
    `| ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))).join(' | ')} |`;
  const [head, ...body] = rows;
  return [line(head!), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...body.map(line)].join('\n');
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;

function report(results: Result[]): string {
  const summary = [
    [
      '',
      'elections',
      'failed',
      'faults',
      'leaderships',
      'overlaps',
      'after an operator',
      'worst gap',
      'worst recovery',
    ],
    ...results.map((one) => [
      one.store,
      String(one.episodes),
      String(one.failures),
      String(Object.values(one.injected).reduce((sum, times) => sum + times, 0)),
      String(one.leaderships),
      String(one.overlaps),
      one.excused === 0 ? '0' : `${one.excused}, up to ${seconds(one.longestExcusedMs)}`,
      seconds(one.worstGapMs),
      seconds(one.worstRecoveryMs),
    ]),
  ];
  const faults = [
    ['fault', ...results.map(({ store }) => store)],
    ...FAULT_NAMES.map((fault) => [fault, ...results.map(({ injected }) => String(injected[fault] ?? '-'))]),
  ];
  return `${table(summary)}\n\n${table(faults)}`;
}

function describeFailure({ store, failed, broken }: Result, which = `--store ${store}`): string {
  if (broken !== undefined) return `${store} could not be attacked: ${broken}`;
  const { seed, violations, draws, timeline } = failed!;
  const [text, episode] = seed.split('/');
  return [
    `${store}: ${violations.join('\n  ')}`,
    `again: npm run chaos -- ${which} --seed ${text} --episode ${episode}`,
    `its history, with ${draws.length} faults:`,
    ...timeline,
  ].join('\n');
}

async function main(args: string[]): Promise<number> {
  const chosen = readOptions(args);
  if (typeof chosen === 'string') {
    process.stderr.write(`${chosen === '' ? '' : `chaos: ${chosen}\n`}${USAGE}\n`);
    return chosen === '' ? 0 : 64;
  }
  const missing = chosen.stores.filter((name) => {
    const cause = whatIsMissing([...STORES.find((kind) => kind.name === name)!.needs, 'faketime']);
    if (cause !== undefined) process.stderr.write(`${name} [skipped: ${cause}]\n`);
    return cause !== undefined;
  });
  if (missing.length > 0 && process.env.REQUIRE_SERVERS === '1') return 1;
  const stores = chosen.stores.filter((name) => !missing.includes(name));
  const where = chosen.hasNamespaces ? 'in network namespaces of their own' : 'on loopback, behind proxies';
  console.log(`seed ${chosen.seed}, ${chosen.candidates} candidates ${where}`);

  const spinner = ora({ stream: process.stderr, discardStdin: false });
  const progress = (line: string) => {
    if (spinner.isSpinning) spinner.text = line;
    else process.stderr.write(`${line}\n`);
  };
  if (canSpin()) spinner.start();
  try {
    return chosen.mutations.length > 0
      ? await findMutations(chosen, progress)
      : await attackAll(chosen, stores, progress);
  } finally {
    spinner.stop();
  }
}

/** How long a shorter history is looked for. */
const SHRINK_SECONDS = 120;

async function attackAll(chosen: Chosen, stores: string[], progress: (line: string) => void): Promise<number> {
  const turns = Math.ceil(stores.length / chosen.lanes);
  const results = await inLanes(stores, chosen.lanes, (store) =>
    runLane(
      {
        ...{
          store,
          candidates: chosen.candidates,
          seed: chosen.seed,
          faults: chosen.faults,
          program: [process.execPath, BIN],
        },
        ...{ episode: chosen.episode ?? 1, episodes: chosen.episode === undefined ? Number.MAX_SAFE_INTEGER : 1 },
        ...{
          seconds: (chosen.minutes * 60) / turns,
          isForSafety: false,
          keepsGoing: chosen.keepsGoing,
          shrinkSeconds: SHRINK_SECONDS,
        },
      },
      chosen.hasNamespaces,
      progress,
    ),
  );
  const failed = results.filter((one) => one.failed ?? one.broken);
  console.log(`\n${report(results)}\n`);
  for (const one of failed) console.log(`${describeFailure(one)}\n`);
  console.log(failed.length === 0 ? 'nothing was found' : `failed: ${failed.map(({ store }) => store).join(', ')}`);
  return failed.length === 0 ? 0 : 1;
}

async function findMutations(chosen: Chosen, progress: (line: string) => void): Promise<number> {
  const rows = await inLanes(chosen.mutations, chosen.lanes, async (mutation) => {
    const program = [process.execPath, buildMutant(mutation, ROOT, MUTANTS)];
    const startedAt = performance.now();
    const result = await runLane(
      {
        ...{
          store: mutation.store,
          candidates: chosen.candidates,
          seed: chosen.seed,
          faults: mutation.faults ?? chosen.faults,
          program,
        },
        ...{
          episode: chosen.episode ?? 1,
          episodes: Number.MAX_SAFE_INTEGER,
          seconds: chosen.minutes * 60,
          isForSafety: true,
          keepsGoing: false,
          shrinkSeconds: 0,
        },
      },
      chosen.hasNamespaces,
      (line) => progress(`without ${mutation.name}: ${line}`),
    );
    return { mutation, result, tookMs: performance.now() - startedAt };
  });
  const found = ({ result }: (typeof rows)[number]) => (result.failed?.unsafe.length ?? 0) > 0;
  console.log(
    `\n${table([
      ['without', 'store', 'found', 'elections', 'after'],
      ...rows.map((row) => [
        row.mutation.name,
        row.mutation.store,
        found(row) ? row.result.failed!.unsafe[0]!.split(':')[0]! : (row.result.broken ?? 'NOTHING'),
        String(row.result.episodes),
        seconds(row.tookMs),
      ]),
    ])}\n`,
  );
  for (const { mutation, result } of rows.filter(found))
    console.log(`without ${mutation.name}: ${describeFailure(result, `--mutate '${mutation.name}'`)}\n`);
  const missed = rows.filter((row) => !found(row));
  console.log(
    missed.length === 0 ? 'each was found' : `not found: ${missed.map(({ mutation }) => mutation.name).join(', ')}`,
  );
  return missed.length === 0 ? 0 : 1;
}

const { ROOT, LANE, BIN, MUTANTS } = process.env as { ROOT: string; LANE: string; BIN: string; MUTANTS: string };

/** A Ctrl-C comes twice, from the terminal and from scripts/chaos.mjs: once is enough, and the lanes take a moment. */
let isEnding = false;
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(name, async () => {
    if (isEnding) return;
    isEnding = true;
    await Promise.all(
      [...running].map(async (lane) => {
        lane.kill('SIGTERM');
        await once(lane, 'close');
      }),
    );
    process.exit(128 + { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 }[name]);
  });

process.on('exit', setUpFolders());
process.exit(await main(process.argv.slice(2)));
