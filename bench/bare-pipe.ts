/**
 * The bare pipe: what one Node client and one Node server can move over gRPC when the server does nothing but
 * group-committed `writev` + `fdatasync`, and serves from memory. No checksums, no index, no recovery, no subscriptions.
 * Magnetar is measured against it in the same run.
 *
 *   node dist/bench/bare-pipe.js [--size 128] [--copies 1] [--seconds 10] [--dir .]     prints one JSON line
 */
import { fork } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Client, credentials, type MethodDefinition, Server, type ServerDuplexStream } from '@grpc/grpc-js';
import { bindWithWideWindows } from '../services/wire/server.ts';
import { type Rate, rateOf } from './rate.ts';

const WINDOW_BYTES = 8 << 20;
const BATCH_BYTES = 128 << 10;
const BATCHES_KEPT = 3_000;
const FILE_BYTES = 1 << 30;
const CHANNEL_OPTIONS = {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc-node.flow_control_window': WINDOW_BYTES,
};

/** What a run moved. */
export interface BarePipeResult {
  readonly size: number;
  readonly copies: number;
  readonly publish: Rate;
  readonly consume: Rate;
}

interface Options {
  readonly size: number;
  readonly copies: number;
  readonly seconds: number;
  readonly dir: string;
}

const same = (bytes: Buffer): Buffer => bytes;

