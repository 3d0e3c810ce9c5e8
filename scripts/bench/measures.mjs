// The measures of one candidate, or of two. Each of them takes one candidate after the other in every round (A B A B …), so that whatever else the machine does
// meets all of them alike.
import { readFileSync } from 'node:fs';
import { end, Job, start } from './processes.mjs';
import { childrenOf } from './processor.mjs';

export const pause = (durationMs) => new Promise((resolve) => setTimeout(resolve, durationMs));

/** Rotated, so that none always follows the same one. */
const inTurn = (list, round) => [...list.slice(round % list.length), ...list.slice(0, round % list.length)];

/** After a candidate said that it stands by, or instead of its saying so. */
const SETTLE_MS = 400;

/** From just before the exec to the first byte that its child writes (an empty script: to its end). */
export async function measureStart(candidates, { rounds, warmUp, progress }) {
  const results = new Map(candidates.map(({ key }) => [key, { startMs: [], wholeMs: [] }]));
  for (let round = -warmUp; round < rounds; round++) {
    progress(`start ${Math.max(0, round + 1)}/${rounds}`);
    for (const { key, command, env } of inTurn(candidates, round + warmUp)) {
      const startedAt = performance.now();
      const child = start(command, { env, stdio: ['ignore', 'pipe', 'ignore'] });
      let firstAt;
      child.stdout.once('data', () => {
        firstAt = performance.now();
      });
      const { at, status } = await child.ended;
      if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}`);
      child.stdout.destroy();
      if (round < 0) continue;
      results.get(key).startMs.push((firstAt ?? at) - startedAt);
      results.get(key).wholeMs.push(at - startedAt);
    }
  }
  return results;
}

let elections = 0;

/** A leader whose job runs, and a standby that waits behind it. */
async function pairOf(candidate, folder) {
  const election = `bench-${++elections}`;
  const jobs = [new Job(folder), new Job(folder)];
  const leader = launch(candidate, election, jobs[0]);
  await Promise.race([jobs[0].started, failure(leader)]);
  const standby = launch(candidate, election, jobs[1]);
  await Promise.race([standsBy(candidate, standby, election), failure(standby)]);
  await pause(SETTLE_MS);
  const close = async () => {
    for (const job of jobs) job.kill();
    await Promise.all([end(leader), end(standby)]);
    await Promise.all(jobs.map((job) => job.close()));
  };
  return { jobs, leader, standby, close };
}

/** As it says itself, or as its store shows; of others nothing is known. */
async function standsBy({ standbyLine, inLine }, child, election) {
  if (standbyLine) await said(child, standbyLine);
  if (inLine) await inLine(election, 2);
}

export function launch({ command, env }, election, job) {
  const child = start(command(election, job.command), { env, stdio: ['ignore', 'ignore', 'pipe'] });
  child.said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    child.said += text;
  });
  return child;
}

export const said = (child, line) =>
  new Promise((resolve) => {
    const look = () => {
      if (!child.said.includes(line)) return;
      child.stderr.off('data', look);
      resolve();
    };
    child.stderr.on('data', look);
    look();
  });

export async function failure(child) {
  const { status, signal } = await child.ended;
  throw new Error(`${child.spawnargs.join(' ')} ended with ${status ?? signal}: ${child.said}`);
}

/** From one job's end to the next one's start, a standby waiting. */
export async function measureHandOver(candidates, { rounds, folder, progress }) {
  const results = new Map(candidates.map(({ key }) => [key, { ms: [] }]));
  for (let round = -1; round < rounds; round++) {
    progress(`hand-over ${Math.max(0, round + 1)}/${rounds}`);
    for (const candidate of inTurn(candidates, round + 1)) {
      const { jobs, standby, close } = await pairOf(candidate, folder);
      jobs[0].finish();
      const endedAt = await jobs[0].ended;
      const startedAt = await Promise.race([jobs[1].started, failure(standby)]);
      if (round >= 0) results.get(candidate.key).ms.push(startedAt - endedAt);
      jobs[1].finish();
      await standby.ended;
      await close();
    }
  }
  return results;
}

/** From kill -9 of the leader to the start of the next job; and whether the old job ran on beside it. */
export async function measureTakeOver(candidates, { rounds, folder, progress, patienceMs }) {
  const results = new Map(candidates.map(({ key }) => [key, { ms: [], jobEndMs: [], never: 0, overlaps: 0 }]));
  for (let round = 0; round < rounds; round++) {
    progress(`take-over ${round + 1}/${rounds}`);
    for (const candidate of inTurn(candidates, round)) {
      const result = results.get(candidate.key);
      if (result.never > 0) continue; // that will not change
      const { jobs, leader, close } = await pairOf(candidate, folder);
      const killedAt = performance.now();
      leader.kill('SIGKILL');
      await Promise.race([jobs[1].started, pause(patienceMs)]);
      if (jobs[1].startedAt === undefined) result.never++;
      else result.ms.push(jobs[1].startedAt - killedAt);
      if (jobs[0].endedAt !== undefined) result.jobEndMs.push(jobs[0].endedAt - killedAt);
      else if (jobs[1].startedAt !== undefined) result.overlaps++;
      await close();
    }
  }
  return results;
}

/** While it leads, and has renewed: of the wrapper, and of all that it started besides the job. */
export async function measureMemory(candidates, { rounds, folder, progress }) {
  const results = new Map(candidates.map(({ key }) => [key, { main: [], helpers: [], both: [], pss: [] }]));
  for (let round = 0; round < rounds; round++) {
    for (const candidate of candidates) {
      progress(`memory ${round + 1}/${rounds}`);
      const job = new Job(folder);
      const leader = launch(candidate, `bench-${++elections}`, job);
      await Promise.race([job.started, failure(leader)]);
      await pause(candidate.renewsAfterMs ?? 500);
      const helpers = descendants(leader.pid, job.pid);
      const [main, ...others] = [leader.pid, ...helpers].map(memoryOf);
      const sum = (field) => others.reduce((total, memory) => total + memory[field], 0);
      const result = results.get(candidate.key);
      result.main.push(main.peak);
      result.helpers.push(sum('peak'));
      result.both.push(main.peak + sum('peak'));
      result.pss.push(main.pss + sum('pss'));
      job.finish();
      await leader.ended;
      await job.close();
    }
  }
  return results;
}

function descendants(pid, except) {
  return childrenOf(pid)
    .filter((child) => child !== except)
    .flatMap((child) => [child, ...descendants(child, except)]);
}

/** In MB: the peak of the resident set, and the set as it is now with every shared page divided by those who share it. */
function memoryOf(pid) {
  const read = (file, field) => {
    const text = readFileSync(`/proc/${pid}/${file}`, 'latin1');
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1.024e-3;
  };
  return { peak: read('status', 'VmHWM'), pss: read('smaps_rollup', 'Pss') };
}
