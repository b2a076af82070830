import { expect, test } from 'vitest';
import { startHttp } from './http.ts';

const about = { version: '1.2.3', role: 'test' };

test('serves health, readiness as it changes, and the version', async () => {
  let ready = false;
  const http = await startHttp({ port: 0, about, isReady: () => ready });
  const get = async (path: string): Promise<[number, unknown]> => {
    const response = await fetch(`http://127.0.0.1:${http.port}${path}`);
    return [response.status, await response.json()];
  };
  try {
    expect(await get('/healthz')).toEqual([200, { status: 'ok' }]);
    expect(await get('/readyz')).toEqual([503, { status: 'not ready' }]);
    ready = true;
    expect(await get('/readyz')).toEqual([200, { status: 'ready' }]);
    expect(await get('/version')).toEqual([200, { ...about, node: process.version }]);
    expect(await get('/nothing')).toEqual([404, { code: 'NOT_FOUND', message: 'there is nothing at GET /nothing' }]);
  } finally {
    await http.close();
    await http.close();
  }
  await expect(get('/healthz')).rejects.toThrow('fetch failed');
});

test('a port in use is named with its flag', async () => {
  const http = await startHttp({ port: 0, about, isReady: () => true });
  try {
    await expect(startHttp({ port: http.port, about, isReady: () => true })).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      message: `port ${http.port} of 127.0.0.1 is in use; name another one with --http-port`,
    });
  } finally {
    await http.close();
  }
});
