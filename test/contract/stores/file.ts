import { rmSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { newFolder } from '../../helpers/folders.ts';
import type { StoreKind } from './store.ts';

export const FILE: StoreKind[] = [
  {
    name: 'file',
    needs: ['flock'],
    async start() {
      const dir = newFolder('contract');
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
