import { describe, expect, test } from 'vitest';
import { LoopProbe } from './loop-probe.ts';
import { ManualClock } from './testing/manual-clock.ts';

/** A clock that can stand in the middle of a turn: what is due meanwhile runs late. */
class BusyClock extends ManualClock {
  #late = 0;

  override monotonic(): number {
    return super.monotonic() + this.#late;
  }

  /** The next timer runs so late; the others after it as much. */
  block(ms: number): void {
    this.#late += ms;
  }
}

describe('the probe of the event loop', () => {
  test('asks twice a second at most while nothing happens', () => {
    const clock = new ManualClock();
    const probe = new LoopProbe(clock, () => 0);
    clock.advance(60_000);
    expect(probe.delays.count).toBeLessThanOrEqual(130);
    expect(probe.delays.sum).toBe(0);
    probe.close();
    expect(clock.pendingTimers).toBe(0);
  });

  test('asks a hundred times a second while the loop is busy', () => {
    const clock = new ManualClock();
    const probe = new LoopProbe(clock, () => clock.monotonic() / 2);
    clock.advance(11_000);
    expect(probe.delays.count).toBeGreaterThan(990);
    probe.close();
  });

  test('a blocked loop counts for all who would have come meanwhile', () => {
    const clock = new BusyClock();
    const probe = new LoopProbe(clock, () => clock.monotonic());
    clock.advance(1_000);
    const before = probe.delays.count;
    clock.block(50);
    clock.advance(10);
    expect(probe.delays.count - before).toBe(5); // 50, 40, 30, 20 and 10 ms
    expect(probe.delays.sum).toBe(150);
    probe.close();
  });
});
