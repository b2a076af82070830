import { recordBytes } from './format.ts';
import { groupBytes } from './group.ts';

/** Bounds of one commit group. */
export interface GroupLimits {
  readonly records: number;
  /** Of records with their headers; a single larger record is a group of its own. */
  readonly bytes: number;
}

/** What the log does next with what waits. */
export interface GroupPlan {
  /** How many of the waiting records the next group takes. 0: none fits into this segment. */
  readonly take: number;
  /** True: the segment is full; begin the next one first. */
  readonly roll: boolean;
}

/**
 * The group-commit policy: no waiting for company (while a group is in flight, the next one collects), as many as the limits
 * and the space left in the segment allow. `room`: bytes up to the segment's end; `directoryBytes`: what the group
 * says of the one before; `empty`: the segment holds no group yet,
 * and takes a record of any size.
 */
export function planGroup(
  waiting: readonly { readonly payloadBytes: number }[],
  limits: GroupLimits,
  segment: { readonly room: number; readonly directoryBytes: number; readonly empty: boolean },
): GroupPlan {
  let [take, bytes] = [0, 0];
  for (const { payloadBytes } of waiting) {
    const next = bytes + recordBytes(payloadBytes);
    if (take > 0 && (take >= limits.records || next > limits.bytes)) break;
    if (groupBytes(next + segment.directoryBytes) > segment.room && !(segment.empty && take === 0))
      return { take, roll: take === 0 };
    bytes = next;
    take++;
  }
  return { take, roll: false };
}
