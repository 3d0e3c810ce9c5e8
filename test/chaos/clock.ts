import { uptime } from 'node:os';

/** Milliseconds since boot, as the oracle's jobs tell them. */
export const now = (): number => uptime() * 1000;

/** From performance.now() to it. */
export const OFFSET_MS = uptime() * 1000 - performance.now();
