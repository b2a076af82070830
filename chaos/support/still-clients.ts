/**
 * Clients that stand still, each on a connection of its own, in a process that is killed in the end. It says "still" when
 * nothing more goes out.
 *
 *   node still-clients.js half-frames PORT CLIENTS FRAME_BYTES SENT_BYTES      begin a frame and do not end it
 *   node still-clients.js deaf PORT CLIENTS TOPIC READERS                      ask for everything and read nothing
 */
import { type ClientHttp2Stream, connect } from 'node:http2';
import { consumeRequest } from '../../services/wire/consume-codec.ts';
import { publishRequest } from '../../services/wire/publish-codec.ts';
import { HELLO } from './raw-stream.ts';

const QUIET_MS = 500;
const PREFIX_BYTES = 5;
const PIECE: Buffer = Buffer.alloc(65_536);

const [kind = '', port = '', clients = '0', first = '', second = '0'] = process.argv.slice(2);
let writtenAt = performance.now();

function prefixOf(length: number): Buffer {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(length, 1);
  return prefix;
}

function open(method: 'Publish' | 'Consume'): ClientHttp2Stream {
  const session = connect(`http://127.0.0.1:${port}`);
  session.on('error', () => {}); // being let go of is the point
  const path = `/magnetar.v1.Broker/${method}`;
  const headers = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
  const stream = session.request(headers);
  stream.on('error', () => {});
  return stream;
}

function write(stream: ClientHttp2Stream, bytes: Buffer): void {
  stream.write(bytes, () => {
    writtenAt = performance.now();
  });
}

function beginFrame(frameBytes: number, sentBytes: number): void {
  const stream = open('Publish');
  stream.resume();
  const hello = publishRequest.encode({ hello: HELLO });
  write(stream, Buffer.concat([prefixOf(hello.length), hello, prefixOf(frameBytes)]));
  for (let left = sentBytes; left > 0; left -= PIECE.length) write(stream, PIECE.subarray(0, left));
}

function askForEverything(topic: string, readers: number): void {
  const numbers = Array.from({ length: readers }, (_, at) => at + 1);
  const nobody = { subscription: '', name: '', instance: Buffer.alloc(0), topicIdentity: '' };
  const common = { topic, type: 'exclusive', ...nobody } as const;
  const start = { at: 'earliest' } as const;
  const frame = consumeRequest.encode({
    hello: HELLO,
    subscribes: numbers.map((consumer) => ({ consumer, ...common, start })),
    flows: numbers.map((consumer) => ({ consumer, messages: 4_294_967_295, bytes: Number.MAX_SAFE_INTEGER })),
  });
  write(open('Consume'), Buffer.concat([prefixOf(frame.length), frame]));
}

for (let client = 0; client < Number(clients); client++) {
  if (kind === 'deaf') askForEverything(first, Number(second));
  else beginFrame(Number(first), Number(second));
}
const timer = setInterval(() => {
  if (performance.now() - writtenAt < QUIET_MS) return;
  clearInterval(timer);
  process.stdout.write('still\n');
  setInterval(() => {}, 60_000);
}, 50);
