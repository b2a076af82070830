/**
 * Compression of payload areas, in the formats that `proto/magnetar/v1/message.proto` describes. Producers compress and
 * consumers decompress; brokers look at the first bytes alone. The library of a type is loaded when the type is first used.
 *
 * Batches of JSON messages, microseconds to compress / decompress on one core, and ratio:
 *
 *             lz4              zstd            snappy           zlib
 *     100 B     3 / 3   1.0      5 / 4   1.1      1 / 1   1.1     16 / 5   1.1
 *     220 B     2 / 2   1.4      5 / 3   1.7      3 / 1   1.4     12 / 5   1.6
 *       4 KB    5 / 3   3.1     10 / 5   6.0     14 / 13  3.2     26 / 11  5.1
 *      64 KB   47 / 37  3.9     95 / 59  7.4    329 / 165 3.7    201 / 40  6.0
 */
import { deflateSync, inflateSync } from 'node:zlib';
import { MagnetarError } from '../lib/errors.ts';
import { requirePackage } from '../runtime/node/packages.ts';
import { violation } from './common-codec.ts';
import type { ProducerBlock } from './frames.ts';

/** The names of the types, in the order of their numbers in the proto. */
export const COMPRESSION_TYPES = ['none', 'lz4', 'zstd', 'snappy', 'zlib'] as const;

export type CompressionType = (typeof COMPRESSION_TYPES)[number];

/** The largest payload area before compression: what may not be sent uncompressed may not be sent compressed either. */
export const MAX_AREA_BYTES = 15_728_640;

/** A type whose library is loaded. */
export interface Compression {
  /** Of the proto's enum. */
  readonly number: number;
  compress(area: Buffer): Buffer;
  /**
   * Gives the `size` bytes. What is not as it says may give fewer, or a byte more, so the caller checks the length; or an
   * error of whatever kind the library throws.
   */
  decompress(compressed: Buffer, size: number): Buffer;
}

type Library = Omit<Compression, 'number'>;

const LENGTH_BYTES = 4;
/** Level 6 takes three times as long for a tenth less. */
const ZLIB_LEVEL = 1;
const ZLIB_LEAST_CHUNK = 64;

interface Lz4 {
  compressSync(data: Buffer): Buffer;
  uncompressSync(data: Buffer): Buffer;
}

/** The package puts the size, in 4 little-endian bytes, before the block and wants it there. */
function lz4(load: (name: string) => unknown): Library {
  const library = load('lz4-napi') as Lz4;
  return {
    compress: (area) => library.compressSync(area).subarray(LENGTH_BYTES),
    decompress(compressed, size) {
      const prefixed = Buffer.allocUnsafe(LENGTH_BYTES + compressed.length);
      prefixed.writeUInt32LE(size);
      compressed.copy(prefixed, LENGTH_BYTES);
      return library.uncompressSync(prefixed);
    },
  };
}

interface Zstd {
  readonly compress: (data: Buffer) => Buffer;
  readonly _NapiBindings: { decompress(data: Buffer, below: number): Buffer };
}

/** The package's own `decompress` has no limit that a caller could set; the entry beside it avoids top-level await. */
function zstd(load: (name: string) => unknown): Library {
  const { compress, _NapiBindings: bindings } = load('@cloudpss/zstd/napi') as Zstd;
  return {
    compress: (area) => compress(area),
    decompress: (compressed, size) => bindings.decompress(compressed, size + 1),
  };
}

interface Snappy {
  compressSync(data: Buffer): Buffer;
  uncompressSync(data: Buffer): string | Buffer;
}

function snappy(load: (name: string) => unknown): Library {
  const library = load('snappy') as Snappy;
  return {
    compress: (area) => library.compressSync(area),
    decompress(compressed, size) {
      if (!beginsSnappy(compressed, size)) throw new Error('it says another size'); // which it would be given
      return library.uncompressSync(compressed) as Buffer;
    },
  };
}

const zlib: Library = {
  compress: (area) => deflateSync(area, { level: ZLIB_LEVEL }),
  decompress: (compressed, size) => {
    return inflateSync(compressed, { maxOutputLength: size, chunkSize: Math.max(ZLIB_LEAST_CHUNK, size + 1) });
  },
};

interface Format {
  readonly package: string;
  open(load: (name: string) => unknown): Library;
  /** True when the bytes begin as the format does, and state `size` where the format states one. */
  begins(compressed: Buffer, size: number): boolean;
  /** What they are then. */
  readonly text: string;
}

/** By number, from 1. */
const FORMATS: Readonly<Record<number, Format>> = {
  1: { package: 'lz4-napi', open: lz4, begins: beginsLz4, text: 'a raw LZ4 block' },
  2: { package: '@cloudpss/zstd', open: zstd, begins: beginsZstd, text: 'a zstd frame that states its content size' },
  3: { package: 'snappy', open: snappy, begins: beginsSnappy, text: 'a raw Snappy block' },
  4: { package: 'node:zlib', open: () => zlib, begins: beginsZlib, text: 'a zlib stream (RFC 1950)' },
};

/** The first sequence has literals: there is nothing yet that a match could refer to. An LZ4 frame begins otherwise. */
function beginsLz4(compressed: Buffer): boolean {
  return (compressed[0] ?? 0) >>> 4 !== 0;
}

