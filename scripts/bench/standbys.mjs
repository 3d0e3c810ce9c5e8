// Many standbys of one election, each a process: who wakes up at a hand-over, what they ask of the store while nothing happens, and whether the
// hand-over takes longer the more there are.
import { join } from 'node:path';
import { failure, launch, pause, said } from './measures.mjs';
import { end, Job } from './processes.mjs';

/** By default. */
const RENEWALS_PER_TTL = 3;
/** So many start, or end, at the same time. */
const AT_ONCE = 4;
/** After a hand-over, until its last requests are made. */
const QUIET_MS = 1000;

/**
 * For each candidate: by number of standbys the hand-overs, each with its `ms` and the `requests` that the store received between the order to the one job
 * to end and the start of the next one; the `requestsPerRenewal` of a standby while nothing happens; and how often two jobs were at work at once.
 */
export async function measureStandbys(candidates, { counts, handOvers, ttlMs, folder, progress }) {
  const results = new Map();
  for (const candidate of candidates) {
    const crowd = new Crowd(candidate, folder);
    const result = { handOvers: {}, requestsPerRenewal: undefined };
    try {
      const during = await requestsDuring(candidate.requests);
      for (const count of counts) {
        await crowd.grow(count, (now) => progress(`standbys ${candidate.key}: ${now} of ${count} stand by`));
        await pause(QUIET_MS);
        if (count === counts.at(-1)) {
          progress(`standbys ${candidate.key}: at rest`);
          result.requestsPerRenewal = (await during(() => pause(ttlMs))).requests / count / RENEWALS_PER_TTL;
        }
        result.handOvers[count] = [];
        for (let done = 1; done <= handOvers; done++) {
          progress(`standbys ${candidate.key}: hand-over ${done} of ${handOvers} with ${count}`);
          const { value: ms, requests } = await during(() => crowd.handOver());
          result.handOvers[count].push({ ms, requests });
          await crowd.grow(count, () => {});
          await pause(QUIET_MS);
        }
      }
    } finally {
      progress(`standbys ${candidate.key}: ending`);
      await crowd.end();
    }
    results.set(candidate.key, { ...result, leaders: crowd.leaders, overlaps: crowd.overlaps });
  }
  return results;
}

/** Counts what the store is asked while something is done; undefined where it is asked nothing. */
async function requestsDuring(total) {
  if (!total) return async (act) => ({ value: await act(), requests: undefined });
  const before = await total();
  const ownCost = (await total()) - before;
  return async (act) => {
    const before = await total();
    const value = await act();
    return { value, requests: (await total()) - before - ownCost };
  };
}

/** The leader of one election and those who stand by, in the order in which they came. */
class Crowd {
  leaders = 0;
  overlaps = 0;
  #candidate;
  #folder;
  #election;
  #lock;
  #leader;
  #standbys = [];

  constructor(candidate, folder) {
    this.#candidate = candidate;
    this.#folder = folder;
    this.#election = `crowd-${candidate.key.replace(/\W+/g, '-')}`;
    this.#lock = join(folder, `${this.#election}.lock`);
  }

  async grow(count, tell) {
    this.#leader ??= await this.#first();
    while (this.#standbys.length < count) {
      const missing = Math.min(AT_ONCE, count - this.#standbys.length);
      this.#standbys.push(...(await Promise.all(Array.from({ length: missing }, () => this.#another()))));
      tell(this.#standbys.length);
    }
  }

  async #first() {
    const first = this.#launch();
    await Promise.race([first.job.started, failure(first.child)]);
    this.leaders++;
    return first;
  }

  async #another() {
    const standby = this.#launch();
    await Promise.race([said(standby.child, this.#candidate.standbyLine), failure(standby.child)]);
    return standby;
  }

  #launch() {
    const job = new Job(this.#folder, this.#lock);
    return { job, child: launch(this.#candidate, this.#election, job) };
  }

  /** From the leader's job's end to the start of the next one, whoever it is, in ms. */
  async handOver() {
    const { job, child } = this.#leader;
    job.finish();
    const endedAt = await job.ended;
    const started = this.#standbys.map((standby) => standby.job.started.then(() => standby));
    const failures = this.#standbys.map((standby) => failure(standby.child));
    this.#leader = await Promise.race([...started, ...failures]);
    this.#standbys = this.#standbys.filter((standby) => standby !== this.#leader);
    this.leaders++;
    await child.ended;
    await this.#close(job);
    return this.#leader.job.startedAt - endedAt;
  }

  async #close(job) {
    if (job.metAnother) this.overlaps++;
    await job.close();
  }

  /** From the end of the line, so that nobody is woken up. */
  async end() {
    this.overlaps += this.#standbys.filter(({ job }) => job.startedAt !== undefined).length;
    while (this.#standbys.length > 0) {
      await Promise.all(this.#standbys.splice(-AT_ONCE).map((one) => this.#endOne(one)));
    }
    if (this.#leader) await this.#endOne(this.#leader);
  }

  async #endOne({ job, child }) {
    await end(child);
    await this.#close(job);
  }
}
