/**
 * Random damage to the folder of a bookie between two lives, and the checker of what must hold afterwards: never a wrong byte; every
 * entry that was acknowledged is served, or answered as damaged or unknown; nothing that is whole is held back; a fence holds.
 */
import type { AppendEntry } from '../../ledger/bookie.ts';
import { hasCode, type MagnetarError } from '../../lib/errors.ts';
import { entryId, ledgerId } from '../../lib/ids.ts';
import type { Random } from '../../runtime/random.ts';
import { nodeClock } from '../../runtime/node/clock.ts';
import { ManualClock } from '../../runtime/testing/manual-clock.ts';
import { seededRandom } from '../../runtime/testing/seeded-random.ts';
import { entryDigest } from '../../wire/digest.ts';
import type { LocalBookie } from '../measured-bookie.ts';
import { inspectBookie } from '../inspect.ts';
import { PAGE_BYTES } from '../segments/format.ts';
import { CrashedBookie } from './crashed-bookie.ts';

const LEDGERS = 8;
const SEGMENT_BYTES = 98_304;
const KEY = Buffer.alloc(16, 7);
/** Of one page at most. */
const PAGE_KINDS: readonly DamageName[] = ['flip', 'zero'];

type DamageName = 'flip' | 'zero' | 'truncate' | 'delete' | 'old copy' | 'swap';

/** What became of a run. */
export interface DamageReport {
  /** What should not be: one line each. */
  readonly violations: string[];
  readonly damage: string;
  acked: number;
  served: number;
  damaged: number;
  unknown: number;
}

function entryAt(ledger: number, entry: number): AppendEntry {
  const payload = [Buffer.alloc((entry * 977 + ledger * 131) % 3_000, `${ledger}/${entry};`)];
  const numbers = { ledgerId: ledgerId(ledger), entryId: entryId(entry), lac: entryId(entry - 1), length: entry };
  const payloadBytes = payload[0]?.length ?? 0;
  const digest = entryDigest({ ...numbers, payload });
  return { ...numbers, digest, masterKey: KEY, recovery: false, payload, payloadBytes };
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 12; turn++) await new Promise<void>((resolve) => nodeClock.nextTurn(resolve));
}

/** A disk in memory with a bookie's files, to be damaged. */
class DamageRound {
  readonly #clock = new ManualClock();
  readonly #subject = new CrashedBookie({ segmentBytes: SEGMENT_BYTES, markDelayMs: 20 }, this.#clock);
  readonly #random: Random;
  readonly #acked = new Map<string, AppendEntry>();
  readonly #fenced = new Set<number>();
  readonly #served = new Set<string>();
  readonly #next = Array.from({ length: LEDGERS }, () => 0);
  #old: { readonly path: string; readonly content: Buffer } | undefined;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  #below(limit: number): number {
    return Math.floor(this.#random.next() * limit);
  }

  #pick<T>(items: readonly T[]): T {
    const item = items[this.#below(items.length)];
    if (item === undefined) throw new Error('nothing to choose from');
    return item;
  }

  /** `open`: how the bookie is opened for the check, so that a sabotage can break it. */
  async run(open: (subject: CrashedBookie) => Promise<LocalBookie>): Promise<DamageReport> {
    const first = await this.#subject.open();
    await this.#fill(first, 12);
    const paths = await this.#paths('seg');
    const path = this.#pick(paths);
    this.#old = { path, content: await this.#subject.disk.readFile(path) };
    await this.#fill(first, 12);
    if (this.#random.next() < 0.5) await first.close();
    else await this.#kill();
    const damage = await this.#damage();
    const inspected = await this.#inspect();
    const report = { violations: [], damage, acked: this.#acked.size, served: 0, damaged: 0, unknown: 0 };
    for (let life = 0; life < 2; life++) {
      Object.assign(report, { served: 0, damaged: 0, unknown: 0 });
      const bookie = await open(this.#subject).catch((error: unknown) => {
        if (!/cookie/.test(damage) || !hasCode(error, 'DATA_LOSS', 'FOLDER_VERSION')) {
          this.#violation(report, `it does not start: ${String(error)}`);
        }
      });
      if (bookie === undefined) break;
      await this.#check(bookie, report);
      if (life === 0 && inspected !== undefined) this.#compare(inspected, report);
      this.#clock.turn();
      await bookie.close();
    }
    return report;
  }

  /** Which acknowledged entries an inspection finds good; undefined: it refuses. Changes nothing. */
  async #inspect(): Promise<ReadonlySet<string> | undefined> {
    const { environment, index } = this.#subject;
    const { cookie, ledgers } = await inspectBookie({ environment, folder: '/bookie', index, indexProblem: undefined });
    if (cookie === undefined) return undefined;
    const good = new Set<string>();
    for (const { ledgerId: ledger, ranges } of ledgers) {
      for (const { firstEntryId, lastEntryId } of ranges) {
        for (let id = firstEntryId as number; id <= lastEntryId; id++) good.add(`${ledger}/${id}`);
      }
    }
    return good;
  }

