import { expect, test } from 'vitest';
import { silentLogger } from '../runtime/logger.ts';
import { type HttpOptions, type HttpServer, startHttp } from './http.ts';

const about = { version: '1.2.3', role: 'test' };

async function start(options: Partial<HttpOptions> = {}): Promise<HttpServer> {
  return await startHttp({ port: 0, about, unready: () => undefined, logger: silentLogger, parts: [], ...options });
}

async function get(http: HttpServer, path: string): Promise<[number, unknown]> {
  const response = await fetch(`http://127.0.0.1:${http.port}${path}`);
  return [response.status, await response.json()];
}

test('serves health, readiness as it changes, and the version', async () => {
  let why: string | undefined = 'nobody knows';
  const http = await start({ unready: () => why });
  try {
    expect(await get(http, '/healthz')).toEqual([200, { status: 'ok' }]);
    expect(await get(http, '/readyz')).toEqual([503, { status: 'not ready: nobody knows' }]);
    why = undefined;
    expect(await get(http, '/readyz?verbose')).toEqual([200, { status: 'ready' }]);
    expect(await get(http, '/version')).toEqual([200, { ...about, node: process.version }]);
    expect(await get(http, '/nothing')).toEqual([
      404,
      { code: 'NOT_FOUND', message: 'there is nothing at GET /nothing' },
    ]);
    const posted = await fetch(`http://127.0.0.1:${http.port}/healthz`, { method: 'POST' });
    expect([posted.status, posted.headers.get('allow'), await posted.json()]).toEqual([
      405,
      'GET, HEAD',
      { code: 'INVALID_ARGUMENT', message: 'POST is not what /healthz takes; it takes GET, HEAD' },
    ]);
  } finally {
    await http.close();
    await http.close();
  }
  await expect(get(http, '/healthz')).rejects.toThrow('fetch failed');
});

test('a part is loaded once, by the first request for it', async () => {
  const loaded: string[] = [];
  const http = await start({
    parts: [
      {
        paths: ['/greeting', '/broken'],
        plugin: async (app) => {
          loaded.push('greeting');
          app.get('/greeting', () => ({ hello: 'world' }));
          app.get('/greeting/:name', (request) => request.params);
          app.get('/broken', () => Promise.reject(new Error('secret')));
        },
      },
      { paths: ['/other'], plugin: async () => await Promise.resolve(void loaded.push('other')) },
    ],
  });
  try {
    await get(http, '/healthz');
    await get(http, '/greetings');
    expect(loaded).toEqual([]);
    const greetings = await Promise.all([get(http, '/greeting?x'), get(http, '/greeting/you')]);
    expect(greetings).toEqual([
      [200, { hello: 'world' }],
      [200, { name: 'you' }],
    ]);
    expect(loaded).toEqual(['greeting']);
    const broken = { code: 'INTERNAL', message: 'the server could not answer; its log says why' };
    expect(await get(http, '/broken')).toEqual([500, broken]);
    expect((await get(http, '/greeting/a/b'))[0]).toBe(404);
    const text = "'/greeting/%ff' is not a valid url component";
    expect(await get(http, '/greeting/%ff')).toEqual([400, { code: 'INVALID_ARGUMENT', message: text, reason: text }]);
  } finally {
    await http.close();
  }
});

test('a part that cannot be loaded leaves the probes and other parts alone', async () => {
  const http = await start({
    parts: [
      { paths: ['/broken'], plugin: () => Promise.reject(new Error('no such file')) },
      { paths: ['/sound'], plugin: async (app) => await Promise.resolve(void app.get('/sound', () => ({}))) },
    ],
  });
  try {
    expect((await get(http, '/broken'))[0]).toBe(500);
    expect((await get(http, '/sound'))[0]).toBe(200);
    expect((await get(http, '/healthz'))[0]).toBe(200);
  } finally {
    await http.close();
  }
});

test('a port in use is named with its flag', async () => {
  const http = await start();
  try {
    await expect(start({ port: http.port })).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      message: `port ${http.port} of 127.0.0.1 is in use; name another one with --http-port`,
    });
  } finally {
    await http.close();
  }
});
