/** The REST API, as the admin commands use it. */
import { MagnetarError } from '../lib/errors.ts';
import type { HttpRequest, HttpResponse } from './http.ts';
import type { Shell } from './shell.ts';
import { oneLine } from './text.ts';

const TIMEOUT_MS = 30_000;
const NOT_FOUND = 404;

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

/** What a failed request is worth to a person: what the platform says, without a stack. */
function platformText(error: unknown): string {
  // Several addresses were tried: each has its own error.
  const errors: readonly unknown[] = error instanceof AggregateError ? error.errors : [error];
  const texts = errors.map((each) => {
    if (!(each instanceof Error)) return String(each);
    return 'code' in each && each.code !== 'ETIMEDOUT' ? String(each.code) : each.message;
  });
  return oneLine([...new Set(texts)].join(', '));
}

/** True when something answers, and what it says is no HTTP: Node's parser gives codes of its own. */
function isNoHttp(error: unknown): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('HPE_');
}

export class AdminClient {
  readonly #shell: Shell;
  readonly #url: string;

  /** @param url http://HOST:PORT */
  constructor(shell: Shell, url: string) {
    this.#shell = shell;
    this.#url = url.replace(/\/$/, '');
  }

  /** What is at a path, parsed. @throws MagnetarError */
  async get(path: string): Promise<unknown> {
    const response = await this.#ask('GET', path);
    try {
      return JSON.parse(response.body.toString('utf8')) as unknown;
    } catch {
      throw this.#stranger(response);
    }
  }

  /** What is at a path, as it is. @throws MagnetarError */
  async getRaw(path: string): Promise<HttpResponse> {
    return await this.#ask('GET', path);
  }

  /** Changes something. @throws MagnetarError */
  async change(method: 'PUT' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<void> {
    await this.#ask(method, path, body);
  }

  async #ask(method: HttpRequest['method'], path: string, body?: unknown): Promise<HttpResponse> {
    const url = `${this.#url}/admin/v2/${path}`;
    const text = body === undefined ? undefined : JSON.stringify(body);
    let response: HttpResponse;
    try {
      response = await this.#shell.http({ method, url, body: text, timeoutMs: TIMEOUT_MS });
    } catch (error) {
      if (isNoHttp(error)) throw this.#other('does not speak HTTP');
      const why = `the broker's HTTP side at ${this.#url} cannot be reached (${platformText(error)})`;
      throw new MagnetarError('UNAVAILABLE', `${why}; start it, or name another one with --admin-url`, {
        cause: error,
      });
    }
    if (response.status >= 200 && response.status < 300) return response;
    throw this.#refused(response);
  }

  #refused(response: HttpResponse): MagnetarError {
    let answer: unknown;
    try {
      answer = JSON.parse(response.body.toString('utf8'));
    } catch {
      return this.#stranger(response);
    }
    const reason = isRecord(answer) ? answer['reason'] : undefined;
    if (typeof reason !== 'string') return this.#stranger(response);
    // 404 also for a path that an older broker does not have: the reason says which of the two it is.
    const code = response.status === NOT_FOUND ? 'TOPIC_NOT_FOUND' : 'INVALID_ARGUMENT';
    return new MagnetarError(response.status >= 500 ? 'UNAVAILABLE' : code, reason);
  }

  #stranger({ status }: HttpResponse): MagnetarError {
    return this.#other(`answers with status ${status}, and not as the HTTP side of a Magnetar broker does`);
  }

  #other(what: string): MagnetarError {
    return new MagnetarError('UNAVAILABLE', `${this.#url} ${what}; name a broker's HTTP side with --admin-url`);
  }
}
