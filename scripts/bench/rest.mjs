// What elect-run costs while nothing happens: a leader that renews, and a standby. Everybody is measured in the same minute, elect-run with its guard and what
// the guard starts, without the job.
import { failure, launch, pause, said } from './measures.mjs';
import { end, Job } from './processes.mjs';
import { processorMs } from './processor.mjs';

/** Node compiles what runs often. */
const WARM_UP_MS = 10_000;
/** So many parts of the minute are looked at one by one, for the spread. */
const PARTS = 6;
export const RENEW_OFTEN_MS = 500;
const OFTEN = ['--ttl', '3s', '--renew-every', `${RENEW_OFTEN_MS}ms`];
/** ZooKeeper grants no more than two minutes. */
const SELDOM = ['--ttl', '120s', '--renew-every', '110s', '--grace', '1s'];
export const STANDBY_TTLS = ['15s', '3s'];

/**
 * By candidate, each with one number for each part of the time: `renewalMs` of processor time for a renewal, as the difference between two leaders of whom
 * one renews all the time and the other does not, divided by the renewals; `leader` at the default ttl, and `standbys` by ttl, as parts of a core.
 */
export async function measureRest(candidates, { durationMs, folder, progress }) {
  const all = [];
  const results = new Map();
  try {
    for (const candidate of candidates) {
      progress(`rest ${candidate.key}: starting`);
      const enter = async (name, flags, arrival) => {
        const one = start(candidate, `rest-${name}-${candidate.key}`, flags, folder, all);
        await Promise.race([arrival(one), failure(one.child)]);
        return one;
      };
      const lead = (name, flags) => enter(name, flags, ({ job }) => job.started);
      const standBehind = (name, flags) => enter(name, flags, ({ child }) => said(child, candidate.standbyLine));
      const measured = { often: await lead('often', OFTEN), seldom: await lead('seldom', SELDOM) };
      for (const ttl of STANDBY_TTLS) {
        measured[`leader ${ttl}`] = await lead(ttl, ['--ttl', ttl]);
        measured[`standby ${ttl}`] = await standBehind(ttl, ['--ttl', ttl]);
      }
      results.set(candidate.key, { measured, parts: [] });
    }
    await pause(WARM_UP_MS);
    let before = look(results);
    for (let part = 1; part <= PARTS; part++) {
      progress(`rest: part ${part} of ${PARTS}`);
      await pause(durationMs / PARTS);
      const after = look(results);
      for (const [key, { parts }] of results) {
        const tookMs = after.at - before.at;
        parts.push({
          tookMs,
          ...Object.fromEntries(Object.entries(after[key]).map(([name, ms]) => [name, ms - before[key][name]])),
        });
      }
      before = after;
    }
  } finally {
    for (const { child, job } of all.reverse()) {
      await end(child);
      await job.close();
    }
  }
  return new Map([...results].map(([key, { parts }]) => [key, summarize(parts)]));
}

function start(candidate, election, flags, folder, all) {
  const job = new Job(folder);
  const { command, env } = candidate;
  const one = {
    job,
    child: launch(
      { command: (name, run) => command(name, run, ...flags), env },
      election.replace(/\W+/g, '-').toLowerCase(),
      job,
    ),
  };
  all.push(one);
  return one;
}

function look(results) {
  const seen = { at: performance.now() };
  for (const [key, { measured }] of results)
    seen[key] = Object.fromEntries(
      Object.entries(measured).map(([name, { child, job }]) => [name, processorMs(child.pid, job.pid)]),
    );
  return seen;
}

function summarize(parts) {
  const share = (name) => parts.map((part) => part[name] / part.tookMs);
  return {
    renewalMs: parts.map(({ often, seldom, tookMs }) => (often - seldom) / (tookMs / RENEW_OFTEN_MS)),
    idle: share('seldom'),
    leaders: Object.fromEntries(STANDBY_TTLS.map((ttl) => [ttl, share(`leader ${ttl}`)])),
    standbys: Object.fromEntries(STANDBY_TTLS.map((ttl) => [ttl, share(`standby ${ttl}`)])),
  };
}
