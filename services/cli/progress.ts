import type { Timer } from '../runtime/clock.ts';
import type { Shell } from './shell.ts';
import { bytesText, countText, messagesText } from './text.ts';

const REDRAW_MS = 250;
const CLEAR_LINE = '\r\u001B[K';

/** Shows on stderr how far a publication is: redrawn on a terminal, and one line at the end everywhere. */
export class Progress {
  #messages = 0;
  #bytes = 0;
  readonly #shell: Shell;
  readonly #start: number;
  #timer: Timer | undefined;

  constructor(shell: Shell) {
    this.#shell = shell;
    this.#start = shell.clock.monotonic();
    if (shell.stderrIsTerminal) this.#schedule();
  }

  /** Counts a message that was acknowledged. */
  count(bytes: number): void {
    this.#messages += 1;
    this.#bytes += bytes;
  }

  /** Ends the redrawing and says the sum. */
  finish(topic: string): void {
    this.#timer?.cancel();
    const seconds = this.#seconds();
    const rate = this.#messages > 1 ? `, ${countText(this.#messages / seconds)} messages/s` : '';
    const what = `${messagesText(this.#messages)} (${bytesText(this.#bytes)}) to ${topic}`;
    this.#clear();
    this.#shell.stderr.write(`published ${what} in ${seconds.toFixed(2)} s${rate}\n`);
  }

  #seconds(): number {
    return Math.max(0.001, (this.#shell.clock.monotonic() - this.#start) / 1_000);
  }

  #clear(): void {
    if (this.#shell.stderrIsTerminal) this.#shell.stderr.write(CLEAR_LINE);
  }

  #schedule(): void {
    this.#timer = this.#shell.clock.after(
      REDRAW_MS,
      () => {
        const rate = countText(this.#messages / this.#seconds());
        this.#clear();
        this.#shell.stderr.write(`${messagesText(this.#messages)}, ${bytesText(this.#bytes)}, ${rate} messages/s`);
        this.#schedule();
      },
      { unref: true },
    );
  }
}
