/**
 * Makes the types of the internal records, `services/wire/gen`, out of their `.proto`; with `--check`, tells whether they
 * are fresh and exits with 1 when they are not.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { loaderOptions, protoDir } from './loader.ts';

const FILES = ['magnetar/internal/v1/records.proto'];
const tool = fileURLToPath(import.meta.resolve('@grpc/proto-loader/build/bin/proto-loader-gen-types.js'));
const gen = fileURLToPath(new URL('gen', import.meta.url));

function generate(outDir: string): void {
  const flags = Object.entries(loaderOptions).map(([name, value]) =>
    value === true ? `--${name}` : `--${name}=${value.name}`,
  );
  const fixed = ['--includeComments', '--importFileExtension=.ts', '-I', basename(protoDir), '-O', outDir];
  execFileSync(process.execPath, [tool, ...flags, ...fixed, ...FILES], { cwd: join(protoDir, '..'), stdio: 'inherit' });
}

if (process.argv.includes('--check')) {
  const fresh = mkdtempSync(join(tmpdir(), 'magnetar-gen-'));
  try {
    generate(fresh);
    process.exitCode = spawnSync('diff', ['-r', gen, fresh], { stdio: 'inherit' }).status ?? 1;
    if (process.exitCode !== 0) console.error('services/wire/gen is not what proto/ says: run `npm run gen`');
  } finally {
    rmSync(fresh, { recursive: true });
  }
} else {
  rmSync(gen, { recursive: true, force: true });
  generate(gen);
}
