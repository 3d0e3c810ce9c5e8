import { describe, test } from 'vitest';
import { type Need, whatIsMissing } from './tools.ts';

/**
 * `describe`, for tests that need servers or tools. Where one cannot be had each test is reported as skipped, by name and with the cause;
 * with REQUIRE_SERVERS=1 that is a failure.
 */
export function describeWith(needs: Need[], name: string, body: () => void): void {
  const cause = whatIsMissing(needs);
  if (cause === undefined) describe(name, body);
  else if (process.env.REQUIRE_SERVERS === '1') {
    test(`${name}: everything that it needs is there`, () => {
      throw new Error(`REQUIRE_SERVERS=1, but ${cause}`);
    });
  } else describe.skip(`${name} [skipped: ${cause}]`, body);
}
