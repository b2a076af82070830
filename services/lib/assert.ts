import { AssertionError } from 'node:assert';

/**
 * States an invariant. A failure is an error of ours, never of a caller or of the outside world.
 *
 * @throws AssertionError
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError({ message, stackStartFn: assert });
}

/** The end of an exhaustive `switch`. */
export function assertNever(value: never): never {
  throw new AssertionError({ message: `unexpected value ${String(value)}`, stackStartFn: assertNever });
}
