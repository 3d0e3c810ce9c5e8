import { now } from '../../clock.ts';
import type { ReadyOn } from '../../config.ts';
import { formatDuration } from '../../durations.ts';
import type { History } from './history.ts';

export interface Health {
  ok: boolean;
  /** One line. */
  text: string;
}

/** Our event loop lives, since it answers; and as the leader we can still prove that we lead. */
export function liveness({ leads, validUntilAt }: History): Health {
  const overdueMs = now() - validUntilAt;
  if (leads && overdueMs > 0)
    return { ok: false, text: `the lease ran out ${formatDuration(overdueMs)} ago, and no renewal was confirmed` };
  return { ok: true, text: 'ok' };
}

export function readiness({ state, reason, leader }: History, readyOn: ReadyOn): Health {
  switch (state) {
    case 'leading':
    case 'suspended':
      return { ok: true, text: 'leading' };
    case 'standby': {
      const text = `standing by: ${leader?.leader || 'somebody else'} leads`;
      return readyOn === 'standby' ? { ok: true, text } : { ok: false, text };
    }
    case 'stepping-down':
      return { ok: false, text: `stepping down: ${reason}` };
    case 'unreachable':
      return { ok: false, text: `the store cannot be reached: ${reason}` };
    case 'campaigning':
      return { ok: false, text: 'campaigning' };
  }
}
