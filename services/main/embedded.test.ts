import { mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Client } from '../client/client.ts';
import { MagnetarError } from '../lib/errors.ts';
import type { Disk, DiskFile } from '../runtime/disk.ts';
import { nodeDisk } from '../runtime/node/disk.ts';
import { type EmbeddedStandalone, openEmbedded } from './embedded-standalone.ts';
import { startStandalone } from './embedded.ts';

let parent = '';
beforeEach(async () => {
  parent = await mkdtemp(path.join(tmpdir(), 'magnetar-embedded-'));
});
afterEach(async () => {
  await rm(parent, { recursive: true, force: true });
});

async function outcome(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => 'resolved',
    (error: unknown) => (error instanceof MagnetarError ? error.code : error),
  );
}

async function bookies({ data }: EmbeddedStandalone): Promise<string[]> {
  return (await readdir(data)).filter((name) => name.startsWith('bookie')).toSorted();
}

async function everything(client: Client, topic: string): Promise<string[]> {
  const found: string[] = [];
  await using reader = await client.createReader({ topic, startPosition: 'earliest' });
  for await (const { data } of reader.messages({ untilEnd: true })) found.push(data.toString());
  return found;
}

describe('a standalone in this process', () => {
  test('serves its clients, and others, and leaves no temporary folder', async () => {
    const standalone = await startStandalone({ httpPort: 0 });
    const { data, serviceUrl, httpUrl } = standalone;
    expect(serviceUrl).toMatch(/^grpc:\/\/127\.0\.0\.1:\d+$/);
    await using producer = await standalone.client().createProducer({ topic: 't' });
    await producer.send({ data: 'one' });
    await using other = new Client({ serviceUrl });
    expect(await everything(other, 't')).toEqual(['one']);
    expect(await (await fetch(`${httpUrl}/readyz`)).json()).toEqual({ status: 'ready' });
    await standalone.close();
    await standalone.close();
    expect(await nodeDisk.exists(path.dirname(data))).toBe(false);
    expect(() => standalone.client()).toThrow(`the standalone of ${data} is closed`);
    expect(await outcome(producer.send({ data: 'late' }))).toBe('ALREADY_CLOSED');
  });

  test('needs no port, and keeps its data in a folder', async () => {
    const data = path.join(parent, 'a', 'data');
    for (const round of [1, 2]) {
      await using standalone = await startStandalone({ data, port: false });
      expect(standalone.serviceUrl).toMatch(/^unix:\/\/\/.*\.sock$/);
      expect(standalone.httpUrl).toBe(undefined);
      await using producer = await standalone.client().createProducer({ topic: 't' });
      await producer.send({ data: `round ${round}` });
    }
    await using standalone = await startStandalone({ data, port: false });
    expect(await everything(standalone.client(), 't')).toEqual(['round 1', 'round 2']);
  });

  test('closing stores what was sent, and closes clients that are in use', async () => {
    const data = path.join(parent, 'data');
    const standalone = await startStandalone({ data, port: false });
    const client = standalone.client();
    const producer = await client.createProducer({ topic: 't' });
    const consumer = await client.subscribe({ topic: 't', subscription: 's' });
    const waiting = outcome(consumer.receive());
    const sent = Promise.all(Array.from({ length: 100 }, async (_, i) => await producer.send({ data: `${i}` })));
    await consumer.receive();
    await standalone.close();
    expect(await waiting).toBe('resolved');
    await sent;
    expect(await outcome(consumer.receive())).toBe('ALREADY_CLOSED');
    await using again = await startStandalone({ data, port: false });
    expect((await everything(again.client(), 't')).length).toBe(100);
  });

  test('two do not mix', async () => {
    await using one = await startStandalone({ port: false, bookies: 1 });
    await using two = await startStandalone({ port: false, bookies: 3 });
    for (const standalone of [one, two]) {
      await using producer = await standalone.client().createProducer({ topic: 't' });
      await producer.send({ data: standalone.data });
    }
    expect(await everything(one.client(), 't')).toEqual([one.data]);
    expect(await everything(two.client(), 't')).toEqual([two.data]);
    expect(await bookies(one)).toEqual(['bookie-0']);
    expect(await bookies(two)).toEqual(['bookie-0', 'bookie-1', 'bookie-2']);
  });

  test('a second one on the same folder is refused, under whatever name, and does no harm', async () => {
    const data = path.join(parent, 'data');
    await using standalone = await startStandalone({ data, port: false });
    const message = `the metadata folder ${data}/metadata/level is in use by another Magnetar`;
    await expect(startStandalone({ data, port: false })).rejects.toMatchObject({ code: 'FOLDER_IN_USE', message });
    await symlink(data, path.join(parent, 'link'));
    await expect(startStandalone({ data: path.join(parent, 'link') })).rejects.toMatchObject({ code: 'FOLDER_IN_USE' });
    await using producer = await standalone.client().createProducer({ topic: 't' });
    await producer.send({ data: 'still here' });
    expect(await everything(standalone.client(), 't')).toEqual(['still here']);
  });

  test('what does not fit is named as the option that it is', async () => {
    await using standalone = await startStandalone({ httpPort: 0 });
    const port = Number(new URL(standalone.serviceUrl.replace('grpc:', 'http:')).port);
    await expect(startStandalone({ port })).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      message: `port ${port} of 127.0.0.1 is in use; name another one with port`,
      details: { port: String(port), field: 'port' },
    });
    const httpPort = Number(new URL(standalone.httpUrl ?? '').port);
    await expect(startStandalone({ httpPort })).rejects.toMatchObject({
      message: `port ${httpPort} of 127.0.0.1 is in use; name another one with httpPort`,
    });
    await expect(startStandalone({ data: '/dev/null/data' })).rejects.toMatchObject({
      code: 'FOLDER_NOT_WRITABLE',
      message: 'the data folder /dev/null/data cannot be written to (ENOTDIR); name one that can with data',
    });
    const wrong = [
      [{ port: -1 }, 'port is -1; it must be false, or an integer from 0 to 65535'],
      [{ httpPort: 65_536 }, 'httpPort is 65536; it must be false, or an integer from 0 to 65535'],
      [{ bookies: 0 }, 'bookies is 0; it must be an integer from 1 to 16'],
      [{ memoryBytes: 1 }, 'memoryBytes is 1; it must be an integer from 67108864 to 9007199254740991'],
      [{ data: '' }, 'data is ""; it must be a string of 1 to 4096 characters, none of them a control character'],
      [
        { folder: 'x' } as object,
        'the options has no field "folder"; it has data, bookies, port, httpPort, memoryBytes, logger, onFatal',
      ],
    ] as const;
    for (const [options, message] of wrong) {
      await expect(startStandalone(options)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message });
    }
  });
});

