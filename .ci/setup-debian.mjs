#!/usr/bin/env node
// The Debian packages that the tests need beside npm's: checks which are missing and, as root, installs them.
//
//   npm run setup:debian          exit code 0: all there; 1: something is missing, with the line to type
//
// Tests call missingPackages() and setUpDebian() themselves, so that what they skip and what is installed never differ.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Why each is needed, by package. */
export const PACKAGES = Object.freeze({
  'protobuf-compiler': 'stock gRPC clients: the compiler of the .proto files',
  'protobuf-compiler-grpc': 'stock gRPC clients: its plug-in for Python',
  'python3-protobuf': 'stock gRPC clients: run time',
  'python3-grpcio': 'stock gRPC clients: run time',
  e2fsprogs: 'power-cut tests: mkfs.ext4 for a file system in a file',
  mount: 'power-cut tests: mount, umount, losetup',
  'util-linux': 'power-cut tests: unshare; tests of folders that cannot be written',
  prometheus: 'tests of /metrics: promtool, which checks what a process tells',
  chromium: 'tests of the page at /docs: a browser',
  gcc: 'tests of disks that fail: the compiler of a library of faults',
  'libc6-dev': 'tests of disks that fail: its headers',
  libeatmydata1: 'sabotage of power-cut tests: a sync that does nothing',
});

/** True on Debian and what is made from it. */
export function isDebian() {
  return existsSync('/etc/debian_version') && spawnSync('dpkg-query', ['--version'], { stdio: 'ignore' }).status === 0;
}

/** Names of packages that are not installed, of those asked for. */
export function missingPackages(names = Object.keys(PACKAGES)) {
  return names.filter((name) => {
    const { status, stdout } = spawnSync('dpkg-query', ['--show', '--showformat=${db:Status-Status}', name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return status !== 0 || stdout !== 'installed';
  });
}

/** The commands that install packages. */
function installCommands(names) {
  return [
    ['apt-get', 'update', '--quiet=2'],
    ['apt-get', 'install', '--yes', '--quiet=2', '--no-install-recommends', ...names],
  ];
}

/**
 * Makes sure that the packages are there. Returns { ok: true }, or { ok: false, message } with one line that says what to
 * do. Installs as root alone.
 */
export function setUpDebian(names = Object.keys(PACKAGES)) {
  if (!isDebian())
    return { ok: false, message: `not a Debian system: provide what these packages hold: ${names.join(' ')}` };
  const missing = missingPackages(names);
  if (missing.length === 0) return { ok: true };
  const [update, install] = installCommands(missing);
  if (process.getuid?.() !== 0) {
    const line = `sudo ${update.join(' ')} && sudo ${install.join(' ')}`;
    return { ok: false, message: `missing packages; as root: ${line}` };
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  try {
    for (const [program, ...args] of [update, install]) execFileSync(program, args, { env, stdio: ['ignore', 2, 2] });
  } catch (error) {
    return { ok: false, message: `${install.join(' ')} failed: ${error instanceof Error ? error.message : error}` };
  }
  const left = missingPackages(missing);
  return left.length === 0
    ? { ok: true }
    : { ok: false, message: `still missing after the installation: ${left.join(' ')}` };
}

const started = process.argv[1];
if (started !== undefined && realpathSync(started) === fileURLToPath(import.meta.url)) {
  const { ok, message } = setUpDebian();
  console.log(ok ? `all ${Object.keys(PACKAGES).length} Debian packages are there` : message);
  process.exitCode = ok ? 0 : 1;
}
