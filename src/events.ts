import type { Run } from './runs.ts';

/**
 * Everything that elect-run has to say, as one union. `report()` is the only way out: a reporter (src/report/)
 * turns an event into a line, a spinner or a number. Each transition of the state machine is exactly one event.
 */
export type Event =
  | { type: 'campaigning'; election: string; backend: string; id: string }
  | { type: 'unreachable'; reason: string; retryInMs: number }
  | { type: 'standby'; leader: string | undefined; since: string | undefined; position: number | undefined }
  | { type: 'elected'; election: string; token: string; id: string; ttlMs: number }
  | { type: 'scheduled'; slot: string }
  | { type: 'slot-settled'; slot: string; run: Run }
  | { type: 'started'; pid: number; command: string; token: string; slot: string | undefined }
  | { type: 'place-renewed'; validForMs: number }
  | { type: 'place-lost'; reason: string }
  | { type: 'renewed'; token: string; tookMs: number; validForMs: number }
  | { type: 'suspended'; token: string; reason: string; stopInMs: number }
  | { type: 'resumed'; token: string }
  | { type: 'stepping-down'; token: string; reason: string; killInMs: number }
  | { type: 'deposed'; token: string; reason: string }
  | { type: 'signalled'; signal: string; forwarded: boolean }
  | { type: 'notified'; lines: string[] }
  | { type: 'ended'; pid: number; status: number; signal: string | undefined }
  | { type: 'record-unavailable'; reason: string }
  /** We were asked to end, and the run of this slot with us: it is for the next leader to run again. */
  | { type: 'cut-off'; slot: string }
  | { type: 'unrecorded'; slot: string; reason: string }
  | { type: 'holding'; forMs: number }
  | { type: 'strayed'; pids: number[] }
  | { type: 'leftovers'; pids: number[] }
  | { type: 'guard-replaced'; reason: string }
  | { type: 'resigned'; token: string }
  | { type: 'left-to-expire'; token: string; reason: string }
  | { type: 'warning'; message: string }
  | { type: 'failed'; message: string; stack: string | undefined };

export type Report = (event: Event) => void;

export type Level = 'error' | 'warn' | 'info' | 'debug';

/** How loud an event is: `-q` shows warnings and errors, `-v` adds debug. */
export function levelOf(event: Event): Level {
  switch (event.type) {
    case 'failed':
      return 'error';
    case 'unreachable':
    case 'suspended':
    case 'stepping-down':
    case 'deposed':
    case 'leftovers':
    case 'guard-replaced':
    case 'left-to-expire':
    case 'record-unavailable':
    case 'unrecorded':
    case 'warning':
      return 'warn';
    case 'campaigning':
    case 'standby':
    case 'elected':
    case 'scheduled':
    case 'slot-settled':
    case 'started':
    case 'resumed':
    case 'ended':
    case 'cut-off':
    case 'holding':
    case 'resigned':
      return 'info';
    case 'place-renewed':
    case 'place-lost':
    case 'renewed':
    case 'notified':
    case 'strayed':
    case 'signalled':
      return 'debug';
  }
}
