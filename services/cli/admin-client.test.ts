import { describe, expect, test } from 'vitest';
import { MagnetarError } from '../lib/errors.ts';
import { AdminClient } from './admin-client.ts';
import { tableText } from './admin-output.ts';
import type { HttpRequest, HttpResponse } from './http.ts';
import type { Shell } from './shell.ts';

/** A client whose requests are answered so. */
function clientOf(answer: (request: HttpRequest) => Promise<HttpResponse>): AdminClient {
  return new AdminClient({ http: answer } as Partial<Shell> as Shell, 'http://127.0.0.1:8080/');
}

function response(status: number, body: string): () => Promise<HttpResponse> {
  return async () => await Promise.resolve({ status, headers: {}, body: Buffer.from(body) });
}

function shell(stdoutIsTerminal: boolean): Shell {
  return { stdoutIsTerminal } as Partial<Shell> as Shell;
}

async function message(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => 'it did not reject',
    (reason: unknown) => reason,
  );
  return error instanceof MagnetarError ? `${error.code}: ${error.message}` : String(error);
}

/** How a refusal with this status is told. */
async function refusal(status: number): Promise<string> {
  return await message(clientOf(response(status, '{"reason":"what is wrong"}')).get('x'));
}

/** What is said in brackets of a server that cannot be reached. */
async function why(error: Error): Promise<string> {
  const told = await message(clientOf(() => Promise.reject(error)).get('x'));
  return told.replace(/.*\((.*)\).*/s, '$1');
}

describe('the client of the REST API', () => {
  test('sends JSON to the path, and gives what is answered', async () => {
    const requests: HttpRequest[] = [];
    const client = clientOf(async (request) => {
      requests.push(request);
      return await response(200, '["a"]')();
    });
    expect(await client.get('tenants')).toEqual(['a']);
    await client.change('PUT', 'tenants/a', { adminRoles: [] });
    expect(requests.map(({ method, url, body }) => ({ method, url, body }))).toEqual([
      { method: 'GET', url: 'http://127.0.0.1:8080/admin/v2/tenants', body: undefined },
      { method: 'PUT', url: 'http://127.0.0.1:8080/admin/v2/tenants/a', body: '{"adminRoles":[]}' },
    ]);
  });

  test('tells a refusal by its reason, and whether it is about what does not exist', async () => {
    expect(await refusal(404)).toBe('TOPIC_NOT_FOUND: what is wrong');
    expect(await refusal(412)).toBe('INVALID_ARGUMENT: what is wrong');
    expect(await refusal(503)).toBe('UNAVAILABLE: what is wrong');
  });

  test.each([
    [200, '<html>'],
    [404, '<html>'],
    [500, '{"code":"INTERNAL","message":"m"}'],
    [302, ''],
  ])('something else at the port is told from a broker (%d %s)', async (status, body) => {
    expect(await message(clientOf(response(status, body)).get('x'))).toBe(
      `UNAVAILABLE: http://127.0.0.1:8080 answers with status ${status}, and not as the HTTP side of a Magnetar broker does; name a broker's HTTP side with --admin-url`,
    );
  });

  test('a server that cannot be reached is one line, also when several addresses were tried', async () => {
    const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
    const late = Object.assign(new Error('there was no answer\nwithin 5 ms'), { code: 'ETIMEDOUT' });
    expect(await why(refused)).toBe('ECONNREFUSED');
    expect(await why(new AggregateError([refused, refused]))).toBe('ECONNREFUSED');
    expect(await why(late)).toBe('there was no answer within 5 ms');
  });
});

test('a table has borders on a terminal, and tabs elsewhere', () => {
  const rows = [
    ['a', 1],
    ['b\tc\nd', 20],
  ] as const;
  expect(tableText(shell(false), ['NAME', 'N'], rows)).toBe('NAME\tN\na\t1\nb c d\t20\n');
  const drawn = tableText(shell(true), ['NAME', 'N'], rows.slice(0, 1)).split('\n');
  expect(drawn[0]).toMatch(/^┌─+┬─+┐$/);
  expect(drawn[1]).toMatch(/^│ NAME │ N │$/);
});
