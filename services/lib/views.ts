/** Views of large buffers: whoever keeps a small one for long copies it out, so that 200 bytes never pin a megabyte. */

/** A buffer up to this size may be pinned by whatever is in it. */
const SMALL_BUFFER_BYTES = 4_096;
/** A view below this share of its buffer is copied out. */
const COPY_BELOW_SHARE: number = 1 / 16;

/** Bytes of pieces that stand for what they are one after another. */
export function byteLength(pieces: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const piece of pieces) bytes += piece.length;
  return bytes;
}

/** The view itself, or a copy with a buffer of its own where the view is below a share of the buffer behind it. */
export function unpinned(view: Buffer, share: number = COPY_BELOW_SHARE): Buffer {
  const backing = view.buffer.byteLength;
  if (backing <= SMALL_BUFFER_BYTES || view.length >= backing * share) return view;
  const own = Buffer.allocUnsafeSlow(view.length);
  view.copy(own);
  return own;
}
