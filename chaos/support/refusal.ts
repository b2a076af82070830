import { type ErrorCode, MagnetarError } from '../../services/client/index.ts';

/**
 * The error that a promise rejects with; it has to be one of ours, in one line of plain text.
 *
 * @throws when it resolves, or rejects with anything else
 */
export async function refusalOf(promise: Promise<unknown>): Promise<MagnetarError> {
  const outcome = await promise.then(
    () => new Error('nothing was refused'),
    (error: unknown) => error,
  );
  if (!(outcome instanceof MagnetarError)) throw outcome;
  if (/[\p{Cc}]/u.test(outcome.message)) throw new Error(`not one line of text: ${JSON.stringify(outcome.message)}`);
  return outcome;
}

/** The code of that error. */
export async function codeOf(promise: Promise<unknown>): Promise<ErrorCode> {
  return (await refusalOf(promise)).code;
}