/** RFC 8878, 3.1.1: magic number, descriptor, window (unless it is a single segment), dictionary id, content size. */
function beginsZstd(compressed: Buffer, size: number): boolean {
  if (compressed.length < 6 || compressed.readUInt32LE(0) !== 0xfd2fb528) return false;
  const descriptor = compressed[4] as number;
  const isSingle = (descriptor & 32) !== 0;
  const at = 5 + (isSingle ? 0 : 1) + ([0, 1, 2, 4][descriptor & 3] as number);
  const width = descriptor >>> 6 === 0 ? (isSingle ? 1 : 0) : 1 << (descriptor >>> 6);
  if (width === 0 || compressed.length < at + width) return false;
  if (width === 8) return compressed.readBigUInt64LE(at) === BigInt(size);
  return compressed.readUIntLE(at, width) + (width === 2 ? 256 : 0) === size;
}

/** A varint of the size stands first. */
function beginsSnappy(compressed: Buffer, size: number): boolean {
  let rest = size;
  for (let at = 0; ; at++) {
    const more = rest >= 128;
    if (compressed[at] !== (more ? (rest & 127) | 128 : rest)) return false;
    if (!more) return true;
    rest >>>= 7;
  }
}

/** RFC 1950, 2.2: method 8, and the check of both header bytes. */
function beginsZlib(compressed: Buffer): boolean {
  return compressed.length > 2 && ((compressed[0] ?? 0) & 15) === 8 && compressed.readUInt16BE(0) % 31 === 0;
}

/**
 * What can be seen to be wrong with a compressed payload area without decompressing it; undefined: nothing.
 * MESSAGE_TOO_LARGE, INVALID_ARGUMENT; UNSUPPORTED: an unknown type.
 */
export function compressionFlaw(block: ProducerBlock): MagnetarError | undefined {
  const { compression, uncompressedSize: size, payload } = block;
  if (compression === 0) return undefined;
  const format = FORMATS[compression];
  if (format === undefined) return unknownType(compression);
  if (size > MAX_AREA_BYTES) {
    const text = `batch of ${size} bytes before compression is too large; at most ${MAX_AREA_BYTES} are allowed`;
    const details = { size: String(size), limit: String(MAX_AREA_BYTES) };
    return new MagnetarError('MESSAGE_TOO_LARGE', text, { details });
  }
  const what = `payload area of ${payload.length} bytes, which says that it had ${size} before compression`;
  if (size > 0 && format.begins(payload, size)) return undefined;
  return new MagnetarError('INVALID_ARGUMENT', `${what}, is not ${format.text}`);
}

function unknownType(number: number): MagnetarError {
  const known = COMPRESSION_TYPES.map((name, at) => `${at} (${name})`).join(', ');
  return new MagnetarError('UNSUPPORTED', `block has compression ${number}; this version knows ${known}`);
}

/** The types of which the libraries are loaded. */
export class Compressions {
  readonly #load: (name: string) => unknown;
  readonly #loaded = new Map<number, Compression>();

  constructor(load: (name: string) => unknown) {
    this.#load = load;
  }

  /** Loads a type's library; undefined for 'none'. @throws MagnetarError UNSUPPORTED when it cannot be loaded */
  named(type: CompressionType): Compression | undefined {
    return this.numbered(COMPRESSION_TYPES.indexOf(type));
  }

  /** By the number in the proto's enum; undefined for 0. @throws MagnetarError UNSUPPORTED: as named; unknown */
  numbered(number: number): Compression | undefined {
    if (number === 0) return undefined;
    const loaded = this.#loaded.get(number);
    if (loaded !== undefined) return loaded;
    const format = FORMATS[number];
    if (format === undefined) throw unknownType(number);
    const compression = { number, ...this.#open(number, format) };
    this.#loaded.set(number, compression);
    return compression;
  }

  #open(number: number, format: Format): Library {
    try {
      return format.open(this.#load);
    } catch (error) {
      const why = (error instanceof Error ? error.message : String(error)).split('\n', 1)[0];
      const text = `compression ${COMPRESSION_TYPES[number]} cannot be used here: package ${format.package} does not load (${why})`;
      throw new MagnetarError('UNSUPPORTED', text, { cause: error });
    }
  }
}

/** Those of this process. */
export const compressions: Compressions = new Compressions(requirePackage);

/**
 * The payload area of a block, decompressed where it is compressed: never more bytes than the block says, nor than
 * MAX_AREA_BYTES.
 *
 * @throws MagnetarError PROTOCOL_VIOLATION: it cannot be decompressed; UNSUPPORTED: this process cannot
 */
export function payloadArea(block: ProducerBlock): Buffer {
  const { compression: number, uncompressedSize: size, payload } = block;
  const compression = compressions.numbered(number);
  if (compression === undefined) return payload;
  const flaw = compressionFlaw(block);
  if (flaw !== undefined) throw violation(flaw.message);
  const what = `payload area of ${payload.length} bytes in ${COMPRESSION_TYPES[number]}, ${size} before compression,`;
  let area: Buffer;
  try {
    area = compression.decompress(payload, size);
  } catch (error) {
    throw violation(`${what} cannot be decompressed: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (area.length !== size) throw violation(`${what} has ${area.length} decompressed`);
  return area;
}
