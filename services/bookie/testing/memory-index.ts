import type { IndexRow, IndexStore } from '../index/store.ts';

/** An index in memory, for tests: what was written stays, whatever happens to the disk. Rows can be damaged. */
export class MemoryIndex implements IndexStore {
  readonly values: Map<string, Buffer> = new Map();
  /** There is no room for it: writes fail with ENOSPC. */
  full = false;

  get(key: Buffer): Buffer | undefined {
    return this.values.get(key.toString('hex'));
  }

  async write(rows: readonly IndexRow[]): Promise<void> {
    if (this.full) throw Object.assign(new Error('ENOSPC: the index'), { code: 'ENOSPC' });
    for (const { key, value } of rows) this.values.set(key.toString('hex'), Buffer.from(value));
    await Promise.resolve();
  }

  async *rows(): AsyncIterable<IndexRow> {
    const sorted = [...this.values].toSorted(([a], [b]) => (a < b ? -1 : 1));
    for (const [key, value] of sorted) yield await Promise.resolve({ key: Buffer.from(key, 'hex'), value });
  }

  async clear(): Promise<void> {
    this.values.clear();
    await Promise.resolve();
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }
}
