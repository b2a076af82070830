import type {
  AckReceipt,
  CaughtUp,
  ConsumeResponse,
  ConsumerClosed,
  Delivery,
  Loss,
  SeekDone,
  Subscribed,
} from '../../wire/frames.ts';

/** Something to say on a consume stream; a credit alone has nothing in it. */
export type ConsumeItem =
  | { readonly kind: 'subscribed'; readonly subscribed: Subscribed }
  | { readonly kind: 'delivery'; readonly delivery: Delivery }
  | { readonly kind: 'loss'; readonly loss: Loss }
  | { readonly kind: 'caughtUp'; readonly caughtUp: CaughtUp }
  | { readonly kind: 'ackReceipt'; readonly receipt: AckReceipt }
  | { readonly kind: 'seekDone'; readonly seekDone: SeekDone }
  | { readonly kind: 'closed'; readonly closed: ConsumerClosed }
  | { readonly kind: 'credit' };

/**
 * One frame of items that came up in this order. The client handles a frame's fields in the order of their numbers, so a
 * CaughtUp that was followed by a delivery or a loss to the same consumer would be handled behind it, and no longer be true: it is
 * left out.
 */
export function toConsumeResponse(items: readonly ConsumeItem[], ackCredit: number): ConsumeResponse {
  const subscribed: Subscribed[] = [];
  const deliveries: Delivery[] = [];
  let caughtUp: CaughtUp[] = [];
  const ackReceipts: AckReceipt[] = [];
  const seeksDone: SeekDone[] = [];
  const closed: ConsumerClosed[] = [];
  const losses: Loss[] = [];
  for (const item of items) {
    switch (item.kind) {
      case 'delivery': {
        const { consumer } = item.delivery;
        if (caughtUp.length > 0) caughtUp = caughtUp.filter((earlier) => earlier.consumer !== consumer);
        deliveries.push(item.delivery);
        break;
      }
      case 'loss':
        caughtUp = caughtUp.filter(({ consumer }) => consumer !== item.loss.consumer);
        losses.push(item.loss);
        break;
      case 'caughtUp':
        caughtUp.push(item.caughtUp);
        break;
      case 'ackReceipt':
        ackReceipts.push(item.receipt);
        break;
      case 'subscribed':
        subscribed.push(item.subscribed);
        break;
      case 'seekDone':
        seeksDone.push(item.seekDone);
        break;
      case 'closed':
        closed.push(item.closed);
        break;
      case 'credit':
        break;
    }
  }
  const frame = { subscribed, deliveries, caughtUp, ackReceipts, seeksDone, closed, losses };
  return ackCredit === 0 ? frame : { ...frame, credit: { items: ackCredit, bytes: 0 } };
}
