// `npm run model`: spin(1) looks at every state of docs/model/election.pml and finds no two at work at once; with one rule less it has to find them; and what the
// model claims never to do, although elect-run does it, has to be refuted. Fails when any of it is otherwise, or a search did not look at everything.
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MODEL = fileURLToPath(new URL('../docs/model/election.pml', import.meta.url));
const AT_ONCE = 2;

/** What the model prints at an error. */
const TWO = 'two are at work at once';
const SMALLER = 'its token is not the largest';
const REACHED = 'it can';
const VERDICTS = [TWO, SMALLER, REACHED];

const SEARCHES = [
  { title: 'all rules', defines: [] },
  { title: 'stamp before sending', defines: ['NO_STAMP'], finds: TWO },
  { title: 'margin', defines: ['NO_MARGIN'], finds: TWO },
  { title: 'guard', defines: ['NO_GUARD'], finds: TWO },
  { title: 'the whole tree', defines: ['NO_TREE'], finds: TWO },
  { title: 'confirm before the start', defines: ['NO_CONFIRM'], finds: TWO },
  { title: 'release after death', defines: ['NO_DEATH'], finds: TWO },
  { title: 'compare before delete', defines: ['NO_COMPARE'], finds: TWO },
  { title: 'a clock that counts suspend', defines: ['NO_BOOTTIME'], finds: TWO },
  { title: 'a hand-over', defines: ['NEVER=handOver'], finds: REACHED },
  { title: 'a take-over after kill -9', defines: ['NEVER=takeOver'], finds: REACHED },
  { title: 'a death by the alarm', defines: ['NEVER=rescue'], finds: REACHED },
  { title: 'a straggler that only the token stops', defines: ['NEVER=straggler'], finds: REACHED },
];

function fail(message) {
  console.error(`model: ${message}`);
  process.exit(1);
}

const running = new Set();

function execute(cwd, file, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(child);
    let [output, errors] = ['', ''];
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (errors += data));
    child.once('error', reject);
    child.once('close', (status, signal) => {
      running.delete(child);
      if (status === 0) resolve(output);
      else reject(new Error(`${file} ${args.join(' ')} ended with ${signal ?? status}: ${errors || output}`));
    });
  });
}

/** What pan(1) says of itself. */
function readVerdict(output) {
  const numberIn = (pattern) => Number(pattern.exec(output)?.[1] ?? Number.NaN);
  return {
    errors: numberIn(/errors: (\d+)/),
    states: numberIn(/^\s*([\d.e+]+) states, stored/m),
    seconds: numberIn(/elapsed time ([\d.e+-]+) seconds/),
    isPartial: /Search not completed|max search depth too small|out of memory|Bit statespace|hash-?compact/i.test(
      output,
    ),
  };
}

/** The lines that the model printed, as far as the error. */
function readTrail(output) {
  const lines = output.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('spin: '));
  const end = lines.findLastIndex((line) => VERDICTS.includes(line));
  return lines.slice(0, end + 1);
}

async function search({ title, defines, finds }, folder) {
  mkdirSync(folder);
  copyFileSync(MODEL, join(folder, 'election.pml'));
  const macros = defines.map((define) => `-D${define}`);
  await execute(folder, 'spin', [...macros, '-a', 'election.pml']);
  // Shortest trails need breadth first. Everything is looked at in either case: no bit states, no partial order.
  const order = finds ? ['-O1', '-DBFS'] : ['-O2'];
  await execute(folder, 'cc', [...order, '-w', '-DSAFETY', '-DNOREDUCE', '-DMEMLIM=6000', '-o', 'pan', 'pan.c']);
  const verdict = readVerdict(await execute(folder, './pan', finds ? ['-w22'] : ['-w24', '-m2000000']));
  const hasTrail = existsSync(join(folder, 'election.pml.trail'));
  const trail = hasTrail
    ? readTrail(await execute(folder, 'spin', [...macros, '-t', '-T', '-k', 'election.pml.trail', 'election.pml']))
    : [];
  return { ...verdict, trail, problem: problemOf(verdict, trail, finds), title, defines, finds };
}

function problemOf({ errors, states, isPartial }, trail, finds) {
  if (!Number.isFinite(errors) || !Number.isFinite(states)) return 'pan said nothing that could be read';
  if (finds) {
    if (errors === 0) return isPartial ? 'the search ended too early' : `not found: ${finds}`;
    return trail.includes(finds) ? undefined : `found something else: ${trail.at(-1) ?? 'a trail that cannot be read'}`;
  }
  if (errors > 0) return `found: ${trail.at(-1) ?? 'an error'}`;
  return isPartial ? 'not everything was looked at' : undefined;
}

const cell = ({ finds, trail, problem }) => {
  if (problem) return problem.split('\n')[0];
  if (!finds) return 'nothing, everything looked at';
  return `${finds === TWO ? 'two at work at once' : 'it happens'}, ${trail.filter((line) => !VERDICTS.includes(line)).length} steps`;
};

for (const [program, packages] of [
  ['spin', 'spin'],
  ['cc', 'gcc libc6-dev'],
])
  if (spawnSync(program, [program === 'spin' ? '-V' : '--version'], { stdio: 'ignore' }).error)
    fail(`${program} is not installed; on Debian: apt-get install ${packages}`);

const startedAt = performance.now();
const work = mkdtempSync(join(tmpdir(), 'elect-run-model-'));
const cleanUp = () => {
  for (const child of running) child.kill('SIGKILL');
  rmSync(work, { recursive: true, force: true });
};
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.once(signal, () => {
    cleanUp();
    process.kill(process.pid, signal);
  });

const results = [];
try {
  const open = SEARCHES.entries();
  const workers = Array.from({ length: AT_ONCE }, async () => {
    for (const [index, wanted] of open) {
      results[index] = await search(wanted, join(work, String(index)));
      console.error(`  ${wanted.title}: ${cell(results[index])}`);
    }
  });
  console.error(`${SEARCHES.length} searches …`);
  await Promise.all(workers);
} catch (error) {
  cleanUp();
  fail(error.message);
} finally {
  cleanUp();
}

for (const { title, finds, trail, problem } of results) {
  if (trail.length === 0 || (finds === REACHED && !problem)) continue;
  console.log(`\n${finds === TWO ? 'Without: ' : ''}${title}`);
  for (const line of trail) console.log(`  ${line}`);
}

console.log('\n| | found | states | seconds |\n| --- | --- | ---: | ---: |');
for (const result of results) {
  const prefix = result.finds === TWO ? 'without: ' : result.finds === REACHED ? 'can there be: ' : '';
  console.log(
    `| ${prefix}${result.title} | ${cell(result)} | ${result.states.toLocaleString('en')} | ${result.seconds.toFixed(1)} |`,
  );
}
console.log(`\n${((performance.now() - startedAt) / 1000).toFixed(1)} s in all`);

const problems = results.filter(({ problem }) => problem);
for (const { title, problem } of problems) console.error(`model: ${title}: ${problem}`);
process.exit(problems.length > 0 ? 1 : 0);
