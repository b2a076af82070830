import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const fromSource = import.meta.url.endsWith('.ts');
const script = fileURLToPath(new URL(`../../${fromSource ? '' : '../'}.ci/setup-debian.mjs`, import.meta.url));

/**
 * Makes sure that the Debian packages of the tests are there, with the code behind `npm run setup:debian`.
 *
 * @throws when they are not and cannot be installed; the message is the line to type.
 */
export async function requirePackages(): Promise<void> {
  try {
    await promisify(execFile)(process.execPath, [script]);
  } catch (error) {
    const said = error instanceof Error && 'stdout' in error ? String(error.stdout).trim() : String(error);
    throw new Error(said, { cause: error });
  }
}
