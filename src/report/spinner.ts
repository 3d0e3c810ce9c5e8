import type { Ora } from 'ora';
import type { Event, Report } from '../events.ts';
import { describe } from './log.ts';

/** Can a spinner be shown on stderr? Not in a terminal of zero columns, in which it would never stop wrapping. */
export const canSpin = (): boolean =>
  process.stderr.isTTY === true && process.stderr.columns > 0 && process.env.TERM !== 'dumb';

/**
 * A spinner while we stand by or cannot reach the store; everything else goes through as lines. It is loaded when it is
 * first needed, and gone from the screen before the child starts.
 */
export function withSpinner(lines: Report): Report {
  let spinner: Ora | undefined;
  let waitingFor: string | undefined;
  const show = async (text: string) => {
    waitingFor = text;
    const { default: ora } = await import('ora');
    if (waitingFor === undefined) return;
    // The child reads stdin, and a cursor that is hidden stays so when we are killed.
    spinner ??= ora({ stream: process.stderr, discardStdin: false, hideCursor: false, isEnabled: true });
    spinner.text = waitingFor;
    if (!spinner.isSpinning) spinner.start();
  };
  const hide = () => {
    if (waitingFor === undefined) return; // stopping it twice would move the cursor under the child's feet
    waitingFor = undefined;
    spinner?.stop();
  };
  return (event: Event) => {
    if (event.type === 'standby' || event.type === 'unreachable') {
      show(describe(event));
    } else if (event.type === 'place-renewed' || event.type === 'place-lost') {
      const text = waitingFor; // it goes on
      hide();
      lines(event);
      if (text !== undefined) show(text);
    } else {
      hide();
      lines(event);
    }
  };
}
