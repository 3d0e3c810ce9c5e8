import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** This process, its garbage collected. */
export async function sampleSelf() {
  for (let turn = 0; turn < 3; turn++) {
    (globalThis as unknown as { gc(): void }).gc();
    await sleep(20);
  }
  return {
    heapKB: Math.round(process.memoryUsage().heapUsed / 1024),
    residentKB: residentKB('self'),
    descriptors: descriptors('self'),
    resources: process.getActiveResourcesInfo().length,
  };
}

/** Of a process that has just ended: 0. */
export const residentKB = (pid: number | 'self'): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(ifThere(() => readFileSync(`/proc/${pid}/status`, 'latin1')) ?? '')?.[1] ?? 0);

export const descriptors = (pid: number | 'self'): number =>
  (ifThere(() => readdirSync(`/proc/${pid}/fd`)) ?? []).length;

function ifThere<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
