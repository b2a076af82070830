import { Metadata, status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { type ErrorCode, errorTable, MagnetarError } from '../lib/errors.ts';
import { text } from './codec.contract.ts';
import { publishResponse } from './publish-codec.ts';
import { fromStatus, fromWireError, toStatus, toWireError } from './status.ts';

const codes = Object.keys(errorTable) as ErrorCode[];
const details = fc.dictionary(text, text, { maxKeys: 3 });

function look(error: MagnetarError): unknown {
  return [error.code, error.message, { ...error.details }, error.retryable, error.fencing];
}

test.each(codes)('%s comes back from an item of a stream and from a status', (code) => {
  fc.assert(
    fc.property(text, details, (message, facts) => {
      const error = new MagnetarError(code, message, { details: facts });
      const frame = publishResponse.encode({ closed: [{ producer: 1, error: toWireError(error) }] });
      const received = publishResponse.decode(frame).closed?.[0]?.error;
      expect(received && look(fromWireError(received))).toEqual(look(error));
      const sent = toStatus(error);
      expect(sent.code).toBe(errorTable[code].grpcStatus);
      expect(look(fromStatus(sent))).toEqual(look(error));
    }),
    { numRuns: 20 },
  );
});

test('a code of a newer version becomes INTERNAL and is kept in the details', () => {
  const error = fromWireError({ code: 'QUOTA_EXCEEDED', message: 'm', retryable: true, details: { limit: '5' } });
  expect(look(error)).toEqual(['INTERNAL', 'm', { limit: '5', code: 'QUOTA_EXCEEDED' }, false, false]);
  expect(fromWireError({ code: 'constructor', message: 'm', retryable: true, details: {} }).code).toBe('INTERNAL');
});

test('an error of another kind is INTERNAL, in one line', () => {
  expect(toStatus(new TypeError('x is undefined\n  at y'))).toMatchObject({ code: 13, details: 'x is undefined' });
});

describe('statuses that gRPC itself makes', () => {
  test.each([
    [status.UNAVAILABLE, 'UNAVAILABLE'],
    [status.CANCELLED, 'CANCELLED'],
    [status.DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED'],
    [status.RESOURCE_EXHAUSTED, 'MESSAGE_TOO_LARGE'],
    [status.UNIMPLEMENTED, 'UNSUPPORTED'],
    [status.INVALID_ARGUMENT, 'INVALID_ARGUMENT'],
    [status.INTERNAL, 'INTERNAL'],
    [status.UNKNOWN, 'INTERNAL'],
  ])('%i is %s', (code, expected) => {
    const error = fromStatus({ code, details: 'why', metadata: new Metadata() });
    expect([error.code, error.message]).toEqual([expected, 'why']);
    expect(error.cause).toMatchObject({ code });
  });

  test.each([
    [
      'No connection established. Last error: connect ECONNREFUSED 127.0.0.1:7650. Resolution note: ',
      'cannot connect to 127.0.0.1:7650: connection refused',
    ],
    [
      'No connection established. Last error: Error: connect ECONNREFUSED ::1:7650 (2026-01-01T00:00:00.000Z)',
      'cannot connect to ::1:7650: connection refused',
    ],
    [
      'Name resolution failed for target dns:nowhere.invalid:7650. Resolution note: Error: getaddrinfo ENOTFOUND',
      'cannot connect to nowhere.invalid:7650: no such host',
    ],
    ['No connection established. Last error: connect EACCES /run/x.sock', 'cannot connect to /run/x.sock: EACCES'],
    [
      'No connection established. Last error: Protocol error (2026-01-01T00:00:00.000Z). Resolution note: ',
      'what answers there does not speak gRPC',
    ],
    ['Something else\nat line 2', 'Something else'],
  ])('%s', (raw, clean) => {
    expect(fromStatus({ code: status.UNAVAILABLE, details: raw }).message).toBe(clean);
  });

  test.each([
    [status.INTERNAL, 'Received RST_STREAM with code 0 (Call ended without gRPC status)'],
    [status.CANCELLED, 'Call cancelled'],
    [status.UNAVAILABLE, 'Connection dropped'],
    [status.UNAVAILABLE, 'read ECONNRESET'],
    [status.RESOURCE_EXHAUSTED, 'Bandwidth exhausted or memory limit exceeded'],
  ])('%i "%s" is a lost connection', (code, raw) => {
    expect(look(fromStatus({ code, details: raw }))).toEqual([
      'UNAVAILABLE',
      'the connection was lost',
      {},
      true,
      false,
    ]);
  });

  test('details that are not ours, or not readable, do not count', () => {
    const foreign = toStatus(new MagnetarError('TOPIC_NOT_FOUND', 'm'));
    const [bytes] = foreign.metadata.get('grpc-status-details-bin') as [Buffer];
    const other = new Metadata();
    other.set(
      'grpc-status-details-bin',
      Buffer.from(bytes.toString('latin1').replace('magnetar', 'elsewher'), 'latin1'),
    );
    expect(fromStatus({ code: status.NOT_FOUND, details: 'm', metadata: other }).code).toBe('INTERNAL');
    other.set('grpc-status-details-bin', bytes.subarray(0, 20));
    expect(fromStatus({ code: status.UNAVAILABLE, details: 'm', metadata: other }).code).toBe('UNAVAILABLE');
  });
});
