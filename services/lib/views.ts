/** Views of large buffers: whoever keeps a small one for long copies it out, so that 200 bytes never pin a megabyte. */

/** A buffer up to this size may be pinned by whatever is in it. */
const SMALL_BUFFER_BYTES = 4_096;
/** A view below this share of its buffer is copied out. */
const COPY_BELOW_SHARE: number = 1 / 16;

/** The view itself, or a copy with a buffer of its own where the view is below a share of the buffer behind it. */
export function unpinned(view: Buffer, share: number = COPY_BELOW_SHARE): Buffer {
  const backing = view.buffer.byteLength;
  if (backing <= SMALL_BUFFER_BYTES || view.length >= backing * share) return view;
  const own = Buffer.allocUnsafeSlow(view.length);
  view.copy(own);
  return own;
}
