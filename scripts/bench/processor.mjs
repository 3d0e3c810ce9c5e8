// What a process and all that it has started have used of the processor so far.
import { readdirSync, readFileSync } from 'node:fs';

const NS_PER_MS = 1e6;
/** proc(5): clock ticks, of which Linux tells a hundred a second. */
const MS_PER_TICK = 10;

/**
 * In ms: of the living by the scheduler's own account of each thread, to the nanosecond (/proc/PID/task/TID/schedstat); of the dead in steps of 10 ms,
 * by what their parents were told when they waited for them. `except` and what descends from it is not counted.
 */
export function processorMs(pid, except) {
  if (pid === except) return 0;
  const tasks = listOf(`/proc/${pid}/task`);
  const own = tasks.reduce((sum, task) => sum + Number(read(`/proc/${pid}/task/${task}/schedstat`).split(' ')[0]), 0);
  const stat = read(`/proc/${pid}/stat`);
  const [cutime, cstime] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(13, 15)
    .map(Number);
  const dead = ((cutime ?? 0) + (cstime ?? 0)) * MS_PER_TICK;
  return childrenOf(pid).reduce((sum, child) => sum + processorMs(child, except), own / NS_PER_MS + dead);
}

export function childrenOf(pid) {
  return listOf(`/proc/${pid}/task`).flatMap((task) =>
    read(`/proc/${pid}/task/${task}/children`).split(' ').filter(Boolean).map(Number),
  );
}

/** Nothing of whoever has just ended. */
function read(file) {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

function listOf(folder) {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