  #compare(inspected: ReadonlySet<string>, report: DamageReport): void {
    for (const name of this.#acked.keys()) {
      if (inspected.has(name) !== this.#served.has(name)) {
        this.#violation(report, `an inspection finds ${name} ${inspected.has(name) ? 'good' : 'lost'}`);
      }
    }
  }

  /** Killed, when what happens by itself had happened. */
  async #kill(): Promise<void> {
    for (const ms of [20, 1_000]) {
      this.#clock.advance(ms);
      await turns();
    }
    this.#subject.disk.crash();
  }

  async #fill(bookie: LocalBookie, rounds: number): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      const count = 1 + this.#below(10);
      const stores = Array.from({ length: count }, async () => {
        const ledger = this.#below(LEDGERS);
        if (this.#fenced.has(ledger)) return;
        const entry = this.#next[ledger] ?? 0;
        this.#next[ledger] = entry + 1;
        const sent = entryAt(ledger, entry);
        await new Promise<void>((resolve) => bookie.append(sent, (error) => resolve(this.#answered(sent, error))));
      });
      await Promise.all(stores);
      if (this.#random.next() < 0.05) {
        const ledger = this.#below(LEDGERS);
        await bookie.readLac({ ledgerId: ledgerId(ledger), fence: { masterKey: KEY } });
        this.#fenced.add(ledger);
      }
    }
  }

  #answered(sent: AppendEntry, error: MagnetarError | undefined): void {
    if (error !== undefined) throw error;
    this.#acked.set(`${sent.ledgerId}/${sent.entryId}`, sent);
  }

  async #paths(kind: 'seg' | 'any'): Promise<string[]> {
    const { disk } = this.#subject;
    const segments = (await disk.list('/bookie/segments')).map((name) => `/bookie/segments/${name}`);
    return kind === 'seg' ? segments : [...segments, ...segments, '/bookie/witness', '/bookie/cookie'];
  }

  /** Damages one file, or the index; says how. */
  async #damage(): Promise<string> {
    const subject = this.#subject;
    if (this.#random.next() < 0.1) return this.#damageIndex();
    const kind = this.#pick<DamageName>([
      'flip',
      'flip',
      'zero',
      'zero',
      'zero',
      'truncate',
      'delete',
      'old copy',
      'swap',
    ]);
    const path = this.#pick(await this.#paths(kind === 'swap' ? 'seg' : 'any'));
    const content = await subject.disk.readFile(path);
    let used = content.length;
    while (used > 0 && content[used - 1] === 0) used--;
    const at = this.#below(Math.max(1, used));
    if (kind === 'flip') subject.disk.flipBit(path, at * 8 + this.#below(8));
    else if (kind === 'zero') {
      const from = at - (at % PAGE_BYTES);
      const bytes = Math.min(PAGE_BYTES, content.length - from);
      await subject.overwrite(path, from, Buffer.alloc(bytes));
    } else if (kind === 'truncate') await subject.cut(path, at);
    else if (kind === 'delete') await subject.replace(path, undefined);
    else if (kind === 'old copy') {
      const { path: old, content: before } = this.#old ?? { path, content };
      await subject.replace(old, before);
      return `old copy of ${old}`;
    } else {
      const other = this.#pick(await this.#paths('seg'));
      const swapped = await subject.disk.readFile(other);
      await subject.replace(other, content);
      await subject.replace(path, swapped);
      return `swap ${path} ${other}`;
    }
    return `${kind} ${path} at ${at} of ${used}`;
  }

  #damageIndex(): string {
    const { values } = this.#subject.index;
    const key = this.#pick([...values.keys()]);
    const value = values.get(key) ?? Buffer.alloc(0);
    if (this.#random.next() < 0.4) values.delete(key);
    else if (this.#random.next() < 0.3) values.clear();
    else value.writeUInt8((value[0] ?? 0) ^ 8, 0);
    return `index row ${key}`;
  }

  #violation(report: DamageReport, text: string): void {
    report.violations.push(`${report.damage}: ${text}`);
  }

  async #check(bookie: LocalBookie, report: DamageReport): Promise<void> {
    for (const [name, sent] of this.#acked) {
      const request = { ledgerId: sent.ledgerId, firstEntryId: sent.entryId, maxEntries: 1, maxBytes: 1 };
      try {
        const [entry] = await bookie.read(request);
        const right = entry?.payload.equals(Buffer.concat([...sent.payload])) === true && entry.lac === sent.lac;
        if (right) {
          report.served++;
          this.#served.add(name);
        } else this.#violation(report, `${name} is another entry`);
      } catch (error) {
        if (hasCode(error, 'CHECKSUM_MISMATCH')) report.damaged++;
        else if (hasCode(error, 'ENTRY_UNKNOWN')) report.unknown++;
        else this.#violation(report, `${name}: ${String(error)}`);
      }
    }
    await this.#checkRanges(bookie, report);
    await this.#checkLacs(bookie, report);
    this.#checkCost(bookie, report);
    if (report.damaged > 0 && bookie.damage.length === 0) this.#violation(report, 'damage that is not listed');
  }

  /** A range ends before what is damaged. */
  async #checkRanges(bookie: LocalBookie, report: DamageReport): Promise<void> {
    for (let ledger = 0; ledger < LEDGERS; ledger++) {
      const request = {
        ledgerId: ledgerId(ledger),
        firstEntryId: entryId(0),
        maxEntries: 1_000,
        maxBytes: 100_000_000,
      };
      const entries = await bookie.read(request).catch(() => []);
      for (const [at, { entryId: id, payload }] of entries.entries()) {
        const sent = this.#acked.get(`${ledger}/${at}`);
        if (id === at && sent !== undefined && payload.equals(Buffer.concat([...sent.payload]))) continue;
        this.#violation(report, `a range of ledger ${ledger} has another entry at ${at}`);
      }
    }
  }

  async #checkLacs(bookie: LocalBookie, report: DamageReport): Promise<void> {
    for (const [ledger, next] of this.#next.entries()) {
      if (next === 0) continue;
      const { lastEntryId, unsure } = await bookie.readLac({ ledgerId: ledgerId(ledger) });
      if (lastEntryId !== next - 1 && unsure !== true)
        this.#violation(report, `ledger ${ledger} ends at ${lastEntryId}`);
    }
    for (const ledger of this.#fenced) {
      const outcome = new Promise<unknown>((resolve) => bookie.append(entryAt(ledger, 900), resolve));
      await turns();
      this.#clock.turn();
      if (!hasCode(await outcome, 'LEDGER_FENCED', 'ENTRY_UNKNOWN')) {
        this.#violation(report, `ledger ${ledger} is no longer fenced`);
      }
    }
  }

  /** A damage of one page costs no more than what was in it, and what that was is known. */
  #checkCost(bookie: LocalBookie, report: DamageReport): void {
    const lost = report.damaged + report.unknown;
    const kind = PAGE_KINDS.find((name) => report.damage.startsWith(name));
    const harmless = /^index|witness/.test(report.damage);
    if (harmless && lost > 0) this.#violation(report, `${lost} entries are not served`);
    if (kind === 'flip' && lost > 1) this.#violation(report, `a flipped bit cost ${lost} entries`);
    if (kind === 'zero' && lost > 10) this.#violation(report, `a page cost ${lost} entries`);
    const unknown = bookie.damage.some(({ ledgers }) => ledgers === 'unknown');
    if (kind !== undefined && unknown) this.#violation(report, 'nobody knows what it cost');
  }
}

/** One life, one damage, two more lives. The seed decides everything. */
export async function damageRound(
  seed: number,
  open: (subject: CrashedBookie) => Promise<LocalBookie> = async (subject) => await subject.open(),
): Promise<DamageReport> {
  return await new DamageRound(seed).run(open);
}
