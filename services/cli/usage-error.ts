/** The command line itself is wrong: exit code 2. The message is one line; `command` says whose help explains it. */
export class UsageError extends Error {
  readonly command: string;

  constructor(message: string, command = 'magnetar') {
    super(message);
    this.name = 'UsageError';
    this.command = command;
  }
}
