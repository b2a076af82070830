/**
 * The built program as processes: servers that can be killed and started again on the same data, and commands that run to
 * their end. Everything is gone when the test is: `await using server = await startStandalone()`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type FileHandle, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from './ports.ts';

const fromSource = import.meta.url.endsWith('.ts');

/** A program of the build. */
function built(name: string): string {
  return fileURLToPath(new URL(`../../${fromSource ? 'dist/' : ''}${name}`, import.meta.url));
}

const PROGRAM = built('services/main/magnetar.js');
const READY_MS = 30_000;
const STOP_MS = 20_000;
const KEPT_CHARACTERS = 1_000_000;
const LAST_LINES = 40;

const children = new Set<ChildProcess>();
function killAll(): void {
  for (const child of children) child.kill('SIGKILL');
}
process.on('exit', killAll);
process.once('SIGTERM', () => {
  killAll(); // so ends a test that took too long
  process.kill(process.pid, 'SIGTERM');
});

function environmentOf(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('MAGNETAR_') && name !== 'FORCE_COLOR');
  return { ...Object.fromEntries(own), NO_COLOR: '1', ...extra };
}

function lastLines(text: string): string {
  return text.trimEnd().split('\n').slice(-LAST_LINES).join('\n');
}

/** A new temporary folder. */
export async function temporaryFolder(): Promise<string> {
  return await mkdtemp(path.join(tmpdir(), 'magnetar-test-'));
}

export interface ServerOptions {
  /** Further arguments. */
  readonly args?: readonly string[];
  /** The data folder; a temporary one that goes with the server when not given. */
  readonly data?: string;
  readonly port?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Another program of the build, which takes the same arguments: a sabotage. */
  readonly program?: string;
}

/** A server process that is ready. */
export class ServerProcess implements AsyncDisposable {
  readonly role: 'standalone' | 'bookie';
  readonly port: number;
  /** The port of /healthz and its like. */
  readonly httpPort: number;
  readonly data: string;
  /** Milliseconds from the last spawn until it said that it is ready. */
  readyMs = 0;
  stdout = '';
  stderr = '';
  /** What the process before the last start said last. */
  #stderrBefore = '';
  readonly #args: readonly string[];
  readonly #env: Readonly<Record<string, string>>;
  readonly #ownsData: boolean;
  readonly #program: string;
  #child: ChildProcess | undefined;

  private constructor(
    role: 'standalone' | 'bookie',
    place: { port: number; httpPort: number; data: string },
    options: ServerOptions,
  ) {
    this.role = role;
    this.port = place.port;
    this.httpPort = place.httpPort;
    this.data = place.data;
    const ports = ['--port', `${place.port}`, '--http-port', `${place.httpPort}`];
    this.#args = [role, '--data', place.data, ...ports, ...(options.args ?? [])];
    this.#env = options.env ?? {};
    this.#ownsData = options.data === undefined;
    this.#program = options.program === undefined ? PROGRAM : built(options.program);
  }

  /** Starts a server and waits until it says that it is ready. */
  static async start(role: 'standalone' | 'bookie', options: ServerOptions): Promise<ServerProcess> {
    const data = options.data ?? (await temporaryFolder());
    const port = options.port ?? (await freePort());
    const httpPort = await freePort();
    const server = new ServerProcess(role, { port, httpPort, data }, options);
    try {
      await server.start();
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
    return server;
  }

  get serviceUrl(): string {
    return `grpc://127.0.0.1:${this.port}`;
  }

  get adminUrl(): string {
    return `http://127.0.0.1:${this.httpPort}`;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error(`${this.role} does not run`);
    return pid;
  }

  /** Starts the process again, on the same ports and data. Only after `kill` or `stop`. */
  async start(): Promise<void> {
    const from = performance.now();
    this.#stderrBefore = lastLines(this.stderr);
    [this.stdout, this.stderr] = ['', ''];
    const child = spawn(process.execPath, [this.#program, ...this.#args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: environmentOf(this.#env),
    });
    this.#child = child;
    children.add(child);
    child.once('exit', () => {
      children.delete(child);
      if (this.#child === child) this.#child = undefined;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-KEPT_CHARACTERS);
    });
    await new Promise<void>((resolve, reject) => {
      const refuse = (what: string): void => reject(new Error(`${this.role} ${what}: ${this.stderr}`));
      const timer = setTimeout(() => refuse(`was not ready within ${READY_MS} ms`), READY_MS);
      child.once('close', (code, signal) => {
        clearTimeout(timer);
        refuse(`ended with ${code ?? signal} before it was ready`);
      });
      child.once('error', reject);
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        this.stdout = (this.stdout + text).slice(-KEPT_CHARACTERS);
        if (!this.stdout.includes(' is ready')) return;
        clearTimeout(timer);
        resolve();
      });
    });
    this.readyMs = performance.now() - from;
  }

