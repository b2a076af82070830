import { describe, expect, test } from 'vitest';
import type { ReadEntries, StoredEntry } from '../ledger/bookie.ts';
import { hasCode, MagnetarError } from '../lib/errors.ts';
import type { LocalBookie } from './measured-bookie.ts';
import { RECORD_HEADER_BYTES } from './segments/format.ts';
import type { CrashedBookie } from './testing/crashed-bookie.ts';
import { damageRound } from './testing/damage-rounds.ts';

const ROUNDS = 120;

test('whatever is damaged: never a wrong byte, never "no such entry", and it costs what is in it', async () => {
  const kinds = new Set<string>();
  const totals = { acked: 0, served: 0, damaged: 0, unknown: 0 };
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const report = await damageRound(seed);
    expect([seed, report.violations]).toEqual([seed, []]);
    kinds.add(report.damage.split(' ', 1)[0] ?? '');
    for (const name of ['acked', 'served', 'damaged', 'unknown'] as const) totals[name] += report[name];
  }
  expect([...kinds].toSorted()).toEqual(['delete', 'flip', 'index', 'old', 'swap', 'truncate', 'zero']);
  const { acked, served, damaged, unknown } = totals;
  expect(acked).toBeGreaterThan(10_000);
  expect(served).toBeGreaterThan(acked * 0.7);
  expect(Math.min(damaged, unknown)).toBeGreaterThan(20);
}, 60_000);

/** The violations of rounds with a bookie that is opened in another way. */
async function violations(open: (subject: CrashedBookie) => Promise<LocalBookie>, rounds: number): Promise<string> {
  const found: string[] = [];
  for (let seed = 1; seed <= rounds; seed++) found.push(...(await damageRound(seed, open)).violations);
  return found.join('\n');
}

/** A bookie whose reads are answered by `read`. */
function withRead(bookie: LocalBookie, read: (request: ReadEntries) => Promise<readonly StoredEntry[]>): LocalBookie {
  return {
    id: bookie.id,
    instance: bookie.instance,
    available: true,
    get damage() {
      return bookie.damage;
    },
    append: bookie.append.bind(bookie),
    read,
    readLac: bookie.readLac.bind(bookie),
    close: bookie.close.bind(bookie),
  };
}

async function servingUnchecked(subject: CrashedBookie): Promise<LocalBookie> {
  const bookie = await subject.open();
  return withRead(bookie, async (request) => {
    try {
      return await bookie.read(request);
    } catch (error) {
      const { file = '', offset = '' } = hasCode(error, 'CHECKSUM_MISMATCH') ? error.details : {};
      if (!(await subject.disk.exists(file))) throw error;
      const bytes = await subject.disk.readFile(file);
      const payload = bytes.subarray(Number(offset) + RECORD_HEADER_BYTES);
      return [{ entryId: request.firstEntryId, lac: request.firstEntryId, length: 0, digest: 0, payload }];
    }
  });
}

async function takingDamageForAbsence(subject: CrashedBookie): Promise<LocalBookie> {
  const bookie = await subject.open();
  return withRead(bookie, async (request) => {
    try {
      return await bookie.read(request);
    } catch (error) {
      throw new MagnetarError('NO_SUCH_ENTRY', 'there is none', { cause: error });
    }
  });
}

async function withoutMemory(subject: CrashedBookie): Promise<LocalBookie> {
  subject.index.values.clear();
  await subject.replace('/bookie/witness', undefined);
  return await subject.open();
}

describe('sabotage is noticed:', () => {
  test.each([
    ['that serves what is there, without checking it', servingUnchecked, 12, /is another entry/],
    ['that takes damage for absence', takingDamageForAbsence, 12, /there is none/],
    ['that knows neither by index nor by witness what there was', withoutMemory, 60, /has no entry/],
  ] as const)('a bookie %s', async (_, open, rounds, noticed) => {
    expect(await violations(open, rounds)).toMatch(noticed);
  });
});
