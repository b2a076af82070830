#!/usr/bin/env -S node --initial-old-space-size=128
/** The program. Its commands are imported when they run. */
if (process.platform === 'win32') {
  process.stderr.write('magnetar: Windows is not supported; use Linux, macOS, or the Windows Subsystem for Linux\n');
  process.exitCode = 1;
} else {
  const { main } = await import('./main.ts');
  await main(process.argv.slice(2));
}
