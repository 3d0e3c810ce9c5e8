import type { BackendSpec } from '../../src/backends/spec.ts';

export type What = 'renewals' | 'standby' | 'slots' | 'guard';

export interface Task {
  what: What;
  /** Of the store; `guard` asks none. */
  spec: BackendSpec;
  times: number;
  leak?: Leak;
}

/** What the check has to find: something that is left behind each time. */
export type Leak = 'race' | 'listener' | 'descriptor';
