import { describe, expect, test } from 'vitest';
import { openMemoryStore } from '../metadata/memory.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { seededRandom } from '../runtime/testing/seeded-random.ts';
import { BookieIdentities } from './bookie-identity.ts';

const [ONE, TWO] = [Buffer.alloc(16, 1), Buffer.alloc(16, 2)];

function identities(): BookieIdentities {
  return new BookieIdentities(openMemoryStore({ clock: new ManualClock(), random: seededRandom(1) }));
}

describe('which folder a bookie has (LP-27)', () => {
  test('the first one that is seen under a name stays the only one', async () => {
    const known = identities();
    await known.check('a:1', ONE);
    await known.check('a:1', ONE);
    await known.check('a:2', TWO);
    await expect(known.check('a:1', Buffer.alloc(16, 3))).rejects.toMatchObject({
      code: 'DATA_LOSS',
      message: expect.stringMatching(/bookie a:1 is not the one .* emptied or replaced/) as string,
    });
    await expect(known.check('a:1', undefined)).rejects.toMatchObject({ code: 'DATA_LOSS' });
    await known.check('a:1', ONE);
    expect(await known.names()).toEqual(['a:1', 'a:2']);
  });

  test('one bookie does not count twice, also when both names are seen at the same time', async () => {
    const known = identities();
    const outcomes = await Promise.allSettled([known.check('localhost:1', ONE), known.check('127.0.0.1:1', ONE)]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    await expect(known.check('127.0.0.1:1', ONE)).rejects.toThrow(/knows as localhost:1/);
  });

  test('one that does not say which it is cannot be told from an emptied one', async () => {
    await expect(identities().check('a:1', undefined)).rejects.toMatchObject({ code: 'DATA_LOSS' });
  });
});
