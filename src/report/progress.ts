import type { Ora } from 'ora';
import { canSpin } from './spinner.ts';

export interface Progress {
  /** In the place of the step before. */
  tell(step: string): void;
  end(): void;
}

/** What is being done, on a terminal only. ora is loaded when it is first needed. */
export function showProgress(): Progress {
  let spinner: Ora | undefined;
  let shown: string | undefined;
  return {
    async tell(step) {
      shown = step;
      if (!canSpin()) return;
      const { default: ora } = await import('ora');
      if (shown === undefined) return;
      // A cursor that is hidden stays so when we are killed.
      spinner ??= ora({ stream: process.stderr, discardStdin: false, hideCursor: false, isEnabled: true });
      spinner.text = shown;
      if (!spinner.isSpinning) spinner.start();
    },
    end() {
      shown = undefined;
      spinner?.stop();
    },
  };
}