/** The real disk, until its syncs begin to fail. */
function failingDisk(): { readonly disk: Disk; readonly fail: () => void } {
  let fails = false;
  const works = (): void => {
    if (fails) throw Object.assign(new Error('EIO: the disk is broken'), { code: 'EIO' });
  };
  const failing = (file: DiskFile): DiskFile => ({
    write: async (buffers, offset) => await file.write(buffers, offset),
    read: async (offset, length) => await file.read(offset, length),
    sync: async () => {
      works();
      await file.sync();
    },
    commit: async (buffers, offset) => {
      works();
      await file.commit(buffers, offset);
    },
    size: async () => await file.size(),
    truncate: async (size) => await file.truncate(size),
    close: async () => await file.close(),
  });
  const disk: Disk = { ...nodeDisk, open: async (name, options) => failing(await nodeDisk.open(name, options)) };
  return {
    disk,
    fail() {
      fails = true;
    },
  };
}

describe('when the disk fails', () => {
  test('the hook is told once, everything fails with the error, and the folder can be used again', async () => {
    const data = path.join(parent, 'data');
    const { disk, fail } = failingDisk();
    const told: MagnetarError[] = [];
    const standalone = await openEmbedded({ data, httpPort: 0, onFatal: (error) => void told.push(error) }, disk);
    const client = standalone.client();
    const producer = await client.createProducer({ topic: 't' });
    const consumer = await client.subscribe({ topic: 't', subscription: 's', startPosition: 'earliest' });
    await producer.send({ data: 'stored' });
    const message = await consumer.receive();
    const waiting = outcome(consumer.receive());
    const unused = standalone.client();
    fail();
    const failed = [producer.send({ data: 'lost' }), consumer.acknowledge(message), waiting].map(outcome);
    expect(await Promise.all(failed)).toEqual(['STORE_FAILED', 'STORE_FAILED', 'resolved']);
    expect(await waiting).toBe('STORE_FAILED');
    expect(told.map(({ code, message: text }) => [code, text])).toEqual([
      ['STORE_FAILED', "the bookie's log failed: EIO: the disk is broken"],
    ]);
    expect(await outcome(producer.send({ data: 'later' }))).toBe('STORE_FAILED');
    expect(await outcome(client.createProducer({ topic: 'u' }))).toBe('STORE_FAILED');
    expect(await outcome(unused.createReader({ topic: 't' }))).toBe('STORE_FAILED');
    expect(await outcome(standalone.client().createReader({ topic: 't' }))).toBe('STORE_FAILED');
    await using other = new Client({ serviceUrl: standalone.serviceUrl });
    expect(await outcome(other.createReader({ topic: 't' }))).toBe('STORE_FAILED');
    expect((await fetch(`${standalone.httpUrl}/readyz`)).status).toBe(503);
    await standalone.close();
    expect(told.length).toBe(1);

    await using again = await startStandalone({ data, port: false });
    expect((await everything(again.client(), 't'))[0]).toBe('stored');
  });

  test('the hook may close it', async () => {
    const data = path.join(parent, 'data');
    const { disk, fail } = failingDisk();
    let closing: Promise<void> | undefined;
    const onFatal = (): void => {
      closing = standalone.close();
    };
    const standalone: EmbeddedStandalone = await openEmbedded({ data, port: false, onFatal }, disk);
    const producer = await standalone.client().createProducer({ topic: 't' });
    fail();
    expect(await outcome(producer.send({ data: 'lost' }))).toBe('STORE_FAILED');
    expect(closing).toBeInstanceOf(Promise);
    await closing;
    await (await startStandalone({ data, port: false })).close();
  });

  test('while it starts, the start is refused; while it closes, closing is', async () => {
    const data = path.join(parent, 'data');
    const told: unknown[] = [];
    const onFatal = (error: MagnetarError): void => void told.push(error);
    const first = failingDisk();
    first.fail();
    await expect(openEmbedded({ data, port: false, onFatal }, first.disk)).rejects.toThrow('EIO: the disk is broken');
    const second = failingDisk();
    const standalone = await openEmbedded({ data, port: false, onFatal }, second.disk);
    const producer = await standalone.client().createProducer({ topic: 't' });
    await producer.send({ data: 'stored' });
    second.fail();
    await expect(standalone.close()).rejects.toThrow('EIO: the disk is broken');
    expect(told).toEqual([]);
    await using again = await startStandalone({ data, port: false });
    expect(await everything(again.client(), 't')).toEqual(['stored']);
  });
});
