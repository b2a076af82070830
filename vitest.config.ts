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

/** Tests of whole processes whose figures depend on what else the machine does: each has it to itself. */
const ALONE = ['crash', 'disk-full', 'embedded', 'idle', 'memory', 'perf'].map((name) => `chaos/${name}.test.ts`);
const PROCESSES = { testTimeout: 120_000, hookTimeout: 60_000 };

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
        test: {
          name: 'unit',
          isolate: false,
          include: ['services/**/*.test.ts'],
          maxWorkers: '100%',
          testTimeout: 20_000,
        },
      },
      {
        extends: true,
        test: {
          ...PROCESSES,
          name: 'chaos',
          include: ['chaos/**/*.test.ts'],
          exclude: ALONE,
          maxWorkers: 2,
          maxConcurrency: 4,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: { ...PROCESSES, name: 'chaos-alone', include: ALONE, maxWorkers: 1, sequence: { groupOrder: 2 } },
      },
    ],
  },
});
export default config;