function method(name: string): MethodDefinition<Buffer, Buffer> {
  return {
    path: `/pipe/${name}`,
    requestStream: true,
    responseStream: true,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}

const PUBLISH = method('Publish');
const CONSUME = method('Consume');

/** Writes whatever has come since the last sync, syncs, answers with the batch numbers; then again. */
class Committer {
  readonly #files: readonly number[];
  readonly #call: ServerDuplexStream<Buffer, Buffer>;
  #queue: Buffer[] = [];
  #busy = false;
  #at = 0;

  constructor(files: readonly number[], call: ServerDuplexStream<Buffer, Buffer>) {
    this.#files = files;
    this.#call = call;
  }

  add(batch: Buffer): void {
    this.#queue.push(batch);
    if (!this.#busy) this.#commit();
  }

  #commit(): void {
    if (this.#queue.length === 0) return;
    this.#busy = true;
    const group = this.#queue;
    this.#queue = [];
    let waiting = this.#files.length;
    const synced = (error: Error | null): void => {
      if (error !== null) throw error;
      if (--waiting > 0) return;
      this.#busy = false;
      const receipt = Buffer.allocUnsafe(4 * group.length);
      group.forEach((batch, i) => receipt.writeUInt32LE(batch.readUInt32LE(0), 4 * i));
      this.#call.write(receipt);
      this.#commit();
    };
    for (const file of this.#files) {
      fs.writev(file, group, this.#at, (error) => (error === null ? fs.fdatasync(file, synced) : synced(error)));
    }
    for (const batch of group) this.#at += batch.length;
    if (this.#at >= FILE_BYTES) this.#at = 0;
  }
}

function consume(call: ServerDuplexStream<Buffer, Buffer>, kept: readonly Buffer[]): void {
  let credit = 0;
  let next = 0;
  let blocked = false;
  const pump = (): void => {
    while (credit > 0 && !blocked && kept.length > 0) {
      credit -= 1;
      if (call.write(kept[next++ % kept.length] as Buffer)) continue;
      blocked = true;
      call.once('drain', () => {
        blocked = false;
        pump();
      });
    }
  };
  call.on('data', (bytes: Buffer) => {
    credit += bytes.readUInt32LE(0);
    pump();
  });
  call.on('end', () => call.end());
  call.on('error', () => {});
}

async function serve({ copies, dir }: Options): Promise<void> {
  const files = Array.from({ length: copies }, (_, i) => fs.openSync(path.join(dir, `bare-pipe-${i}`), 'w'));
  const kept: Buffer[] = [];
  const server = new Server(CHANNEL_OPTIONS);
  server.addService(
    { Publish: PUBLISH, Consume: CONSUME },
    {
      Publish(call: ServerDuplexStream<Buffer, Buffer>) {
        const committer = new Committer(files, call);
        call.on('data', (batch: Buffer) => {
          if (kept.length < BATCHES_KEPT) kept.push(batch);
          committer.add(batch);
        });
        call.on('end', () => call.end());
      },
      Consume: (call: ServerDuplexStream<Buffer, Buffer>) => consume(call, kept),
    },
  );
  process.send?.(await bindWithWideWindows(server, '127.0.0.1:0'));
}

function putVarint(buffer: Buffer, start: number, value: number): number {
  let at = start;
  let rest = value;
  for (; rest > 127; rest >>>= 7) buffer[at++] = (rest & 127) | 128;
  buffer[at++] = rest;
  return at;
}

/** Encodes messages as a small protobuf message each, a promise each, into batches; resolves them by receipts. */
class Publisher {
  readonly #write: (batch: Buffer) => void;
  readonly #capacity: number;
  #buffer: Buffer;
  #at = 8;
  #batch = 0;
  #sequence = 0;
  #resolvers: ((batch: number) => void)[] = [];
  #scheduled = false;
  readonly #inFlight = new Map<number, ((batch: number) => void)[]>();
  pending = 0;
  acknowledged = 0;

  constructor(size: number, write: (batch: Buffer) => void) {
    this.#write = write;
    this.#capacity = BATCH_BYTES + size + 64;
    this.#buffer = Buffer.allocUnsafe(this.#capacity);
  }

  send(payload: Buffer): Promise<number> {
    const buffer = this.#buffer;
    let at = this.#at;
    buffer[at++] = 10;
    at = putVarint(buffer, at, payload.length + 16);
    buffer[at++] = 8;
    at = putVarint(buffer, at, this.#sequence++);
    buffer[at++] = 26;
    at = putVarint(buffer, at, payload.length);
    this.#at = at + payload.copy(buffer, at);
    this.pending += 1;
    const done = new Promise<number>((resolve) => this.#resolvers.push(resolve));
    if (this.#at >= BATCH_BYTES) this.flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        this.flush();
      });
    }
    return done;
  }

  flush(): void {
    if (this.#at === 8) return;
    const frame = this.#buffer.subarray(0, this.#at);
    frame.writeUInt32LE(this.#batch, 0);
    this.#inFlight.set(this.#batch++, this.#resolvers);
    this.#resolvers = [];
    this.#buffer = Buffer.allocUnsafe(this.#capacity);
    this.#at = 8;
    this.#write(frame);
  }

  receipt(bytes: Buffer): void {
    for (let i = 0; i < bytes.length; i += 4) {
      const batch = bytes.readUInt32LE(i);
      const resolvers = this.#inFlight.get(batch) ?? [];
      this.#inFlight.delete(batch);
      this.pending -= resolvers.length;
      this.acknowledged += resolvers.length;
      for (const resolve of resolvers) resolve(batch);
    }
  }
}

async function publishAll(client: Client, { size, seconds }: Options): Promise<Rate> {
  const call = client.makeBidiStreamRequest(PUBLISH.path, PUBLISH.requestSerialize, PUBLISH.responseDeserialize);
  const publisher = new Publisher(size, (batch) => call.write(batch));
  const payload = Buffer.alloc(size, 'A');
  const maxPending = Math.floor(WINDOW_BYTES / (size + 16));
  const burst = Math.min(500, Math.ceil(maxPending / 4));
  const latencies: number[] = [];
  let wake: (() => void) | undefined;
  call.on('data', (bytes: Buffer) => {
    publisher.receipt(bytes);
    if (publisher.pending < maxPending) wake?.();
  });
  const start = performance.now();
  for (let sent = 0; performance.now() - start < seconds * 1000; sent += burst) {
    const at = performance.now();
    void publisher.send(payload).then(() => latencies.push(performance.now() - at));
    for (let i = 1; i < burst; i++) void publisher.send(payload);
    if (publisher.pending >= maxPending) await new Promise<void>((resolve) => (wake = resolve));
    else if (sent % 5000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  publisher.flush();
  while (publisher.pending > 0) await new Promise((resolve) => setTimeout(resolve, 2));
  const took = performance.now() - start;
  call.end();
  return rateOf({ messages: publisher.acknowledged, size, tookMs: took, latencies });
}

interface PipeMessage {
  readonly sequence: number;
  readonly data: Buffer;
}

function decode(bytes: Buffer): PipeMessage[] {
  const messages: PipeMessage[] = [];
  let at = 8;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++] as number;
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    at += 1;
    varint();
    at += 1;
    const sequence = varint();
    at += 1;
    const length = varint();
    messages.push({ sequence, data: bytes.subarray(at, at + length) });
    at += length;
  }
  return messages;
}

async function consumeAll(client: Client, { size, seconds }: Options): Promise<Rate> {
  const call = client.makeBidiStreamRequest(CONSUME.path, CONSUME.requestSerialize, CONSUME.responseDeserialize);
  const queue: PipeMessage[][] = [];
  let wake: (() => void) | undefined;
  call.on('error', () => {});
  call.on('data', (bytes: Buffer) => {
    queue.push(decode(bytes));
    wake?.();
  });
  const credit = (batches: number): void => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(batches);
    call.write(bytes);
  };
  async function* messages(): AsyncGenerator<PipeMessage> {
    for (;;) {
      while (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      const batch = queue.shift() ?? [];
      credit(1);
      yield* batch;
    }
  }
  credit(64);
  const start = performance.now();
  let received = 0;
  for await (const message of messages()) {
    if (message.data.length === size) received += 1;
    if ((received & 4095) === 0 && performance.now() - start > seconds * 1000) break;
  }
  const took = performance.now() - start;
  call.cancel();
  return rateOf({ messages: received, size, tookMs: took, latencies: [] });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '128' },
      copies: { type: 'string', default: '1' },
      seconds: { type: 'string', default: '10' },
      dir: { type: 'string', default: '.' },
    },
  });
  const options = {
    size: Number(values.size),
    copies: Number(values.copies),
    seconds: Number(values.seconds),
    dir: values.dir,
  };
  if (process.send !== undefined) return serve(options);
  const child = fork(fileURLToPath(import.meta.url), process.argv.slice(2));
  const port = await new Promise<number>((resolve) => child.once('message', (bound) => resolve(bound as number)));
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), CHANNEL_OPTIONS);
  const publish = await publishAll(client, options);
  const consumed = await consumeAll(client, options);
  child.kill();
  client.close();
  const result: BarePipeResult = { size: options.size, copies: options.copies, publish, consume: consumed };
  console.log(JSON.stringify(result));
  process.exit();
}

await main();
