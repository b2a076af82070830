/**
 * A disk in memory that can lose what was not made durable.
 *
 * Fault model: written bytes survive a crash for certain only after `sync` of the file; names (created, moved, removed) only after
 * `syncFolder`; a folder itself is durable at once, as with the real disk. Of what was not made durable, a crash keeps nothing, or
 * what chance decides: bytes sector by sector, changes of names up to some point in their order (a rename is one change). A failed `sync` loses what it was to make durable for good, though reads still see it: that is how
 * Linux behaves. A crash leaves open files unusable. Bits can be flipped in durable bytes. With a capacity, a write that needs more
 * room than there is writes the pages that there is room for, and fails with ENOSPC.
 */
import { posix } from 'node:path';
import { byteLength } from '../../lib/views.ts';
import type { Disk, DiskFile, DiskSpace } from '../disk.ts';
import type { Random } from '../random.ts';

const SECTOR_BYTES = 512;
const PAGE_BYTES = 4_096;

/** A call of the disk, for faults and barriers. */
export interface DiskCall {
  readonly operation: 'open' | 'readFile' | 'read' | 'write' | 'sync' | 'truncate' | 'rename' | 'remove' | 'syncFolder';
  readonly path: string;
  /** Bytes to be written, or read from an open file. */
  readonly bytes: number;
  /** Where a read or write of an open file begins. */
  readonly offset?: number;
}

function diskError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

/** A change of names: `inode` is now called `to`, and no longer `from`. */
interface NameChange {
  readonly inode: Inode;
  readonly from: string | undefined;
  readonly to: string | undefined;
}

function apply(names: Map<string, Inode>, { inode, from, to }: NameChange): void {
  if (from !== undefined) names.delete(from);
  if (to !== undefined) names.set(to, inode);
}

