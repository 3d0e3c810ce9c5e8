import { constants } from 'node:os';

/** Exit codes of elect-run itself: sysexits(3) where sysexits has a word. They are API: docs/elect-run.1.md lists them. */
export const EXIT = {
  usage: 64,
  unavailable: 69,
  software: 70,
  standby: 75,
  stale: 76,
  refused: 77,
  lost: 79,
  cannotExecute: 126,
  notFound: 127,
} as const;

/** A reason to end that the user can mend: one line on stderr and an exit code, never a stack trace. */
export class Failure extends Error {
  override name = 'Failure';
  readonly code: number;
  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What was asked for is wrong. The line says which option, which value, and what would be right. */
export const usage = (message: string): Failure => new Failure(EXIT.usage, message);

/** The status by which shells tell death by signal n: 128 + n. */
export const signalStatus = (signal: number): number => 128 + signal;

const numbers: Record<string, number> = constants.signals;
const FIRST_REALTIME = 34;

/** `SIGTERM` → 15, `SIGRT34` → 34 (Linux numbers real-time signals 34 to 64; Node has no names for them). */
export function signalNumber(name: string): number {
  return numbers[name] ?? Number(name.replace('SIGRT', ''));
}

export function signalName(number: number): string {
  if (number >= FIRST_REALTIME) return `SIGRT${number}`;
  return Object.keys(numbers).find((name) => numbers[name] === number) ?? `SIG${number}`;
}

/** Of a process. */
export interface End {
  /** What a shell would have in `$?`: the exit status, or 128+n for death by signal n. */
  status: number;
  signal: string | undefined;
}

/** From the status of wait(2). */
export function endOf(status: number): End {
  const killedBy = status & 0x7f;
  if (killedBy) return { status: signalStatus(killedBy), signal: signalName(killedBy) };
  return { status: (status >> 8) & 0xff, signal: undefined };
}
