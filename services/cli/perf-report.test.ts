import { PassThrough, Readable, Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { MagnetarError } from '../lib/errors.ts';
import { newHistogram } from '../runtime/node/histogram.ts';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { PerfReport } from './perf-report.ts';
import type { Shell } from './shell.ts';

const FACTS = { what: 'moved', latency: 'from here to there', topic: 't' };

class World {
  readonly clock = new ManualClock();
  readonly stdout = new PassThrough();
  readonly stderr = new PassThrough();
  csvText = '';
  readonly csv = new Writable({
    write: (chunk, _encoding, done) => {
      this.csvText += String(chunk);
      done();
    },
  });

  shell(options: Partial<Shell> = {}): Shell {
    return {
      stdin: Readable.from([]),
      stdout: this.stdout,
      stderr: this.stderr,
      stdoutIsTerminal: false,
      stderrIsTerminal: true,
      stdinIsTerminal: false,
      clock: this.clock,
      environment: {},
      interrupted: new AbortController().signal,
      parseTime: () => undefined,
      dateOf: (time) => new Date(time),
      openFile: async () => Promise.resolve(Readable.from([])),
      createFile: async () => Promise.resolve(this.csv),
      http: () => Promise.reject(new Error('there is no server')),
      newHistogram,
      ...options,
    };
  }

  /** What was written to a stream. */
  written(stream: PassThrough): string {
    return String(stream.read() ?? '');
  }
}

/** Two seconds and a half: 1,000 messages in the first, none in the second, 500 and an error in the third. */
async function measure(world: World, report: PerfReport): Promise<Awaited<ReturnType<PerfReport['end']>>> {
  report.begin();
  world.clock.advance(400);
  report.count(1_000, 128_000);
  for (let ms = 1; ms <= 100; ms++) report.latency(ms);
  world.clock.advance(1_600);
  report.count(500, 64_000);
  report.countErrors(2, new MagnetarError('UNAVAILABLE', 'gone'));
  report.countErrors(1, new MagnetarError('UNAVAILABLE', 'gone again'));
  world.clock.advance(500);
  return await report.end();
}

test('says what moved once a second, to people and to a file, and the sum at the end', async () => {
  const world = new World();
  const report = await PerfReport.open(world.shell(), 'x.csv');
  const figures = await measure(world, report);
  expect(world.written(world.stderr)).toBe(
    '1 s: 1,000 messages/s, 0.1 MB/s; p50 50.0 ms, p99 99.0 ms, p99.9 100.0 ms, max 100.0 ms\n' +
      '2 s: 0 messages/s, 0.0 MB/s\n' +
      '3 s: 1,000 messages/s, 0.1 MB/s; 3 errors\n',
  );
  const rows = world.csvText.trimEnd().split('\n');
  expect(
    rows.slice(1).map((row) => row.split(',').map((cell) => (cell === '' ? '' : Math.round(Number(cell))))),
  ).toEqual([
    [1, 1_000, 1_000, 0, 50, 99, 100, 100, 0],
    [2, 0, 0, 0, '', '', '', '', 0],
    [3, 500, 1_000, 0, '', '', '', '', 3],
  ]);
  report.print(figures, 'text', FACTS);
  expect(world.written(world.stdout)).toBe(
    'moved: 1,500 messages in 2.50 s, 600 messages/s, 0.1 MB/s\n' +
      'latency, from here to there: p50 50.0 ms, p99 99.0 ms, p99.9 100.0 ms, max 100.0 ms\n' +
      'errors: 3\n',
  );
  report.print(figures, 'json', FACTS);
  expect(JSON.parse(world.written(world.stdout))).toMatchObject({
    ...FACTS,
    messages: 1_500,
    seconds: 2.5,
    msgPerSec: 600,
    mbPerSec: 0.077,
    errors: 3,
  });
  expect(report.firstError?.message).toBe('gone');
  expect(world.clock.pendingTimers).toBe(0);
});

test('without a terminal it says the sum alone', async () => {
  const world = new World();
  const report = await PerfReport.open(world.shell({ stderrIsTerminal: false }), undefined);
  await measure(world, report);
  expect(world.written(world.stderr)).toBe('');
});

test('a file that cannot be written any more is an error, behind the sum', async () => {
  const world = new World();
  const full = Object.assign(new Error('no space'), { code: 'ENOSPC' });
  const csv = new Writable({ write: (_chunk, _encoding, done) => done(full) });
  const report = await PerfReport.open(world.shell({ createFile: async () => Promise.resolve(csv) }), 'x.csv');
  const figures = await measure(world, report);
  expect(() => report.print(figures, 'text', FACTS)).toThrow('cannot write x.csv (ENOSPC)');
  expect(world.written(world.stdout)).toContain('1,500 messages');
});
