/** What `--from` can say. */
export type From =
  | { readonly type: 'earliest' }
  | { readonly type: 'latest' }
  /** A message, inclusive; `id` is well-formed. */
  | { readonly type: 'id'; readonly id: string }
  /** Milliseconds since 1970-01-01 UTC. */
  | { readonly type: 'time'; readonly time: number };

/** What is allowed after `--from`, for error messages and help. */
export const FROM_ALLOWED =
  'earliest, latest, a message id (ledger:entry:batch), or a time: 2026-11-20T08:30:00Z, milliseconds since 1970 (12 digits or more), or how long ago, such as -10m (ms, s, m, h, d, w)';

const ID = /^(\d{1,16}):(\d{1,16}):(\d{1,10})(?::(\d{1,10}))?$/;
const UINT32_MAX = 4_294_967_295;
const AGO = /^-(\d{1,12})(ms|s|m|h|d|w)$/;
/** A time of which the year is worth to be named: what is smaller was meant as seconds. */
const MILLISECONDS = /^(0|[1-9]\d{11,15})$/;
const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

function isId(text: string): boolean {
  const match = ID.exec(text);
  if (match === null) return false;
  const [ledger, entry, batch, partition] = match.slice(1).map((part) => Number(part ?? 0));
  return (
    Number.isSafeInteger(ledger) && Number.isSafeInteger(entry) && Math.max(batch ?? 0, partition ?? 0) <= UINT32_MAX
  );
}

/**
 * Reads the argument of `--from`. `now`: milliseconds since 1970-01-01 UTC; `parseTime` reads ISO 8601. Undefined: it is
 * nothing that is allowed.
 */
export function parseFrom(
  text: string,
  { now, parseTime }: { now: number; parseTime: (text: string) => number | undefined },
): From | undefined {
  if (text === 'earliest' || text === 'latest') return { type: text };
  if (isId(text)) return { type: 'id', id: text };
  const ago = AGO.exec(text);
  if (ago !== null) return { type: 'time', time: Math.max(0, now - Number(ago[1]) * (UNIT_MS[ago[2] ?? ''] ?? 1)) };
  if (MILLISECONDS.test(text))
    return Number.isSafeInteger(Number(text)) ? { type: 'time', time: Number(text) } : undefined;
  const time = parseTime(text);
  return time === undefined ? undefined : { type: 'time', time: Math.max(0, time) };
}
