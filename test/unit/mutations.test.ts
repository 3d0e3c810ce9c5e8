import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { FAULT_NAMES } from '../chaos/faults.ts';
import { MUTATIONS, mutate } from '../chaos/mutations.ts';

// `npm run chaos -- --mutate all` has to find each of them. Whether it could be tried at all is known sooner.
describe.each(MUTATIONS)('elect-run without $name', ({ patches, faults = [] }) => {
  test('the faults that show it are there', () => {
    expect(FAULT_NAMES).toEqual(expect.arrayContaining(faults));
  });

  test.each(patches)('can be made: the rule is in $file, once', (patch) => {
    const path = fileURLToPath(new URL(`../../${patch.file}`, import.meta.url));
    const text = readFileSync(path, 'utf8');
    expect(mutate(text, patch)).not.toBe(text);
  });
});
