import { administrationContract } from './administration.contract.ts';
import { FakeAdministration } from './testing/fake-administration.ts';

administrationContract('in memory, for tests of the routes', async () => {
  return await Promise.resolve({
    administration: new FakeAdministration(),
    close: async () => await Promise.resolve(),
  });
});
