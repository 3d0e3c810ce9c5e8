import { defineConfig } from 'vitest/config';

/** As esbuild's loader of the build: the text. */
const lua = {
  name: 'lua',
  transform: (code: string, id: string) => (id.endsWith('.lua') ? `export default ${JSON.stringify(code)}` : undefined),
};

export default defineConfig({
  plugins: [lua],
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/helpers/folders.ts',
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    maxWorkers: 3, // they wait more than they work
    reporters: process.env.CI ? ['verbose'] : ['default'],
  },
});
