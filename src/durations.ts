const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const LONGEST_MS = 3650 * UNIT_MS.d;
const DURATION = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$/;

export const isDuration = (text: string): boolean => DURATION.test(text);

/** `500ms`, `15s`, `2m`, `1h30m` → milliseconds. Throws an Error whose message says what would be right. */
export function parseDuration(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text) && text !== '0') {
    throw new Error(`"${text}" has no unit: did you mean ${text}s? (500ms, 15s, 2m, 1h30m)`);
  }
  if (text === '0') return 0;
  if (!DURATION.test(text)) throw new Error(`"${text}" is not a duration (500ms, 15s, 2m, 1h30m)`);
  let totalMs = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    totalMs += Number(amount) * UNIT_MS[unit as keyof typeof UNIT_MS];
  }
  if (totalMs > LONGEST_MS) throw new Error(`"${text.slice(0, 40)}" is longer than 3650d`);
  return Math.round(totalMs);
}

/** Milliseconds → the shortest text that reads the same: `850ms`, `1.5s`, `15s`, `2m`, `1h30m`. */
export function formatDuration(durationMs: number): string {
  if (!Number.isFinite(durationMs)) return 'for ever';
  if (Math.round(durationMs) < 1000) return `${Math.round(durationMs)}ms`;
  if (Math.round(durationMs / 100) < 600) return `${Math.round(durationMs / 100) / 10}s`;
  const rounded = Math.round(durationMs / 1000);
  const [minutes, seconds] = [Math.floor(rounded / 60), rounded % 60];
  const hours = Math.floor(minutes / 60);
  return [hours && `${hours}h`, minutes % 60 && `${minutes % 60}m`, seconds && `${seconds}s`].filter(Boolean).join('');
}
