import { defineConfig, type ViteUserConfig } from 'vitest/config';
import type { Reporter } from 'vitest/node';

/** Ends every run with one plain line, for scripts. A file that fails to load counts as one failure. */
const totals: Reporter = {
  onTestRunEnd(modules, unhandledErrors) {
    let [passed, failed] = [0, unhandledErrors.length];
    for (const module of modules) {
      failed += module.errors().length;
      for (const suite of module.children.allSuites()) failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') passed += 1;
        if (state === 'failed') failed += 1;
      }
    }
    process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
  },
};

const config: ViteUserConfig = defineConfig({
  test: {
    reporters: ['default', totals],
    tags: [{ name: 'contract', description: 'suites that every implementation of an interface runs' }],
    coverage: {
      provider: 'v8',
      include: ['services/**/*.ts'],
      exclude: ['services/wire/gen/**', '**/*.contract.ts'],
    },
    projects: [
      {
        extends: true,
        test: { name: 'unit', isolate: false, include: ['services/**/*.test.ts'], testTimeout: 20_000 },
      },
      {
        extends: true,
        test: {
          name: 'chaos',
          include: ['chaos/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
export default config;
