/** An error of a handle, which does not know its file's name, with that name. */
export function ofFile(error: unknown, path: string): unknown {
  if (error instanceof Error && !error.message.includes(path)) error.message += ` '${path}'`;
  return error;
}