/** A path as a key: without `.`, `//` and a slash at its end. */
function nameOf(path: string): string {
  const name = posix.normalize(path);
  return name.length > 1 && name.endsWith('/') ? name.slice(0, -1) : name;
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

/** Bytes that grow. */
class Content {
  #buffer = Buffer.alloc(0);
  length = 0;

  resize(length: number): void {
    if (length > this.#buffer.length) {
      const grown = Buffer.alloc(Math.max(length, this.#buffer.length * 2, SECTOR_BYTES));
      this.#buffer.copy(grown, 0, 0, this.length);
      this.#buffer = grown;
    } else if (length < this.length) {
      this.#buffer.fill(0, length, this.length);
    }
    this.length = length;
  }

  set(offset: number, bytes: Uint8Array): void {
    if (offset + bytes.length > this.length) this.resize(offset + bytes.length);
    this.#buffer.set(bytes, offset);
  }

  slice(offset: number, length: number): Buffer {
    return Buffer.from(this.#buffer.subarray(offset, Math.min(this.length, offset + length)));
  }

  flip(bit: number): void {
    const at = bit >> 3;
    this.#buffer[at] = (this.#buffer[at] ?? 0) ^ (1 << (bit & 7));
  }

  copy(): Content {
    const copy = new Content();
    copy.set(0, this.slice(0, this.length));
    return copy;
  }
}

type Change = { readonly offset: number; readonly bytes: Buffer } | { readonly size: number };

class Inode {
  seen = new Content();
  durable = new Content();
  #unsynced: Change[] = [];

  change(change: Change): void {
    this.#apply(this.seen, change);
    this.#unsynced.push(change);
  }

  #apply(content: Content, change: Change): void {
    if ('size' in change) content.resize(change.size);
    else content.set(change.offset, change.bytes);
  }

  sync(): void {
    for (const change of this.#unsynced) this.#apply(this.durable, change);
    this.#unsynced = [];
  }

  dropUnsynced(): void {
    this.#unsynced = [];
  }

  crash(random: Random | undefined): void {
    for (const change of random === undefined ? [] : this.#unsynced) {
      for (const part of 'size' in change ? [change] : sectors(change)) {
        if (random !== undefined && random.next() < 0.5) this.#apply(this.durable, part);
      }
    }
    this.#unsynced = [];
    this.seen = this.durable.copy();
  }
}

function sectors(change: { offset: number; bytes: Buffer }): Change[] {
  const parts: Change[] = [];
  for (let at = 0; at < change.bytes.length; ) {
    const end = Math.min(change.bytes.length, at + SECTOR_BYTES - ((change.offset + at) % SECTOR_BYTES));
    parts.push({ offset: change.offset + at, bytes: change.bytes.subarray(at, end) });
    at = end;
  }
  return parts;
}

class CrashFile implements DiskFile {
  readonly #disk: CrashDisk;
  readonly #path: string;
  readonly #inode: Inode;
  readonly #life: number;
  #closed = false;

  constructor(disk: CrashDisk, path: string, inode: Inode) {
    this.#disk = disk;
    this.#path = path;
    this.#inode = inode;
    this.#life = disk.crashes;
    disk.openFiles++;
  }

  async #call(operation: DiskCall['operation'], bytes = 0, offset = 0): Promise<void> {
    this.#check();
    await this.#disk.enter({ operation, path: this.#path, bytes, offset });
    this.#check();
  }

  #check(): void {
    if (this.#closed || this.#life !== this.#disk.crashes) throw diskError('EBADF', this.#path);
  }

  async write(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const bytes = byteLength(buffers);
    await this.#call('write', bytes, offset);
    this.#check(); // Another call may have crashed the disk since this one was let in.
    const whole = Buffer.concat(buffers);
    const room = this.#disk.roomFor(this.#inode.seen.length, offset + bytes);
    if (room >= offset + bytes) {
      this.#inode.change({ offset, bytes: whole });
      return;
    }
    if (room > offset) this.#inode.change({ offset, bytes: whole.subarray(0, room - offset) });
    throw diskError('ENOSPC', this.#path);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    await this.#call('read', length, offset);
    return this.#inode.seen.slice(offset, length);
  }

  async sync(): Promise<void> {
    try {
      await this.#call('sync');
      this.#check();
    } catch (error) {
      this.#inode.dropUnsynced();
      throw error;
    }
    this.#inode.sync();
  }

  async commit(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    await this.write(buffers, offset);
    await this.sync();
  }

  async size(): Promise<number> {
    this.#check();
    return await Promise.resolve(this.#inode.seen.length);
  }

  async truncate(size: number): Promise<void> {
    await this.#call('truncate');
    this.#check();
    this.#inode.change({ size });
  }

  async close(): Promise<void> {
    if (!this.#closed && this.#life === this.#disk.crashes) this.#disk.openFiles--;
    this.#closed = true;
    await Promise.resolve();
  }
}

export class CrashDisk implements Disk {
  /** How often it has crashed. */
  crashes = 0;
  /** Files that were opened since then and are not closed. */
  openFiles = 0;
  /**
   * Called before every operation that touches a file; what it throws is the operation's error, and while its promise is
   * pending the operation waits. For faults and barriers.
   */
  before: (call: DiskCall) => void | Promise<void> = () => {};
  /** How many bytes its files may take, each in whole pages. May change at any time. */
  capacityBytes: number = Number.POSITIVE_INFINITY;
  #names = new Map<string, Inode>();
  readonly #durableNames = new Map<string, Inode>();
  #unsynced: NameChange[] = [];
  readonly #folders = new Set<string>(['/', '.']);

  /** For the disk's files. */
  async enter(call: DiskCall): Promise<void> {
    await this.before(call);
  }

  /** Bytes that its files take. */
  get usedBytes(): number {
    let bytes = 0;
    for (const inode of new Set(this.#names.values())) bytes += wholePages(inode.seen.length);
    return bytes;
  }

  /** For the disk's files: up to where one of `length` bytes can be written that wants to reach `end`. */
  roomFor(length: number, end: number): number {
    if (end <= wholePages(length) || this.capacityBytes === Number.POSITIVE_INFINITY) return end;
    return Math.min(end, wholePages(length) + Math.max(0, this.capacityBytes - this.usedBytes));
  }

  /** Loses what is not durable, or, with `random`, as much of it as chance decides. */
  crash(random?: Random): void {
    this.crashes++;
    this.openFiles = 0;
    const kept = random === undefined ? 0 : Math.floor(random.next() * (this.#unsynced.length + 1));
    for (const change of this.#unsynced.slice(0, kept)) apply(this.#durableNames, change);
    this.#unsynced = [];
    this.#names = new Map(this.#durableNames);
    for (const inode of new Set(this.#names.values())) inode.crash(random);
  }

  #rename(inode: Inode, from: string | undefined, to: string | undefined): void {
    const change = { inode, from, to };
    apply(this.#names, change);
    this.#unsynced.push(change);
  }

  /** Flips a bit of a file, in what is read and in what is durable. */
  flipBit(path: string, bit: number): void {
    const inode = this.#inode(path);
    inode.seen.flip(bit);
    inode.durable.flip(bit);
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(nameOf(path));
    if (inode === undefined) throw diskError('ENOENT', path);
    return inode;
  }

  /** A call that was let in before a crash does not happen after it. */
  #requireNoCrash(crashes: number, path: string): void {
    if (crashes !== this.crashes) throw diskError('EBADF', path);
  }

  #requireFolder(path: string): void {
    if (!this.#folders.has(posix.dirname(path))) throw diskError('ENOENT', path);
  }

  async open(path: string, options?: { create?: boolean }): Promise<DiskFile> {
    const { crashes } = this;
    await this.enter({ operation: 'open', path, bytes: 0 });
    this.#requireNoCrash(crashes, path);
    const name = nameOf(path);
    if (options?.create === true && !this.#names.has(name)) {
      this.#requireFolder(name);
      this.#rename(new Inode(), undefined, name);
    }
    return new CrashFile(this, name, this.#inode(name));
  }

  async readFile(path: string): Promise<Buffer> {
    const { crashes } = this;
    await this.enter({ operation: 'readFile', path, bytes: 0 });
    this.#requireNoCrash(crashes, path);
    const { seen } = this.#inode(path);
    return seen.slice(0, seen.length);
  }

  async writeFileAtomically(path: string, content: Uint8Array): Promise<void> {
    const temporary = `${path}.tmp`;
    if (await this.exists(temporary)) await this.remove(temporary);
    const file = await this.open(temporary, { create: true });
    try {
      await file.write([content], 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.rename(temporary, path);
    await this.syncFolder(posix.dirname(path));
  }

  async list(folder: string): Promise<string[]> {
    const parent = nameOf(folder);
    if (!this.#folders.has(parent)) throw diskError('ENOENT', folder);
    const children = [...this.#names.keys(), ...this.#folders].filter(
      (path) => posix.dirname(path) === parent && path !== parent,
    );
    return await Promise.resolve(children.map((path) => posix.basename(path)).toSorted());
  }

  async makeFolder(folder: string): Promise<void> {
    const path = nameOf(folder);
    if (this.#names.has(path)) throw diskError('EEXIST', folder);
    for (let made = path; !this.#folders.has(made); made = posix.dirname(made)) this.#folders.add(made);
    await Promise.resolve();
  }

  async rename(from: string, to: string): Promise<void> {
    const { crashes } = this;
    await this.enter({ operation: 'rename', path: from, bytes: 0 });
    this.#requireNoCrash(crashes, from);
    const [source, target] = [nameOf(from), nameOf(to)];
    const inode = this.#inode(source);
    this.#requireFolder(target);
    this.#rename(inode, source, target);
  }

  async remove(path: string): Promise<void> {
    const { crashes } = this;
    await this.enter({ operation: 'remove', path, bytes: 0 });
    this.#requireNoCrash(crashes, path);
    this.#rename(this.#inode(path), nameOf(path), undefined);
  }

  async syncFolder(folder: string): Promise<void> {
    const { crashes } = this;
    await this.enter({ operation: 'syncFolder', path: folder, bytes: 0 });
    this.#requireNoCrash(crashes, folder);
    const parent = nameOf(folder);
    if (!this.#folders.has(parent)) throw diskError('ENOENT', folder);
    const inside = (path: string | undefined): boolean => path !== undefined && posix.dirname(path) === parent;
    const later: NameChange[] = [];
    for (const change of this.#unsynced) {
      if (inside(change.from) || inside(change.to)) apply(this.#durableNames, change);
      else later.push(change);
    }
    this.#unsynced = later;
  }

  async exists(path: string): Promise<boolean> {
    const name = nameOf(path);
    return await Promise.resolve(this.#names.has(name) || this.#folders.has(name));
  }
  async space(folder: string): Promise<DiskSpace> {
    if (!this.#folders.has(nameOf(folder))) throw diskError('ENOENT', folder);
    const freeBytes = Math.max(0, this.capacityBytes - this.usedBytes);
    return await Promise.resolve({ freeBytes, totalBytes: this.capacityBytes });
  }
}