  /** The last lines of its log, and of that of the process before it: for a test that fails. */
  get lastWords(): string {
    const name = `${this.role} on port ${this.port}`;
    return `${name}, before its last start:\n${this.#stderrBefore}\n${name}:\n${lastLines(this.stderr)}`;
  }

  /** Sends a signal to the process, and to no other. */
  signal(name: NodeJS.Signals): void {
    process.kill(this.pid, name);
  }

  /** Resolves with the exit code when the process ends by itself. */
  async exited(): Promise<number> {
    const child = this.#child;
    if (child === undefined) throw new Error(`${this.role} does not run`);
    const [code] = (await once(child, 'close')) as [number | null];
    return code ?? -1;
  }

  /** kill -9; resolves when the process is gone. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** SIGTERM; resolves with the exit code. A server that does not end in time is killed, and that is an error. */
  async stop(): Promise<number> {
    return await this.#end('SIGTERM');
  }

  async #end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number> {
    const child = this.#child;
    if (child === undefined) return 0;
    const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    child.kill(signal);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, STOP_MS);
    const [code] = await exit;
    clearTimeout(timer);
    if (late) throw new Error(`${this.role} did not end within ${STOP_MS} ms of ${signal}: ${this.stderr}`);
    return code ?? -1;
  }

  /** Kills the process; removes the data folder unless the caller gave it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    if (this.#ownsData) await rm(this.data, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** Starts `magnetar standalone` on free ports. */
export async function startStandalone(options: ServerOptions = {}): Promise<ServerProcess> {
  return await ServerProcess.start('standalone', options);
}

/** Starts `magnetar bookie` on a free port. */
export async function startBookie(options: ServerOptions = {}): Promise<ServerProcess> {
  return await ServerProcess.start('bookie', options);
}

/** What a command left behind. */
export interface CommandResult {
  /** The exit code; -1: a signal ended it. */
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface CommandOptions {
  /** Written to stdin, which is then ended. */
  readonly input?: Uint8Array | string;
  readonly env?: Readonly<Record<string, string>>;
  /** Killed, and that is an error, after so long. */
  readonly timeoutMs?: number;
  readonly folder?: string;
  /** A file that is stdout; by default it is collected. */
  readonly output?: FileHandle;
}

/** A command under way. */
export function spawnCommand(args: readonly string[], options: CommandOptions = {}): ChildProcess {
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    stdio: ['pipe', options.output?.fd ?? 'pipe', 'pipe'],
    env: environmentOf(options.env),
    cwd: options.folder,
  });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

/** Runs a command of the program to its end. */
export async function runCommand(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const child = spawnCommand(args, options);
  const { stdin, stdout, stderr } = child;
  if (stdin === null || stderr === null) throw new Error('a command has pipes');
  const closed = once(child, 'close') as Promise<[number | null]>;
  stdin.on('error', () => {}); // the command may end without reading everything
  stdin.end(options.input ?? '');
  const out: Buffer[] = [];
  const errors: Buffer[] = [];
  stdout?.on('data', (chunk: Buffer) => out.push(chunk));
  stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  const timeoutMs = options.timeoutMs ?? 30_000;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill('SIGKILL');
  }, timeoutMs);
  const [code] = await closed;
  clearTimeout(timer);
  const text = Buffer.concat(errors).toString('utf8');
  if (late) throw new Error(`magnetar ${args.join(' ')} did not end within ${timeoutMs} ms: ${text}`);
  return { code: code ?? -1, stdout: Buffer.concat(out), stderr: text };
}
