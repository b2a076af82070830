/** Faults of the disk in a process: the library of `shim.c`, and the file of its rules. */
import { execFile } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { temporaryFolder } from './process.ts';

const SOURCE = fileURLToPath(new URL('shim.c', import.meta.url));

/** What befalls calls of a kind on files whose path contains the pattern, after so many have gone through. */
export interface Fault {
  readonly calls: 'sync' | 'write';
  readonly pattern: string;
  readonly after?: number;
  /** torn: half of the bytes are written, then there is no room. */
  readonly fate: 'EIO' | 'ENOSPC' | 'torn' | `slow:${number}`;
}

export class DiskShim implements AsyncDisposable {
  /** For the process that is to have the faults. */
  readonly env: Readonly<Record<string, string>>;
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.env = { LD_PRELOAD: path.join(folder, 'shim.so'), SHIM_CONTROL: this.#control };
  }

  static async create(): Promise<DiskShim> {
    const folder = await temporaryFolder();
    const library = path.join(folder, 'shim.so');
    await promisify(execFile)('gcc', ['-shared', '-fPIC', '-O2', '-o', library, SOURCE, '-ldl']);
    return new DiskShim(folder);
  }

  get #control(): string {
    return path.join(this.#folder, 'control');
  }

  /** These faults, and no others, from now on. */
  async set(...faults: readonly Fault[]): Promise<void> {
    const lines = faults.map(({ calls, pattern, after = 0, fate }) => `${calls} ${pattern} ${after} ${fate}\n`);
    await rm(`${this.#control}.log`, { force: true });
    await writeFile(this.#control, lines.join(''));
  }

  /** What has befallen the process since the faults were set: lines of calls, fate, path. */
  async faults(): Promise<string[]> {
    const text = await readFile(`${this.#control}.log`, 'utf8').catch(() => '');
    return text.split('\n').filter((line) => line !== '');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#folder, { recursive: true });
  }
}
