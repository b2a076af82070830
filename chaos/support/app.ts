/**
 * An app outside of this checkout that has the package in its node_modules, as npm packs it, with what the package declares
 * and nothing else.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { temporaryFolder } from './process.ts';

const execute = promisify(execFile);
const MODULES = path.resolve('node_modules');
const WAIT_MS = 60_000;
const UNPACK =
  'mkdir node_modules && mv magnetar-*.tgz magnetar.tgz && tar xzf magnetar.tgz && mv package node_modules/magnetar';

/** What of package.json is looked at. */
export interface Manifest {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
}

export async function manifest(): Promise<Manifest> {
  return JSON.parse(await readFile('package.json', 'utf8')) as Manifest;
}

/** Makes packages of this checkout available in a folder of modules. */
async function link(names: readonly string[], modules: string): Promise<void> {
  for (const name of names) {
    await mkdir(path.dirname(path.join(modules, name)), { recursive: true });
    await symlink(path.join(MODULES, name), path.join(modules, name));
  }
}

export class App implements AsyncDisposable {
  readonly folder: string;
  /** The files in the tarball. */
  readonly packed: readonly string[];
  readonly #processes: AppProcess[] = [];

  private constructor(folder: string, packed: readonly string[]) {
    this.folder = folder;
    this.packed = packed;
  }

  /** `devDependencies`: packages that the app itself has. */
  static async create(devDependencies: readonly string[] = []): Promise<App> {
    const folder = await temporaryFolder();
    // `prepare` would build again, under the feet of whoever runs the program.
    await execute('npm', ['pack', '--ignore-scripts', '--pack-destination', folder]);
    await execute('sh', ['-c', UNPACK], { cwd: folder });
    const packed = (await execute('tar', ['tzf', 'magnetar.tgz'], { cwd: folder })).stdout.trim().split('\n');
    const modules = path.join(folder, 'node_modules');
    await link(Object.keys((await manifest()).dependencies), path.join(modules, 'magnetar', 'node_modules'));
    await link(devDependencies, modules);
    return new App(folder, packed);
  }

  /** Type-checks a file with every check on; gives what tsc says. */
  async typeCheck(file: string, source: string, compilerOptions: object): Promise<string> {
    const folder = path.join(this.folder, file.replaceAll('.', '-'));
    await mkdir(folder);
    await writeFile(path.join(folder, file), source);
    const strict = { strict: true, skipLibCheck: false, noEmit: true, exactOptionalPropertyTypes: true };
    const shared = { target: 'es2022', lib: ['es2023', 'esnext.disposable'], types: ['node'] };
    const typeRoots = [path.join(MODULES, '@types')];
    const config = { compilerOptions: { ...strict, ...shared, typeRoots, ...compilerOptions }, files: [file] };
    await writeFile(path.join(folder, 'tsconfig.json'), JSON.stringify(config));
    const compiler = path.join(MODULES, 'typescript', 'bin', 'tsc');
    const result = execute(process.execPath, [compiler, '-p', folder], { cwd: folder });
    return await result.then(
      ({ stdout }) => stdout,
      (error: { stdout: string }) => error.stdout,
    );
  }

  /** Starts a program of the app. `args` go to Node, before the file. */
  async start(
    file: string,
    source: string,
    options: { readonly args?: readonly string[]; readonly env?: Readonly<Record<string, string>> } = {},
  ): Promise<AppProcess> {
    await writeFile(path.join(this.folder, file), source);
    const child = spawn(process.execPath, [...(options.args ?? []), file], {
      cwd: this.folder,
      env: { ...process.env, TMPDIR: this.folder, ...options.env }, // what it leaves when it is killed goes with the app
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const started = new AppProcess(child);
    this.#processes.push(started);
    return started;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#processes) await each.kill();
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** A running app that prints one line of JSON per thing that it has to say: `[what, value]`. */
export class AppProcess {
  stderr = '';
  readonly #child: ChildProcess;
  readonly #said: (readonly [string, unknown])[] = [];
  readonly #closed: Promise<number>;
  #changed: () => void = () => {};
  #ended = false;

  constructor(child: ChildProcess) {
    this.#child = child;
    const { stdout, stderr } = child;
    if (stdout === null || stderr === null) throw new Error('an app has pipes');
    stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    createInterface({ input: stdout }).on('line', (line) => {
      this.#said.push(JSON.parse(line) as [string, unknown]);
      this.#changed();
    });
    this.#closed = once(child, 'close').then(([code]) => {
      this.#ended = true;
      this.#changed();
      return (code as number | null) ?? -1;
    });
  }

  /** What the app says about this, the first time that it does from here on. */
  async says(what: string): Promise<unknown> {
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const at = this.#said.findIndex(([key]) => key === what);
      const found = this.#said[at];
      if (found !== undefined) {
        this.#said.splice(at, 1);
        return found[1];
      }
      const left = deadline - performance.now();
      if (this.#ended || left <= 0) throw new Error(`the app never said "${what}": ${this.stderr}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Writes a line to the app. */
  tell(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** The exit code, once the app has ended by itself. -1: a signal ended it. */
  async exited(): Promise<number> {
    return await this.#closed;
  }

  /** kill -9. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#closed;
  }
}
