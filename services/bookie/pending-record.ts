import type { AppendEntry } from '../ledger/bookie.ts';
import type { MagnetarError } from '../lib/errors.ts';
import { type EntryId, type LedgerId, NO_ENTRY } from '../lib/ids.ts';
import type { LedgerState } from './ledger-table.ts';
import type { LogRecord } from './segments/log.ts';

/** A record on its way to the log. */
export class PendingRecord implements LogRecord {
  readonly type: 'entry' | 'fence';
  readonly recovery: boolean;
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly lac: EntryId;
  readonly length: number;
  readonly digest: number;
  readonly masterKey: Buffer;
  readonly payloadBytes: number;
  readonly payload: readonly Buffer[];
  readonly state: LedgerState;
  readonly #done: (error?: MagnetarError) => void;

  constructor(state: LedgerState, entry: AppendEntry | FenceRecord, done: (error?: MagnetarError) => void) {
    this.type = entry.entryId === NO_ENTRY ? 'fence' : 'entry';
    this.recovery = entry.recovery;
    this.ledgerId = state.id;
    this.entryId = entry.entryId;
    this.lac = entry.lac;
    this.length = entry.length;
    this.digest = entry.digest;
    this.masterKey = entry.masterKey;
    this.payloadBytes = entry.payloadBytes;
    this.payload = entry.payload;
    this.state = state;
    this.#done = done;
  }

  get privileged(): boolean {
    return this.recovery || this.type === 'fence';
  }

  settle(error: MagnetarError | undefined): void {
    this.#done(error);
  }
}

type FenceRecord = Omit<AppendEntry, 'ledgerId'>;

/** The record of a fence. */
export function fenceRecord(masterKey: Buffer): FenceRecord {
  return {
    entryId: NO_ENTRY,
    lac: NO_ENTRY,
    length: 0,
    digest: 0,
    masterKey,
    recovery: false,
    payload: [],
    payloadBytes: 0,
  };
}
