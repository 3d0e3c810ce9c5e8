import { mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StoreKind } from './store.ts';

export const FILE: StoreKind[] = [
  {
    name: 'file',
    needs: ['flock'],
    async start() {
      const dir = mkdtempSync(join(tmpdir(), 'elect-run-contract-'));
      return {
        spec: { kind: 'file', dir },
        tellsAtOnce: true,
        depose: async (_, election) => unlinkSync(join(dir, `${election}.lock`)),
        servers: undefined,
        end: async () => rmSync(dir, { recursive: true }),
      };
    },
  },
];
