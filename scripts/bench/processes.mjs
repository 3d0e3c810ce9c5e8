// Starts what is measured, and sees to it that nothing of it is left behind.
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, constants, openSync, writeFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';

const running = new Map();

/** In a session of its own: no terminal of ours changes what is measured, and its whole group can be ended. */
export function start([file, ...args], { env = {}, stdio = ['ignore', 'ignore', 'ignore'] } = {}) {
  const child = spawn(file, args, { stdio, detached: true, env: { ...process.env, ...env } });
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (status, signal) => {
      running.delete(child.pid);
      resolve({ at: performance.now(), status, signal });
    });
  });
  ended.catch(() => {});
  if (child.pid) running.set(child.pid, child);
  return Object.assign(child, { ended });
}

/** Ends the process and what it started in its own group. Waits for it. */
export async function end(child, signal = 'SIGTERM') {
  if (child.exitCode === null && child.signalCode === null) {
    const impatience = setTimeout(() => kill(-child.pid, 'SIGKILL'), 5000);
    kill(child.pid, signal);
    await child.ended;
    clearTimeout(impatience);
  }
  kill(-child.pid, 'SIGKILL');
}

export function endAll() {
  for (const pid of running.keys()) kill(-pid, 'SIGKILL');
  for (const job of jobs) job.kill();
}

function kill(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch {} // it has ended
}

const jobs = new Set();
let jobCount = 0;

const SCRIPT = `#!/bin/sh
exec 9>"$1"
echo $$ >&9
set -C
[ -z "$3" ] || { true >"$3"; } 2>/dev/null || echo another >&9
read -r word <"$2"
[ -z "$3" ] || rm -f "$3"
`;

/**
 * The command that the candidates run. It says its pid into a pipe of its own as its first act and holds that pipe open until it ends, so that its
 * start and its end are both seen to the fraction of a millisecond, whoever runs it; it ends when it is told to. Those that share a `lock` file say so
 * when one of them is at work already (O_EXCL).
 */
export class Job {
  #pid;
  #control;
  #pipe;
  startedAt;
  endedAt;
  metAnother = false;

  constructor(folder, lock = '') {
    const script = join(folder, 'job.sh');
    if (jobCount === 0) writeFileSync(script, SCRIPT, { mode: 0o755 });
    const [pipe, control] = ['out', 'in'].map((name) => join(folder, `job-${jobCount}.${name}`));
    jobCount++;
    execFileSync('mkfifo', [pipe, control]);
    this.command = [script, pipe, control, lock];
    this.#control = openSync(control, constants.O_RDWR | constants.O_NONBLOCK);
    this.#pipe = new Socket({ fd: openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK), readable: true });
    this.started = new Promise((resolve) => {
      this.#pipe.once('data', (text) => {
        this.startedAt = performance.now();
        this.#pid = Number.parseInt(text, 10);
        resolve(this.startedAt);
      });
      this.#pipe.on('data', (text) => {
        if (text.includes('another')) this.metAnother = true;
      });
    });
    this.ended = new Promise((resolve) => {
      this.#pipe.once('end', () => {
        this.endedAt = performance.now();
        resolve(this.endedAt);
      });
    });
    jobs.add(this);
  }

  get pid() {
    return this.#pid;
  }

  finish() {
    writeSync(this.#control, 'end\n');
  }

  kill() {
    if (this.#pid !== undefined && this.endedAt === undefined) kill(this.#pid, 'SIGKILL');
  }

  async close() {
    this.kill();
    if (this.startedAt !== undefined) await this.ended;
    this.#pipe.destroy();
    closeSync(this.#control);
    jobs.delete(this);
  }
}
