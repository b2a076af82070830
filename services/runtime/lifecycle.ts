import { MagnetarError } from '../lib/errors.ts';
import type { Environment } from './environment.ts';

interface Resource {
  readonly name: string;
  readonly close: () => Promise<void>;
}

/**
 * What a process or a role has opened, closed in reverse order of adding. Background loops belong to it: it ends them by
 * their signal and waits for them.
 */
export class Lifecycle {
  readonly #environment: Pick<Environment, 'clock' | 'logger' | 'fatal'>;
  readonly #resources: Resource[] = [];
  #closing: Promise<void> | undefined;

  constructor(environment: Pick<Environment, 'clock' | 'logger' | 'fatal'>) {
    this.#environment = environment;
  }

  /** Adds something that is open. @throws ALREADY_CLOSED when closing has begun: the caller closes it. */
  add(name: string, close: () => Promise<void>): void {
    if (this.#closing !== undefined) {
      throw new MagnetarError('ALREADY_CLOSED', `${name} cannot be started: closing has begun`);
    }
    this.#resources.push({ name, close });
  }

  /**
   * Runs a background task until it returns or `close` aborts its signal. When it fails before that, the error is fatal or
   * is logged, as `failure` says; when it fails while it is being closed, `close` reports it, unless it is the signal's own reason.
   */
  run(name: string, task: (signal: AbortSignal) => Promise<void>, failure: 'fatal' | 'logged'): void {
    const controller = new AbortController();
    const { signal } = controller;
    const resource: Resource = {
      name,
      close: async () => {
        controller.abort();
        const error = await running;
        if (error !== undefined) throw error;
      },
    };
    this.add(name, resource.close);
    const running = this.#runTask(resource, task, signal, failure);
  }

  async #runTask(
    resource: Resource,
    task: (signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
    failure: 'fatal' | 'logged',
  ): Promise<Error | undefined> {
    try {
      await task(signal);
    } catch (thrown) {
      if (thrown === signal.reason) return undefined;
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      if (signal.aborted) return error;
      if (failure === 'fatal') this.#environment.fatal(error);
      else this.#environment.logger.error(`${resource.name} failed`, { error });
    } finally {
      const at = this.#resources.indexOf(resource);
      if (at >= 0 && !signal.aborted) this.#resources.splice(at, 1);
    }
    return undefined;
  }

  /**
   * Closes everything, the newest first, one after another. Idempotent: later calls wait for the first. A step that is not
   * done when `deadlineMs` have passed in all is left behind, and the steps after it are started without waiting for them.
   *
   * @throws what the only failed step threw, or an AggregateError over several; DEADLINE_EXCEEDED for a step left behind.
   */
  async close(options: { deadlineMs: number }): Promise<void> {
    this.#closing ??= this.#closeAll(options.deadlineMs);
    await this.#closing;
  }

  async #closeAll(deadlineMs: number): Promise<void> {
    const { clock } = this.#environment;
    const end = clock.monotonic() + deadlineMs;
    const errors: unknown[] = [];
    for (let resource = this.#resources.pop(); resource !== undefined; resource = this.#resources.pop()) {
      try {
        await this.#closeOne(resource, end - clock.monotonic(), deadlineMs);
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length === 1) throw errors[0];
    if (errors.length > 1) throw new AggregateError(errors, `${errors.length} things could not be closed`);
  }

  async #closeOne({ name, close }: Resource, leftMs: number, deadlineMs: number): Promise<void> {
    const { clock, logger } = this.#environment;
    const late = Symbol('late');
    const closed = close();
    let timer: ReturnType<typeof clock.after> | undefined;
    const deadline = new Promise<typeof late>((resolve) => {
      timer = clock.after(Math.max(0, leftMs), () => resolve(late));
    });
    try {
      if ((await Promise.race([closed, deadline])) !== late) return;
    } finally {
      timer?.cancel();
    }
    closed.catch((error: unknown) => logger.warn(`${name} failed after its deadline for closing`, { error }));
    throw new MagnetarError('DEADLINE_EXCEEDED', `${name} was not closed within ${deadlineMs} ms`);
  }
}
